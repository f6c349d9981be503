"""A JSONL file of predictions, one finished text per line, from which an interrupted tuning continues."""

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from cosd_core.errors import EvaluationFileError, quoted
from cosd_core.evaluation.files import append_lines, read_lines
from cosd_core.tuning.prefix_trie import Ending, Node, PairPrediction


class PredictionLog:
    """The file, which only grows, and its ``entries`` when it was opened."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """Read the file, if it exists.

        Raises:
            EvaluationFileError: A line is no entry.
        """
        self._path = path
        self.entries: list[dict[str, Any]] = []
        for number, line in enumerate(read_lines(path), start=1):
            try:
                self.entries.append(json.loads(line))
                restore(Node(), self.entries[-1])
            except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
                raise EvaluationFileError(f"{path}, line {number} is no entry: {quoted(error)}") from error

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append entries.

        Raises:
            EvaluationFileError: The file cannot be written.
        """
        append_lines(self._path, map(json.dumps, entries))


def make_entry(
    key: str, tokens: Sequence[int], ending: Ending, predictions: Iterable[tuple[int, PairPrediction]]
) -> dict[str, Any]:
    """A finished text and the predictions after its prefixes, with their lengths, as plain JSON values."""
    return {
        "key": key,
        "tokens": list(tokens),
        "ending": [ending.text, ending.finish_reason],
        "predictions": [[length, each.tokens, each.confidences] for length, each in predictions],
    }


def restore(root: Node, entry: Mapping[str, Any]) -> None:
    """Put an entry back into a trie."""
    nodes = [root]
    for token in entry["tokens"]:
        nodes.append(nodes[-1].children[token])
    for length, (one, other), (first, second) in entry["predictions"]:
        confidences = tuple(map(float, first)), tuple(map(float, second))
        nodes[length].prediction = PairPrediction((one, other), confidences)
    text, reason = entry["ending"]
    nodes[-1].ending = Ending(text, reason)

"""A file of what was thought, from which an interrupted tuning goes on: a finished text a line, as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from cosd_core.errors import EvaluationFileError, quoted
from cosd_core.evaluation.answers import append_lines, read_lines
from cosd_core.tuning.prefix_trie import Ending, Node, PairPrediction
from cosd_core.verifiers.features import Further


class PredictionLog:
    """The file, which only grows.

    Attributes:
        entries: What was there when it was opened.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Read what is there.

        Raises:
            EvaluationFileError: A line is no entry.
        """
        self._path = path
        self.entries: list[dict[str, Any]] = []
        for number, line in enumerate(read_lines(path), start=1):
            try:
                self.entries.append(json.loads(line))
                recall(Node(), self.entries[-1])
            except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
                raise EvaluationFileError(f"{path}, line {number} is no note: {quoted(error)}") from error

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write more of them.

        Raises:
            EvaluationFileError: The file cannot be written.
        """
        append_lines(self._path, map(json.dumps, entries))


def entry(
    key: str, tokens: Sequence[int], ending: Ending, thoughts: Iterable[tuple[int, PairPrediction]]
) -> dict[str, Any]:
    """A finished text, and what was thought after its prefixes, as plain JSON values.

    Args:
        key: What it depends on.
        tokens: The text.
        ending: How it ended.
        thoughts: By the prefixes' lengths.
    """
    return {
        "key": key,
        "tokens": list(tokens),
        "ending": [ending.text, ending.finish_reason],
        "thoughts": [[at, each.picks, each.sure, each.further] for at, each in thoughts],
    }


def recall(root: Node, entry: Mapping[str, Any], *, wide: bool = False) -> None:
    """Put an entry back into a trie; if what wide trees see is wanted, only thoughts that have it."""
    nodes = [root]
    for token in entry["tokens"]:
        nodes.append(nodes[-1].child(token))
    for at, (one, other), (first, second), *more in entry["thoughts"]:
        further = Further(*map(float, more[0])) if any(more) else None
        if further or not wide:
            sure = tuple(map(float, first)), tuple(map(float, second))
            nodes[at].thought = PairPrediction((one, other), sure, further)
    text, reason = entry["ending"]
    nodes[-1].ending = Ending(text, reason)

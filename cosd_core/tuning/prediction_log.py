"""All predictions of a tuning, in memory and in a JSONL file from which an interrupted one continues."""

import json
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosd_core.errors import EvaluationFileError, quoted
from cosd_core.evaluation.files import append_lines, read_lines
from cosd_core.generation.measured import Measure, MeasuredConfidence
from cosd_core.prediction import Prediction

Prefix = tuple[int, ...]
"""The token ids between a prompt and a position; -1 at the end where the text must not end yet."""


class Confidence(MeasuredConfidence):
    """A confidence at all stored temperatures; the first is 1."""

    def joined(self, other: MeasuredConfidence) -> NDArray[Any]:
        """The products at all temperatures."""
        return self.numbers * other.numbers  # type: ignore[no-any-return]


def measure_at(temperatures: Sequence[float]) -> Measure:
    """Measures confidences at all of these temperatures, of which the first is 1."""

    def measure(logits: torch.Tensor, token: int, confidence: float) -> Confidence:
        others = torch.tensor(temperatures[1:], dtype=logits.dtype, device=logits.device)
        shares = torch.softmax(logits / others[:, None], -1)[:, token].tolist() if len(others) else []
        return Confidence(confidence, np.array([confidence, *shares]))

    return measure


class PredictionLog:
    """Predictions by key and prefix; a key stands for a model, a prompt and all else that they depend on."""

    def __init__(self, path: str | PathLike[str] | None) -> None:
        """Read the file, if there is one.

        Raises:
            EvaluationFileError: A line is no entry.
        """
        self._path = path
        self._known: defaultdict[str, dict[Prefix, Prediction]] = defaultdict(dict)
        self._new: defaultdict[str, list[list[Any]]] = defaultdict(list)
        for number, line in enumerate(read_lines(path) if path is not None else (), start=1):
            try:
                entry = json.loads(line)
                for prefix, token, confidences in entry["predictions"]:
                    self._known[entry["key"]][tuple(prefix)] = _prediction(token, confidences)
            except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
                raise EvaluationFileError(f"{path}, line {number} is no entry: {quoted(error)}") from error

    def get(self, key: str, prefix: Prefix) -> Prediction | None:
        """A known prediction."""
        return self._known[key].get(prefix)

    def add(self, key: str, prefix: Prefix, prediction: Prediction) -> None:
        """Add a prediction of a :class:`Confidence`; :meth:`write` writes it."""
        self._known[key][prefix] = prediction
        if self._path is not None and isinstance(prediction.confidence, Confidence):
            self._new[key].append([prefix, prediction.id, prediction.confidence.numbers.tolist()])

    def write(self) -> None:
        """Append new predictions to the file.

        Raises:
            EvaluationFileError: It cannot be written.
        """
        if self._path is not None and self._new:
            entries = ({"key": key, "predictions": each} for key, each in self._new.items())
            append_lines(self._path, map(json.dumps, entries))
            self._new.clear()


def _prediction(token: Any, confidences: Any) -> Prediction:
    values = np.array(list(map(float, confidences)))
    return Prediction(int(token), Confidence(values[0], values))

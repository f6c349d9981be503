"""Confidences that carry further numbers, so that what is computed from them has these numbers, too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from numpy.typing import NDArray

from cosd_core.models.base import OpensSessions, PendingPredictions, Positions, Rows, Session
from cosd_core.prediction import Prediction
from cosd_core.verifiers.types import logits_of

Measure = Callable[[torch.Tensor, int, float], float]
"""From logits, ``[vocabulary]``, a token and its confidence, a confidence with further numbers."""


class MeasuredConfidence(float):
    """A confidence with further numbers, which add up where confidences are multiplied.

    Attributes:
        numbers: ``[numbers]``.
    """

    numbers: NDArray[Any]

    def __new__(cls, value: float, numbers: NDArray[Any]) -> Self:
        """A confidence of this value."""
        made = super().__new__(cls, value)
        made.numbers = numbers
        return made

    def __mul__(self, other: float) -> Self:
        numbers = self.numbers
        if isinstance(other, MeasuredConfidence):
            numbers = self.joined(other)
        return type(self)(float(self) * float(other), numbers)

    __rmul__ = __mul__

    def joined(self, other: "MeasuredConfidence") -> NDArray[Any]:
        """The numbers of the product with another."""
        return self.numbers + other.numbers  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A model whose sessions return measured confidences instead of logits."""

    model: OpensSessions
    measure: Measure

    def open_session(self, *, vocabulary: int, role: str = "draft", calibration: float = 1.0) -> Session:
        """As :meth:`BaseLanguageModel.open_session`."""
        session = self.model.open_session(vocabulary=vocabulary, role=role, calibration=calibration)
        return _MeasuredSession(session, self.measure)


@dataclass(frozen=True, slots=True)
class _MeasuredSession(Session):
    session: Session
    measure: Measure

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:  # noqa: ARG002
        return _Pending(self.session.submit(rows, positions, keep_logits=True), self.measure)

    def select(self, rows: Sequence[int]) -> None:
        self.session.select(rows)


@dataclass(frozen=True, slots=True)
class _Pending(PendingPredictions):
    pending: PendingPredictions
    measure: Measure

    def result(self) -> list[list[Prediction]]:
        return [list(map(self._measured, row)) for row in self.pending.result()]

    def _measured(self, prediction: Prediction) -> Prediction:
        confidence = self.measure(logits_of(prediction), prediction.id, prediction.confidence)
        return Prediction(prediction.id, confidence)

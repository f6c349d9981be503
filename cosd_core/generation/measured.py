"""Confidences that carry further numbers, so that what is computed from them has these numbers, too."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from numpy.typing import NDArray

from cosd_core.models.base import OpensSessions, PendingPredictions, Positions, Rows, Session
from cosd_core.models.logits_session import READ_AT_ONCE
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition
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


class KeptSession:
    """One model's session whose rows stay: what follows in a row keeps what it has in common with before.

    Prompts with one beginning, a few examples say, cost their ends alone then.

    Attributes:
        computed: How many predictions were made.
    """

    def __init__(self, model: OpensSessions, vocabulary: int, measure: Measure) -> None:
        """Open a session of the model; ``measure`` makes the confidences of its predictions."""
        self._session = model.open_session(vocabulary=vocabulary)
        self._measure = measure
        self._ids: list[list[int]] = []
        self.computed = 0

    def predict(
        self, wanted: Mapping[int, tuple[list[int], Sequence[SamplingPosition]]]
    ) -> dict[int, list[Prediction]]:
        """Measured predictions at the last positions of some rows' ids."""
        while len(self._ids) <= max(wanted):
            self._ids.append(next(iter(wanted.values()))[0][:1])  # until it is used
        for row, (ids, _) in wanted.items():
            self._ids[row] = ids
        if not self._session.num_rows:
            while not self._session.read(self._ids, READ_AT_ONCE):
                pass  # what many prompts begin with is processed once
        positions = [wanted[row][1] if row in wanted else () for row in range(len(self._ids))]
        found = self._session.predict(self._ids, positions, keep_logits=True)
        self.computed += sum(map(len, positions))
        return {row: list(map(self._measured, found[row])) for row in wanted}

    def _measured(self, prediction: Prediction) -> Prediction:
        confidence = self._measure(logits_of(prediction), prediction.id, prediction.confidence)
        return Prediction(prediction.id, confidence)


@dataclass(frozen=True, slots=True)
class MeasuredModel(OpensSessions):
    """A model for a batch of so many ``rows``, over a kept session."""

    session: KeptSession
    rows: int

    def open_session(self, **_: Any) -> Session:
        """A session of a batch, over the kept one; the arguments are ignored."""
        return _MeasuredSession(self.session, self.rows)


class _MeasuredSession(Session):
    def __init__(self, session: KeptSession, rows: int) -> None:
        self._session = session
        self._rows = list(range(rows))

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:  # noqa: ARG002
        entries = zip(self._rows, rows, positions, strict=True)
        found = self._session.predict({row: (ids, each) for row, ids, each in entries if each})
        return Known([found.get(row, []) for row in self._rows])

    def select(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]


@dataclass(frozen=True, slots=True)
class Known(PendingPredictions):
    """Predictions that are there."""

    predictions: list[list[Prediction]]

    def result(self) -> list[list[Prediction]]:
        """The predictions."""
        return self.predictions

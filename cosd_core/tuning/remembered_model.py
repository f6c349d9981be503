"""Models whose predictions are remembered: they run only where a prediction is not known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cosd_core.generation.measured import KeptSession, Known
from cosd_core.models.base import OpensSessions, PendingPredictions, Positions, Rows, Session
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.tuning.prediction_log import PredictionLog, Prefix


@dataclass(frozen=True, slots=True)
class RememberedModel(OpensSessions):
    """A model for the rows of one batch.

    Attributes:
        session: Returns the model's session; called only where predictions are missing.
        log: The known predictions.
        slots: The row of the session for every row of the batch.
        keys: The key of every row's predictions in the log.
    """

    session: Callable[[], KeptSession]
    log: PredictionLog
    slots: Sequence[int]
    keys: Sequence[str]

    def open_session(self, **_: Any) -> Session:
        """A session that asks the log first."""
        return _RememberedSession(self)


class _RememberedSession(Session):
    def __init__(self, model: RememberedModel) -> None:
        self._model = model
        self._rows = list(range(len(model.slots)))

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:  # noqa: ARG002
        model = self._model
        wanted = {}
        for row, ids, each in zip(self._rows, rows, positions, strict=True):
            missing = [at for at, position in enumerate(each) if self._known(row, position) is None]
            if missing:
                asked = each[missing[0] : missing[-1] + 1]
                wanted[row] = (ids[: asked[-1].length], asked)
        if wanted:
            found = model.session().predict({model.slots[row]: each for row, each in wanted.items()})
            for row, (_, asked) in wanted.items():
                for position, prediction in zip(asked, found[model.slots[row]], strict=True):
                    model.log.add(model.keys[row], _prefix(position), prediction)
        return Known(
            [
                [known for position in each if (known := self._known(row, position))]
                for row, each in zip(self._rows, positions, strict=True)
            ]
        )

    def select(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def _known(self, row: int, position: SamplingPosition) -> Prediction | None:
        return self._model.log.get(self._model.keys[row], _prefix(position))


def _prefix(position: SamplingPosition) -> Prefix:
    ids = tuple(position.input_ids[position.prompt_length : position.length])
    return (*ids, -1) if position.num_written < position.sampler.options.min_new_tokens else ids

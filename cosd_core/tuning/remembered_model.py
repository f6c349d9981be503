"""Models whose predictions are remembered: they run only where a prediction is not known.

A prompt's texts are written one after another in one row of a session, which keeps what they have in common.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cosd_core.generation.measured import MeasuredModel
from cosd_core.models.base import OpensSessions, PendingPredictions, Positions, Rows, Session
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.tuning.prediction_log import Confidence, PredictionLog, Prefix


class PromptSession:
    """One model's session with a row for every prompt, and ``computed``, how many predictions it has made."""

    def __init__(self, model: OpensSessions, vocabulary: int, temperatures: Sequence[float]) -> None:
        """Open a session; confidences are measured at all temperatures, of which the first is 1."""

        def measure(logits: torch.Tensor, token: int, confidence: float) -> Confidence:
            others = torch.tensor(temperatures[1:], dtype=logits.dtype, device=logits.device)
            shares = torch.softmax(logits / others[:, None], -1)[:, token].tolist() if len(others) else []
            return Confidence(confidence, torch.tensor([confidence, *shares], dtype=torch.float64).numpy())

        self._session = MeasuredModel(model, measure).open_session(vocabulary=vocabulary)
        self._row_of: dict[int, int] = {}
        self._ids: list[list[int]] = []
        self.computed = 0

    def predict(
        self, wanted: dict[int, tuple[list[int], Sequence[SamplingPosition]]]
    ) -> dict[int, list[Prediction]]:
        """Predict at the last positions of some prompts' texts."""
        positions: dict[int, Sequence[SamplingPosition]] = {}
        for prompt, (ids, last) in wanted.items():
            if prompt not in self._row_of:
                self._row_of[prompt] = len(self._ids)
                self._ids.append(ids)
            self._ids[self._row_of[prompt]] = ids
            positions[self._row_of[prompt]] = last
        found = self._session.predict(self._ids, [positions.get(row, []) for row in range(len(self._ids))])
        self.computed += sum(map(len, positions.values()))
        return {prompt: found[self._row_of[prompt]] for prompt in wanted}


@dataclass(frozen=True, slots=True)
class RememberedModel:
    """A model for the rows of one batch.

    Attributes:
        session: Returns the model's session; called only where predictions are missing.
        log: The known predictions.
        prompts: The number of every row's prompt; no two are equal.
        keys: The key of every row's predictions in the log.
    """

    session: Callable[[], PromptSession]
    log: PredictionLog
    prompts: Sequence[int]
    keys: Sequence[str]

    def open_session(self, *, vocabulary: int, role: str = "draft", calibration: float = 1.0) -> Session:  # noqa: ARG002
        """A session that asks the log first."""
        return _RememberedSession(self)


class _RememberedSession(Session):
    def __init__(self, model: RememberedModel) -> None:
        self._model = model
        self._rows = list(range(len(model.prompts)))

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:  # noqa: ARG002
        model = self._model
        wanted = {}
        for row, ids, each in zip(self._rows, rows, positions, strict=True):
            missing = [at for at, position in enumerate(each) if self._known(row, position) is None]
            if missing:
                asked = each[missing[0] : missing[-1] + 1]
                wanted[row] = (ids[: asked[-1].length], asked)
        if wanted:
            found = model.session().predict({model.prompts[row]: each for row, each in wanted.items()})
            for row, (_, asked) in wanted.items():
                for position, prediction in zip(asked, found[model.prompts[row]], strict=True):
                    model.log.add(model.keys[row], _prefix(position), prediction)
        return _Known(
            [
                [known for position in each if (known := self._known(row, position))]
                for row, each in zip(self._rows, positions, strict=True)
            ]
        )

    def select(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def _known(self, row: int, position: SamplingPosition) -> Prediction | None:
        return self._model.log.get(self._model.keys[row], _prefix(position))


@dataclass(frozen=True, slots=True)
class _Known(PendingPredictions):
    predictions: list[list[Prediction]]

    def result(self) -> list[list[Prediction]]:
        return self.predictions


def _prefix(position: SamplingPosition) -> Prefix:
    ids = tuple(position.input_ids[position.prompt_length : position.length])
    return (*ids, -1) if position.num_written < position.sampler.options.min_new_tokens else ids

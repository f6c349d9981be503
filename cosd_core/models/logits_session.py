"""Sessions of models that return logits, of which they make predictions."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from cosd_core.errors import UnsupportedModelError, quoted
from cosd_core.models.base import BaseLanguageModel, PendingPredictions, Positions, Rows, Session
from cosd_core.models.prefix_cache import PrefixCache, States, common_beginnings
from cosd_core.prediction import Prediction
from cosd_core.sampling.predict import predict
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.utils import agreed_prefix

READ_AT_ONCE = 2048
"""About how many ids a pass processes where nothing else waits for it."""


class LogitsSession(Session):
    """A session of a model that returns the logits of its whole vocabulary."""

    def __init__(self, prefixes: PrefixCache | None, *, role: str, calibration: float) -> None:
        """Start without rows.

        Args:
            prefixes: The model's states of earlier texts, or None.
            role: As :meth:`BaseLanguageModel.open_session`.
            calibration: As :meth:`BaseLanguageModel.open_session`.
        """
        self._prefixes = prefixes
        self._role = role
        self._calibration = calibration
        self._may_read_beginnings = prefixes is not None
        self._beginnings: list[list[int]] = []  # what the first rows begin with
        self._reader: LogitsSession | None = None  # processes it, a row for each

    @abstractmethod
    def _another(self) -> "LogitsSession":
        """A session of the same model, without rows."""

    @abstractmethod
    def _held(self, row: int) -> tuple[list[int], Callable[[int], States]]:
        """The processed ids of a row, and what copies their states from an index on."""

    def share(self) -> None:
        """Add all rows to the prefix cache. As :meth:`Session.share`."""
        self._keep(range(self.num_rows))

    def _keep(self, rows: Iterable[int]) -> None:
        if self._prefixes is not None:
            for row in rows:
                self._prefixes.add(*self._held(row))

    def _read_beginnings(self, rows: Rows, most: int) -> bool:
        """Process the common beginnings of rows once, before any row is begun.

        The rows then find them in the prefix cache.

        Args:
            rows: As in :meth:`read`.
            most: As in :meth:`read`.

        Returns:
            Whether there was any left to process.
        """
        if not self._may_read_beginnings or self._prefixes is None:
            return False
        if self._reader is None:
            self._beginnings = [ids for ids in common_beginnings(rows) if self._prefixes.lacks(ids)]
            self._may_read_beginnings = bool(self._beginnings)
            if not self._beginnings:
                return False
            self._reader = self._another()
        if self._reader.read(self._beginnings, most):
            self._reader.logits(self._beginnings, last=1)
            self._reader.share()
            self._may_read_beginnings, self._reader = False, None
        return True

    def _heads(self, rows: Rows, known: Sequence[list[int]], most: int) -> list[list[int]] | None:
        """The beginnings of rows that hold about ``most`` ids more than what is processed, ``known[row]``.

        None if the rows themselves do not hold more.
        """
        lengths = [agreed_prefix(ids, old) for ids, old in zip(rows, known, strict=True)]
        share = max(most // len(rows), 1)
        if all(len(ids) - length <= share for ids, length in zip(rows, lengths, strict=True)):
            return None
        return [ids[: length + share] for ids, length in zip(rows, lengths, strict=True)]

    @abstractmethod
    def logits(self, rows: Rows, *, last: int) -> torch.Tensor:
        """Run one pass, and return the logits behind each of the last ``last`` ids of every row.

        Args:
            rows: As in :meth:`submit`.
            last: How many positions to return. Positions before a row's first id have arbitrary logits.

        Returns:
            ``[rows, last, vocabulary]`` on the model's output device.

        Raises:
            GenerationError: The pass failed.
            ModelOutputError: The logits are of an unexpected shape.
        """

    def read_logits(self, rows: Rows, *, last: int, most: int = READ_AT_ONCE) -> torch.Tensor:
        """The logits of texts that may be long, or begin alike, which is processed once.

        Args:
            rows: As in :meth:`logits`, like the result and the errors.
            last: As in :meth:`logits`.
            most: About how many ids a pass processes.
        """
        while not self.read(rows, most):
            pass
        return self.logits(rows, last=last)

    def position_logits(self, rows: Rows, counts: Sequence[int]) -> list[torch.Tensor]:
        """Run one pass, and return the logits behind each of the last ``counts[row]`` ids of every row.

        A backend that can feed each row only the ids that this row needs overrides it. Errors as in
        :meth:`logits`.

        Returns:
            ``[counts[row], vocabulary]`` per row.
        """
        last = max(counts)
        logits = self.logits(rows, last=last)
        return [row[last - count :] for row, count in zip(logits, counts, strict=True)]

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:
        """Start one pass. As :meth:`Session.submit`."""
        logits = self.position_logits(rows, [len(each) for each in positions])
        predict_positions = partial(
            predict, purpose=self._role, keep_logits=keep_logits, calibration=self._calibration
        )
        return _PendingLogits(logits, positions, predict_positions)


@dataclass(frozen=True, slots=True)
class _PendingLogits(PendingPredictions):
    """Logits that a device may still be computing; reading them waits for the pass."""

    logits: Sequence[torch.Tensor]
    positions: Positions
    predict: Callable[[torch.Tensor, list[SamplingPosition]], list[Prediction]]

    def result(self) -> list[list[Prediction]]:
        flat = [each for row in self.positions for each in row]
        predictions = iter(self.predict(torch.cat(list(self.logits)), flat))
        return [[next(predictions) for _ in each] for each in self.positions]


def open_logits_session(model: BaseLanguageModel, *, vocabulary: int) -> LogitsSession:
    """A session of a model whose logits are needed themselves, for teacher forcing and likelihoods.

    Raises:
        UnsupportedModelError: The model's backend returns no logits.
    """
    session = model.open_session(vocabulary=vocabulary)
    if not isinstance(session, LogitsSession):
        raise UnsupportedModelError(f"model {quoted(model.name)} returns no logits; scoring texts needs them")
    return session

"""Sessions of a model behind a server, which holds their state."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

from cosd_core.errors import GenerationError, ModelOutputError, UnsupportedModelError, quoted
from cosd_core.models.base import PendingPredictions, Positions, Rows, Session
from cosd_core.models.server.client import Client, Completion
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.utils import agreed_prefix


class ServerSession(Session):
    """A session whose passes are requests: one per pass, whatever the number of rows and positions.

    A draft has the server write some tokens ahead. They are used as long as the text goes on as the server
    writes it, so that a block takes one request.
    """

    def __init__(self, client: Client, *, vocabulary: int, ahead: int) -> None:
        """Start without rows; ``vocabulary`` ids take part, and ``ahead`` tokens are written per request."""
        self._client = client
        self._vocabulary = vocabulary
        self._ahead = ahead
        self._rows: list[_Row] = []

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:
        """Send a request for what is not known. As :meth:`Session.submit`.

        Raises:
            UnsupportedModelError: Logits are asked for.
        """
        if keep_logits:
            raise UnsupportedModelError(
                f"model {quoted(self._client.model)} is behind a server, which returns no logits: learning "
                "and scoring need models on this machine"
            )
        self._rows += [_Row() for _ in rows[len(self._rows) :]]
        unknown = [
            at
            for at, (row, ids, wanted) in enumerate(zip(self._rows, rows, positions, strict=True))
            if any(row.known(ids, position.length) is None for position in wanted)
        ]
        if not unknown:
            return _Answer(self._rows, rows, positions, self._vocabulary)
        inside = any(position.length < len(rows[at]) for at in unknown for position in positions[at])
        longest = max(len(rows[at]) for at in unknown)
        room = (self._client.max_length or longest + self._ahead) - longest
        sent = self._client.submit(
            [rows[at] for at in unknown],
            max_tokens=max(min(self._ahead, room), 1),
            prompt_predictions=inside,
        )
        return _Answer(self._rows, rows, positions, self._vocabulary, unknown, sent)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the rows of these indices, in this order."""
        self._rows = [self._rows[row] for row in rows if row < len(self._rows)]

    @property
    def num_rows(self) -> int:
        """The rows of which predictions are kept. As :meth:`Session.num_rows`."""
        return len(self._rows)

    def join(self, other: Self) -> None:
        """Take over the rows. As :meth:`Session.join`."""
        self._rows += other._rows


@dataclass(slots=True)
class _Row:
    """What the server has predicted of one row.

    Attributes:
        ids: The row's ids, and those that the server would write behind them.
        start: The number of ids before the first prediction.
        predictions: One behind each number of ids from there on.
    """

    ids: list[int] = field(default_factory=list)
    start: int = 0
    predictions: list[Prediction] = field(default_factory=list)

    def known(self, ids: list[int], length: int) -> Prediction | None:
        """The prediction behind the first ``length`` ids of a text; None if it is not known."""
        at = length - self.start
        if not 0 <= at < len(self.predictions) or agreed_prefix(ids[:length], self.ids) < length:
            return None
        return self.predictions[at]

    def take(self, ids: list[int], completion: Completion) -> None:
        """Keep what the server says of a text."""
        self.ids = [*ids, *(each.id for each in completion.tokens)]
        self.start = len(ids) - len(completion.prompt)
        self.predictions = [*completion.prompt, *completion.tokens]


@dataclass(frozen=True, slots=True)
class _Answer(PendingPredictions):
    """Predictions that are known, or for which a request was sent."""

    states: list[_Row]
    rows: Rows
    positions: Positions
    vocabulary: int
    unknown: Sequence[int] = ()
    sent: "Future[list[Completion]] | None" = None

    def result(self) -> list[list[Prediction]]:
        """Wait for the answer. As :meth:`PendingPredictions.result`."""
        for at, completion in zip(self.unknown, self.sent.result() if self.sent else (), strict=True):
            self.states[at].take(self.rows[at], completion)
        return [
            [self._found(state, ids, position) for position in wanted]
            for state, ids, wanted in zip(self.states, self.rows, self.positions, strict=True)
        ]

    def _found(self, state: _Row, ids: list[int], position: SamplingPosition) -> Prediction:
        found = state.known(ids, position.length)
        if found is None:
            raise GenerationError("the server returned fewer predictions than were asked for")
        mask = position.mask(self.vocabulary)
        if found.id >= self.vocabulary or (mask is not None and not mask[found.id]):
            raise ModelOutputError(f"the server wrote token {found.id}, which the other models do not have")
        return found

"""Sessions of a GGUF model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from weakref import finalize

import torch
from torch.nn.functional import pad

from cosd_core.errors import GenerationError
from cosd_core.models.base import Rows
from cosd_core.models.gguf.context import MAX_ROWS, Context, Feed
from cosd_core.models.gguf.pool import ContextPool
from cosd_core.models.logits_session import LogitsSession
from cosd_core.models.prefix_cache import Piece, Prefix, PrefixCache, States
from cosd_core.utils import agreed_prefix


class GGUFSession(LogitsSession):
    """A session whose rows are sequences of llama.cpp contexts.

    All rows share one context and its passes, or each has a context of its own, where rows cannot share one.
    A row feeds the ids that it lacks and no others, whatever the other rows feed. Contexts grow with texts.
    """

    def __init__(
        self,
        pool: ContextPool,
        prefixes: PrefixCache | None,
        *,
        vocabulary: int,
        shared: bool,
        role: str,
        calibration: float,
    ) -> None:
        """Start without rows.

        Args:
            pool: Where contexts come from.
            prefixes: As :meth:`LogitsSession.__init__`.
            vocabulary: How many token ids take part.
            shared: Whether all rows share one context.
            role: As :meth:`LogitsSession.__init__`.
            calibration: As :meth:`LogitsSession.__init__`.
        """
        super().__init__(prefixes, role=role, calibration=calibration)
        self._pool = pool
        self._vocabulary = vocabulary
        self._shared = shared
        self._rows: list[_Row] = []
        self._contexts: list[Context] = []  # all that this session uses, to be given back with it
        finalize(self, pool.give_back, self._contexts).atexit = False

    def logits(self, rows: Rows, *, last: int) -> torch.Tensor:
        """Run one pass over all rows. As :meth:`LogitsSession.logits`."""
        found = self.position_logits(rows, [last] * len(rows))
        return torch.stack([pad(each, (0, 0, last - len(each), 0)) for each in found])

    def position_logits(self, rows: Rows, counts: Sequence[int]) -> list[torch.Tensor]:
        """Run one pass over the rows with wanted positions. As :meth:`LogitsSession.position_logits`."""
        with self._forgetting_on_failure():
            self._place(rows)
            return self._run(rows, counts)

    @property
    def num_rows(self) -> int:
        """The rows that have a sequence. As :meth:`Session.num_rows`."""
        return len(self._rows)

    def read(self, rows: Rows, most: int) -> bool:
        """Run a pass over a part of the ids. As :meth:`Session.read`."""
        if self._read_beginnings(rows, most):
            return False
        with self._forgetting_on_failure():
            self._place(rows)
            if heads := self._heads(rows, [row.ids for row in self._rows], most):
                both = zip(self._rows, heads, strict=True)
                self._run(heads, [int(row.ids[: len(head)] != head) for row, head in both])
            return not heads

    def join(self, other: Self) -> None:
        """Take over the rows; what other contexts hold of them is copied. As :meth:`Session.join`."""
        if self._shared:
            for row in other._rows:
                row.leave()
        else:
            self._contexts += other._contexts
            other._contexts.clear()
        self._rows += other._rows
        other._rows = []

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the rows of these indices, in this order; the prefix cache gets what the others hold."""
        kept = [self._rows[row] for row in rows if row < len(self._rows)]
        self._keep(at for at, row in enumerate(self._rows) if row not in kept)
        for row in self._rows:
            if row.context is not None and row not in kept:
                row.context.rewind(row.sequence, 0)
                if not self._shared:
                    self._contexts.remove(row.context)
                    self._pool.give_back([row.context])
        self._rows = kept

    def _held(self, row: int) -> tuple[list[int], Callable[[int], States]]:
        return self._rows[row].ids, self._rows[row].saved

    def _another(self) -> Self:
        return type(self)(
            self._pool,
            self._prefixes,
            vocabulary=self._vocabulary,
            shared=self._shared,
            role=self._role,
            calibration=self._calibration,
        )

    def _known(self, ids: list[int]) -> Piece | None:
        """The states of an earlier text that begins like this one, or None."""
        prefix = Prefix() if self._prefixes is None else self._prefixes.find(ids)
        return next(iter(prefix.pieces), None)

    def _run(self, rows: Rows, counts: Sequence[int]) -> list[torch.Tensor]:
        """One pass per context, over the rows of which logits are wanted."""
        feeds: dict[int, list[Feed]] = {}
        for at, (row, ids, count) in enumerate(zip(self._rows, rows, counts, strict=True)):
            if count:
                start = row.rewind(ids, count)
                feed = Feed(row.sequence, start, ids[start:], min(count, len(ids)))
                feeds.setdefault(0 if self._shared else at, []).append(feed)
                row.ids = list(ids)
        found = {
            at: self._rows[at].placed.run(group, vocabulary=self._vocabulary) for at, group in feeds.items()
        }
        if self._shared:
            outputs = [min(count, len(ids)) for ids, count in zip(rows, counts, strict=True)]
            return list(torch.split(found.get(0, torch.empty(0, self._vocabulary)), outputs))
        return [found.get(at, torch.empty(0, self._vocabulary)) for at in range(len(rows))]

    @contextmanager
    def _forgetting_on_failure(self) -> Iterator[None]:
        """After a failure it is uncertain what the contexts hold."""
        try:
            yield
        except BaseException:
            for context in self._contexts:
                context.clear()
            for row in self._rows:
                row.ids = []
            raise

    def _place(self, rows: Rows) -> None:
        """Give every row a sequence in a context that is large enough, and restore what is known of it."""
        self._rows += [_Row(known=self._known(ids)) for ids in rows[len(self._rows) :]]
        self._give_sequences(rows)
        for row in self._rows:
            row.restore()

    def _give_sequences(self, rows: Rows) -> None:
        # A row that is not fed keeps what it has cached, which may be longer than its text.
        lengths = [max(len(ids), row.length) for row, ids in zip(self._rows, rows, strict=True)]
        if not self._shared:
            for row, length in zip(self._rows, lengths, strict=True):
                row.context = self._fitting(row.context, length, 1)
            return
        if len(rows) > MAX_ROWS:
            raise GenerationError(f"llama.cpp decodes at most {MAX_ROWS} texts at once, not {len(rows)}")
        context = self._fitting(self._contexts[0] if self._contexts else None, sum(lengths), len(rows))
        free = sorted(set(range(context.rows)) - {row.sequence for row in self._rows if row.context})
        for row in self._rows:
            if row.context is None:
                row.sequence = free.pop(0)
            row.context = context

    def _fitting(self, context: Context | None, positions: int, rows: int) -> Context:
        """The context, or a larger one in its place."""
        if context is None:
            context = self._pool.take(positions=positions, rows=rows)
            self._contexts.append(context)
        elif context.positions < positions or context.rows < rows:
            larger = self._pool.enlarge(context, positions=positions, rows=max(rows, context.rows))
            self._contexts[self._contexts.index(context)] = larger
            return larger
        return context


@dataclass(eq=False)
class _Row:
    """One row of a session.

    Attributes:
        context: Where it is cached; None before its first pass.
        sequence: Its number there.
        ids: The cached ids.
        known: The states of an earlier text that begins alike, until they are restored.
    """

    context: Context | None = None
    sequence: int = 0
    ids: list[int] = field(default_factory=list)
    known: Piece | None = None

    @property
    def length(self) -> int:
        """How many ids are cached, or will be when the known ones are restored."""
        return len(self.known.ids if self.known else self.ids)

    @property
    def placed(self) -> Context:
        """The context of a row that has one."""
        assert self.context is not None
        return self.context

    def leave(self) -> None:
        """Give up the sequence; what it holds is known."""
        if self.context is not None:
            self.known = Piece(self.ids, self.saved(0), len(self.ids))
        self.context, self.ids = None, []

    def restore(self) -> None:
        """Cache what is known."""
        if self.known and self.placed.restore(self.sequence, self.known.states):
            self.ids = self.known.ids
        self.known = None

    def saved(self, _: int) -> Any:
        """A copy of what is cached; llama.cpp copies whole rows."""
        return self.placed.saved(self.sequence)

    def rewind(self, ids: list[int], count: int) -> int:
        """Forget the cached positions that a pass processes again, and return the length of those kept."""
        start = min(agreed_prefix(ids, self.ids), max(len(ids) - count, 0))
        if start < len(self.ids) and not self.placed.rewind(self.sequence, start):
            start = 0  # a recurrent state: the whole text is processed again
        if not start:
            self.placed.rewind(self.sequence, 0)
        return start

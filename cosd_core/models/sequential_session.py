"""Sessions of a transformers model whose rows run one after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch.nn.functional import pad

from cosd_core.models.cache import DecodingCache
from cosd_core.models.forward import PassRunner
from cosd_core.models.logits_session import LogitsSession
from cosd_core.models.prefix_cache import Prefix, PrefixCache, States
from cosd_core.utils import agreed_prefix

_MIN_PREFILL = 16
"""Fewer ids than this are fed again with every block; more are worth a pass of their own, once."""

_MIN_WHOLE_TEXT = 64
"""If logits of so many ids are wanted, one pass feeds all, also where ids are otherwise fed one by one."""


class SequentialSession(LogitsSession):
    """A session of a model whose rows cannot share passes: every row has its own passes and cache."""

    def __init__(
        self, runner: PassRunner, prefixes: PrefixCache | None, *, role: str, calibration: float
    ) -> None:
        super().__init__(prefixes, role=role, calibration=calibration)
        self._runner = runner
        self._plan = runner.plan
        self._switch = runner.traits.rope_switch_length
        # A model that computes position ids itself does not count padding tokens, and loses their number
        # between passes: rows that hold one are processed from their start.
        self._uncounted = None if self._plan.position_ids else runner.traits.pad_token_id
        self._rows: list[_CachedRow] = []

    @torch.inference_mode()
    def logits(self, rows: Sequence[list[int]], *, last: int) -> torch.Tensor:
        """Run at least one pass per row. As :meth:`LogitsSession.logits`."""
        self._rows += [self._begun(ids) for ids in rows[len(self._rows) :]]
        return torch.cat([self._row_logits(*each, last) for each in zip(self._rows, rows, strict=True)])

    @property
    def num_rows(self) -> int:
        """The rows that have caches. As :meth:`Session.num_rows`."""
        return len(self._rows)

    def read(self, rows: Sequence[list[int]], most: int) -> bool:
        """Run a pass over a part of the ids, per row. As :meth:`Session.read`."""
        if not all(map(self._has_cached_parts, rows)):
            return True
        if self._read_beginnings(rows, most):
            return False
        self._rows += [self._begun(ids) for ids in rows[len(self._rows) :]]
        if heads := self._heads(rows, [row.ids for row in self._rows], most):
            self.logits(heads, last=1)
        return not heads

    def _has_cached_parts(self, ids: list[int]) -> bool:
        """Whether what is cached of the first part of these ids serves the pass over all of them."""
        is_rotated_alike = self._switch is None or len(ids) <= self._switch
        is_cached = self._plan.strategy != "uncached" and self._uncounted not in ids
        return is_cached and is_rotated_alike and self._plan.blockwise

    def join(self, other: Self) -> None:
        """Take over the rows. As :meth:`Session.join`."""
        self._rows += other._rows

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the rows of these indices, in this order; the prefix cache gets what the others hold."""
        self._keep(set(range(len(self._rows))).difference(rows))
        self._rows = [self._rows[row] for row in rows if row < len(self._rows)]

    def _held(self, row: int) -> tuple[list[int], Callable[[int], States]]:
        return self._rows[row].ids, partial(self._rows[row].cache.saved, 0)

    def _another(self) -> Self:
        return type(self)(self._runner, self._prefixes, role=self._role, calibration=self._calibration)

    def _begun(self, ids: list[int]) -> "_CachedRow":
        """A row whose cache holds what is known of it."""
        prefix = Prefix() if self._prefixes is None else self._prefixes.find(ids)
        if prefix.length:
            cache = self._plan.restored_cache(prefix)
        else:
            cache = self._plan.empty_cache(self._runner.model, self._runner.traits)
        return _CachedRow(cache, ids[: cache.lengths[0]])

    def _row_logits(self, row: "_CachedRow", ids: list[int], last: int) -> torch.Tensor:
        """The logits behind the last ids of one row, ``[1, last, vocabulary]``."""
        cache = row.cache
        done = max(len(ids) - last, 0)  # ids whose logits are not wanted, or are computed
        cache.rewind([min(agreed_prefix(ids, row.ids), done)])
        if self._uncounted in ids:
            cache.rewind([0])
        found = []
        for end in self._pass_ends(cache.lengths[0], len(ids), done + 1):
            beyond_switch = self._switch is not None and end > self._switch
            if beyond_switch != row.beyond_switch:  # the cached ids were rotated with other frequencies
                cache.rewind([0])
            row.beyond_switch = beyond_switch
            fed = end - cache.lengths[0]
            logits = self._runner.logits(cache, [ids[:end]], fed, last=max(end - done, 1))
            if end > done:
                found.append(logits)
                done = end
        row.ids = list(ids)
        logits = torch.cat(found, dim=1)
        return pad(logits, (0, 0, last - logits.shape[1], 0))

    def _pass_ends(self, cached: int, length: int, first: int) -> Iterator[int]:
        """The lengths at which the passes over a row end.

        ``first`` is the first length whose logits are wanted. The ids after it are mostly drafted tokens, so
        a cached state without them is worth a pass.
        """
        if not self._plan.blockwise and (cached or length - first < _MIN_WHOLE_TEXT):
            yield from range(cached + 1 if cached else first, length)
        elif self._plan.strategy == "states" and first - cached >= _MIN_PREFILL and first < length:
            yield first
        elif self._switch is not None and first <= self._switch < length:
            yield self._switch
        yield length


@dataclass
class _CachedRow:
    """One row of a sequential session.

    Attributes:
        cache: The model's state after the first ids.
        ids: The ids of the last call.
        beyond_switch: Whether they were processed as a text that is longer than the model's rope switch.
    """

    cache: DecodingCache
    ids: list[int]
    beyond_switch: bool = False

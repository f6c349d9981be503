"""Sessions of a transformers model: rows that share passes, and rows that run one after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch.nn.functional import pad

from cosd_core.models.cache import DecodingCache, RowCache
from cosd_core.models.forward import PassRunner
from cosd_core.models.logits_session import LogitsSession
from cosd_core.models.prefix_cache import Prefix, PrefixCache, States
from cosd_core.utils import agreed_prefix

_MIN_PREFILL = 16
"""Fewer ids than this are fed again with every block; more are worth a pass of their own, once."""

_MIN_WHOLE_TEXT = 64
"""If logits of so many ids are wanted, one pass feeds all, also where ids are otherwise fed one by one."""


class BatchedSession(LogitsSession):
    """A session whose rows share passes and one cache.

    All rows of a pass feed equally many of their last ids: a row that lacks fewer feeds some of its cached
    ones again. So there is padding on the far left only, never between cached and new positions, which every
    attention mask handles. A new row prefills its extra ids separately; otherwise all rows would have to feed
    as many ids as the longest new prompt.
    """

    def __init__(
        self,
        runner: PassRunner,
        prefixes: PrefixCache | None,
        *,
        role: str,
        calibration: float,
    ) -> None:
        super().__init__(prefixes, role=role, calibration=calibration)
        self._runner = runner
        self._cached: list[list[int]] = []  # the cached ids of every row
        self._cache = self._empty_cache(0)

    @torch.inference_mode()
    def logits(self, rows: Sequence[list[int]], *, last: int) -> torch.Tensor:
        """Run one pass over all rows. As :meth:`LogitsSession.logits`."""
        if not self._cached:
            self._cache, self._cached = self._begun(rows)
        known = len(self._cached)
        missing = [
            len(ids) - agreed_prefix(ids, old) for ids, old in zip(rows[:known], self._cached, strict=True)
        ]
        fed = max(*missing, last)
        lengths = [max(len(ids) - fed, 0) for ids in rows]
        self._cache.rewind(lengths[:known])
        if known < len(rows):
            self._cache.join(self._prefilled(rows[known:], lengths[known:]))
        logits = self._runner.logits(self._cache, rows, fed, last)
        self._cached = [list(ids) for ids in rows]
        return logits

    @property
    def num_rows(self) -> int:
        """The rows that have cached ids. As :meth:`Session.num_rows`."""
        return len(self._cached)

    def read(self, rows: Sequence[list[int]], most: int) -> bool:
        """Run a pass over a part of the ids. As :meth:`Session.read`."""
        if self._read_beginnings(rows, most):
            return False
        cache, cached = (self._cache, self._cached) if self._cached else self._begun(rows)
        heads = self._heads(rows, cached, most)
        if heads or all(cached):  # not every kind of attention accepts a row of nothing but padding
            self._cache, self._cached = cache, cached
        if heads:
            self.logits(heads, last=1)
        return not heads

    def join(self, other: Self) -> None:
        """Join the caches. As :meth:`Session.join`."""
        if not self._cached:
            self._cache = other._cache
        elif other._cached:
            self._cache.join(other._cache)
        self._cached += other._cached

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the rows of these indices, in this order; the prefix cache gets what the others hold."""
        self._keep(set(range(len(self._cached))).difference(rows))
        known = [row for row in rows if row < len(self._cached)]
        self._cached = [self._cached[row] for row in known]
        if known:
            self._cache.select(known)
        else:
            self._cache = self._empty_cache(0)

    def _held(self, row: int) -> tuple[list[int], Callable[[int], States]]:
        return self._cached[row], partial(self._cache.saved, row)

    def _another(self) -> Self:
        return type(self)(self._runner, self._prefixes, role=self._role, calibration=self._calibration)

    def _prefilled(self, rows: Sequence[list[int]], lengths: Sequence[int]) -> RowCache:
        """A cache of the first ``lengths[row]`` ids of every row."""
        # At least one id each: not every kind of attention accepts a row of nothing but padding.
        heads = [ids[: max(length, 1)] for ids, length in zip(rows, lengths, strict=True)]
        cache, cached = self._begun(heads)
        fed = max(len(ids) - len(old) for ids, old in zip(heads, cached, strict=True))
        if fed and any(lengths):
            cache.rewind([max(len(ids) - fed, 0) for ids in heads])
            self._runner.logits(cache, heads, fed=fed, last=1)
        cache.rewind(lengths)
        return cache

    def _begun(self, rows: Sequence[list[int]]) -> tuple[RowCache, list[list[int]]]:
        """A cache of what is known of rows, and these ids of every row."""
        if self._prefixes is None:
            return self._empty_cache(len(rows)), [[] for _ in rows]
        prefixes = [self._prefixes.find(ids) for ids in rows]
        cached = [ids[: prefix.length] for ids, prefix in zip(rows, prefixes, strict=True)]
        return RowCache.restored(prefixes, gaps=self._runner.plan.gaps), cached

    def _empty_cache(self, rows: int) -> RowCache:
        return RowCache(rows, gaps=self._runner.plan.gaps)


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

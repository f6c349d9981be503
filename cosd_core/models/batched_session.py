"""Sessions of a transformers model whose rows share passes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import torch

from cosd_core.models.cache import RowCache
from cosd_core.models.forward import PassRunner
from cosd_core.models.logits_session import LogitsSession
from cosd_core.models.prefix_cache import PrefixCache, States
from cosd_core.utils import agreed_prefix


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

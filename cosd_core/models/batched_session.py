"""A session whose rows share passes."""

from collections.abc import Sequence

import torch

from cosd_core.models.base import LogitsSession
from cosd_core.models.cache import RowCache
from cosd_core.models.forward import PassRunner
from cosd_core.utils import agreed_prefix


class BatchedSession(LogitsSession):
    """A session whose rows share passes and one cache.

    All rows of a pass feed equally many of their last ids: a row that lacks fewer feeds some of its cached
    ones again. So there is padding on the far left only, never between cached and new positions, which every
    attention mask handles. A new row prefills its extra ids separately; otherwise all rows would have to feed
    as many ids as the longest new prompt.
    """

    def __init__(self, runner: PassRunner, *, role: str, calibration: float) -> None:
        """Start without rows."""
        super().__init__(role=role, calibration=calibration)
        self._runner = runner
        self._cached: list[list[int]] = []  # the cached ids of every row
        self._cache = self._empty_cache(0)

    @torch.inference_mode()
    def logits(self, rows: Sequence[list[int]], *, last: int) -> torch.Tensor:
        """Run one pass over all rows. As :meth:`LogitsSession.logits`."""
        if not self._cached:
            self._cache, self._cached = self._empty_cache(len(rows)), [[] for _ in rows]
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

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the rows of these indices, in this order."""
        known = [row for row in rows if row < len(self._cached)]
        self._cached = [self._cached[row] for row in known]
        if known:
            self._cache.select(known)
        else:
            self._cache = self._empty_cache(0)

    def _prefilled(self, rows: Sequence[list[int]], lengths: Sequence[int]) -> RowCache:
        """A cache of the first ``lengths[row]`` ids of every row."""
        cache = self._empty_cache(len(rows))
        if any(lengths):
            # At least one id each: not every kind of attention accepts a row of nothing but padding.
            heads = [ids[: max(length, 1)] for ids, length in zip(rows, lengths, strict=True)]
            self._runner.logits(cache, heads, fed=max(lengths), last=1)
            cache.rewind(lengths)
        return cache

    def _empty_cache(self, rows: int) -> RowCache:
        return RowCache(rows, gaps=self._runner.plan.gaps)

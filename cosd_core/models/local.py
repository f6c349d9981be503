"""One transformers model over a batch of rows: it is given ids, feeds what is missing, returns logits."""

from collections.abc import Sequence
from typing import Any

import torch

from cosd_core.errors import GenerationError, ModelOutputError, quoted
from cosd_core.models.cache import RowCache
from cosd_core.models.language_model import LanguageModel
from cosd_core.prefix import agreed_prefix


class Session:
    """A model at work on some rows.

    Nobody tells it to commit or to roll back. It is given the ids that every row has now, keeps its cache
    up to the longest prefix that agrees with them, and feeds the rest. Rows beyond those it has seen are new.

    All rows of a pass feed equally many of their last ids: a row that misses fewer feeds some of its
    cached ones again. So there is padding only on the far left, never between cached and new positions,
    which every attention mask gets right. What a new row has more than the others feed, it feeds before
    them, or all would have to feed the whole of its prompt.
    """

    def __init__(self, model: LanguageModel, *, vocabulary: int) -> None:
        self.model = model
        self._vocabulary = vocabulary
        self._cache = RowCache(0, gaps=self.model.bears_gaps)
        self._cached: list[list[int]] = []

    def logits(self, rows: Sequence[list[int]], *, last: int) -> torch.Tensor:
        """The logits that follow each of the last ``last`` ids of every row.

        Args:
            rows: All ids of every row, prompt included; none is empty. New rows come after the others.
            last: How many positions to return. Positions before a row's first id hold garbage.

        Returns:
            ``[rows, last, vocabulary]`` on the model's output device.

        Raises:
            GenerationError: The forward pass failed.
            ModelOutputError: The logits are of an unexpected shape.
        """
        if not self._cached:
            self._cache, self._cached = RowCache(len(rows), gaps=self.model.bears_gaps), [[] for _ in rows]
        known = len(self._cached)
        missing = [
            len(ids) - agreed_prefix(ids, old) for ids, old in zip(rows[:known], self._cached, strict=True)
        ]
        fed = max(*missing, last)
        lengths = [max(len(ids) - fed, 0) for ids in rows]
        self._cache.rewind(lengths[:known])
        if known < len(rows):
            self._cache.join(self._read(rows[known:], lengths[known:]))
        logits = self._feed(self._cache, rows, fed, last)
        self._cached = [list(ids) for ids in rows]
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, given in their order."""
        known = [row for row in rows if row < len(self._cached)]
        self._cached = [self._cached[row] for row in known]
        if known:
            self._cache.select(known)
        else:
            self._cache = RowCache(0, gaps=self.model.bears_gaps)

    def _read(self, rows: Sequence[list[int]], lengths: Sequence[int]) -> RowCache:
        """A cache of the first ``lengths[row]`` ids of every row."""
        cache = RowCache(len(rows), gaps=self.model.bears_gaps)
        if any(lengths):
            # One id at least: not every kind of attention takes a row that is nothing but padding.
            heads = [ids[: max(length, 1)] for ids, length in zip(rows, lengths, strict=True)]
            self._feed(cache, heads, fed=max(lengths), last=1)
            cache.rewind(lengths)
        return cache

    def _feed(self, cache: RowCache, rows: Sequence[list[int]], fed: int, last: int) -> torch.Tensor:
        """One pass over the last ``fed`` ids of every row, after those that are cached."""
        arguments = self._arguments(cache, rows, fed)
        if "logits_to_keep" in self.model.forward_arguments:
            arguments["logits_to_keep"] = last
        try:
            with self.model.lock:
                logits: torch.Tensor = self.model.model(**arguments, **cache.arguments()).logits
        except Exception as error:
            raise GenerationError(
                f"the forward pass of model {self.model.name!r} over {len(rows)} x {fed} tokens failed: "
                f"{type(error).__name__}: {quoted(error)}"
            ) from error
        if not isinstance(logits, torch.Tensor) or logits.ndim != 3:
            what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelOutputError(
                f"model {self.model.name!r} returned {what} for logits; three dimensions were expected"
            )
        logits = logits[:, -last:, : self._vocabulary]
        if logits.shape != (len(rows), last, self._vocabulary):
            raise ModelOutputError(
                f"model {self.model.name!r} returned logits of shape {tuple(logits.shape)} where "
                f"{(len(rows), last, self._vocabulary)} was expected"
            )
        return logits

    def _arguments(self, cache: RowCache, rows: Sequence[list[int]], fed: int) -> dict[str, Any]:
        device = self.model.device
        missing = [ids[kept:] for ids, kept in zip(rows, cache.lengths, strict=True)]
        padded = [[0] * (fed - len(ids)) + ids for ids in missing]
        arguments: dict[str, Any] = {"input_ids": torch.tensor(padded, device=device)}
        if "position_ids" in self.model.forward_arguments:
            positions = [[max(at, 0) for at in range(len(ids) - fed, len(ids))] for ids in rows]
            arguments["position_ids"] = torch.tensor(positions, device=device)
        taken = cache.extend([len(ids) for ids in rows], fed)
        if not taken.all():
            arguments["attention_mask"] = taken.long().to(device)
        return arguments

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
    up to the longest prefix that agrees with them, and feeds the rest.

    All rows of a pass feed equally many of their last ids: a row that misses fewer feeds some of its
    cached ones again. So there is padding only on the far left, never between cached and new positions,
    which every attention mask gets right.
    """

    def __init__(self, model: LanguageModel, *, rows: int, vocabulary: int) -> None:
        self.model = model
        self._vocabulary = vocabulary
        self._cache = RowCache(rows)
        self._cached: list[list[int]] = [[] for _ in range(rows)]

    def logits(self, rows: Sequence[list[int]], *, last: int) -> torch.Tensor:
        """The logits that follow each of the last ``last`` ids of every row.

        Args:
            rows: All ids of every row, prompt included; none is empty.
            last: How many positions to return. Positions before a row's first id hold garbage.

        Returns:
            ``[rows, last, vocabulary]`` on the model's output device.

        Raises:
            GenerationError: The forward pass failed.
            ModelOutputError: The logits are of an unexpected shape.
        """
        agreed = [agreed_prefix(ids, cached) for ids, cached in zip(rows, self._cached, strict=True)]
        fed = max(max(len(ids) - kept for ids, kept in zip(rows, agreed, strict=True)), last)
        lengths = [max(len(ids) - fed, 0) for ids in rows]
        self._cache.rewind(lengths)
        logits = self._forward(rows, lengths, fed, last)
        self._cache.extend([len(ids) for ids in rows], fed)
        self._cached = [list(ids) for ids in rows]
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._cache.select(rows)
        self._cached = [self._cached[row] for row in rows]

    def _forward(self, rows: Sequence[list[int]], cached: Sequence[int], fed: int, last: int) -> torch.Tensor:
        arguments = self._arguments(rows, cached, fed)
        if "logits_to_keep" in self.model.forward_arguments:
            arguments["logits_to_keep"] = last
        try:
            with self.model.lock:
                logits: torch.Tensor = self.model.model(**arguments, **self._cache.arguments()).logits
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

    def _arguments(self, rows: Sequence[list[int]], cached: Sequence[int], fed: int) -> dict[str, Any]:
        device, width = self.model.device, self._cache.width + fed
        missing = [ids[kept:] for ids, kept in zip(rows, cached, strict=True)]
        padded = [[0] * (fed - len(ids)) + ids for ids in missing]
        arguments: dict[str, Any] = {"input_ids": torch.tensor(padded, device=device)}
        if "position_ids" in self.model.forward_arguments:
            positions = [[max(at, 0) for at in range(len(ids) - fed, len(ids))] for ids in rows]
            arguments["position_ids"] = torch.tensor(positions, device=device)
        if any(len(ids) < width for ids in rows):
            padding = torch.tensor([[width - len(ids)] for ids in rows])
            arguments["attention_mask"] = (torch.arange(width) >= padding).long().to(device)
        return arguments

"""Keys and values of a batch that can be rolled back. The only file that knows transformers' caches."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig, cache_utils

_DROPPABLE = tuple(
    getattr(cache_utils, name)
    for name in ("DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer")
    if hasattr(cache_utils, name)  # the last came late in 5.x
)
"""What a config may ask for if a plain list of keys and values is to serve instead."""


def can_roll_back(config: PreTrainedConfig) -> bool:
    """Whether every layer of such a model keeps keys and values per position, and nothing else."""
    return all(type(layer) in _DROPPABLE for layer in DynamicCache(config=config).layers)


class RowCache:
    """The keys and values of several rows, every row right-aligned with padding on its left.

    A ``DynamicCache`` made without a config keeps every position, also of sliding-window layers (their
    mask still applies the window), so any suffix can be dropped. Rows that drop different numbers of
    positions are moved to the right edge again by one copy per layer: positions stay dense, which is
    right for rotary, ALiBi and sliding-window attention alike.

    Attributes:
        lengths: Cached positions per row.
        width: Slots per row; the first ``width - length`` of a row are padding.
    """

    def __init__(self, rows: int) -> None:
        self.lengths = [0] * rows
        self.width = 0
        self._cache = DynamicCache()

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that make a forward pass read and extend this cache."""
        return {"past_key_values": self._cache, "use_cache": True}

    def extend(self, lengths: Sequence[int], fed: int) -> None:
        """Take note of a forward pass over ``fed`` slots that left the rows with these lengths."""
        self.lengths = list(lengths)
        self.width += fed

    def rewind(self, lengths: Sequence[int]) -> None:
        """Keep the first ``lengths[row]`` positions of every row."""
        dropped = [old - new for old, new in zip(self.lengths, lengths, strict=True)]
        if any(count != dropped[0] for count in dropped):
            self._realign(lengths)
        elif dropped[0]:
            self._cache.crop(-dropped[0])
            self.width -= dropped[0]
        self.lengths = list(lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        if self.width:
            self._cache.batch_select_indices(torch.tensor(rows))
        self.lengths = [self.lengths[row] for row in rows]

    def _layers(self) -> list[Any]:
        return [layer for layer in self._cache.layers if getattr(layer, "keys", None) is not None]

    def _realign(self, lengths: Sequence[int]) -> None:
        width = max(lengths)
        first_kept = torch.tensor([self.width - old for old in self.lengths])
        padding = torch.tensor([width - new for new in lengths])
        slots = (torch.arange(width) + (first_kept - padding)[:, None]).clamp_(min=0)
        for layer in self._layers():
            layer.keys = _take(layer.keys, slots)
            layer.values = _take(layer.values, slots)
        self.width = width


def _take(states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Pick slots per row: ``[rows, heads, old slots, size]`` becomes ``[rows, heads, slots, size]``.

    One ``index_select`` over flattened rows copies whole vectors, ten times faster than a gather.
    """
    rows, heads, old, size = states.shape
    starts = torch.arange(rows * heads, device=states.device).view(rows, heads, 1) * old
    index = (starts + slots.to(states.device)[:, None]).flatten()
    return states.reshape(-1, size).index_select(0, index).view(rows, heads, slots.shape[1], size)

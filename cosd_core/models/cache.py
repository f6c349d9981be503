"""Caches that can be rolled back. The only file that creates transformers' caches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedConfig, cache_utils

from cosd_core.models.growing_layer import GrowingLayer, spare_slots
from cosd_core.models.prefix_cache import Prefix, States

_ATTENTION_LAYERS = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
_EMPTY_LAYER = getattr(cache_utils, "DummyLayer", None)  # added late in 5.x


class DecodingCache:
    """The state of a model after the ids that it has processed, so that a pass need not process them again.

    This class is the cache of a model without one: every pass processes the whole row, and there is one row.

    Attributes:
        lengths: The number of cached ids per row.
    """

    def __init__(self, rows: int = 1, **arguments: Any) -> None:
        self.lengths = [0] * rows
        self._arguments = arguments

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that make a forward pass read and extend this cache, or create none."""
        return self._arguments

    def begin_pass(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Prepare for a pass over ``fed`` slots after which the rows have these lengths.

        Returns:
            Which slots hold a position after the pass, ``[rows, slots]``, booleans on the CPU.
        """
        assert lengths == [fed], "nothing is cached"
        return torch.ones(1, fed, dtype=torch.bool)

    def finish_pass(self, output: Any) -> None:
        """Take the new state from the model's output, where the pass did not update the cache in place."""

    def rewind(self, lengths: Sequence[int]) -> None:
        """Keep at most the first ``lengths[row]`` ids of every row, and as many of them as possible."""

    def saved(self, row: int, start: int) -> States:
        """Return a copy of a row's states from this position on, for :class:`PrefixCache`."""
        raise NotImplementedError  # this cache holds nothing


def attention_only(config: PreTrainedConfig) -> bool:
    """Whether, by its configuration, every layer caches keys and values per position and nothing else.

    A configuration without kinds of layers counts as such.
    """
    return all(type(layer) in (GrowingLayer, _EMPTY_LAYER) for layer in layered_cache(config).layers)


def layered_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for one row, with the kinds of layers that a configuration names.

    Attention layers keep every position, so that any suffix can be removed.
    """
    try:
        cache = DynamicCache(config=config)
    except Exception:  # the configuration has no kinds of layers
        return _growing_cache()
    cache.layers = [GrowingLayer() if type(layer) in _ATTENTION_LAYERS else layer for layer in cache.layers]
    return cache


def _growing_cache() -> DynamicCache:
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


@dataclass(frozen=True, slots=True)
class KeysAndValues:
    """Keys and values of some positions of one row.

    Attributes:
        layers: Per layer keys and values, ``[heads, positions, size]``; None for a layer that has none.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor] | None, ...]

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return sum(each.nbytes for layer in self.layers if layer for each in layer)


class RowCache(DecodingCache):
    """The keys and values of several rows, padded on the left.

    One kind of layer serves all models: it keeps every position, also where attention slides over a window
    (the mask still applies the window), so any suffix can be removed.

    Rows from which different numbers of positions are removed end in different slots. The removed slots stay
    as masked gaps if the model allows that. Otherwise, and when there are too many gaps, one copy per layer
    moves the rows to the right edge. Positions are contiguous then, which is right for rotary, ALiBi and
    sliding-window attention alike.
    """

    def __init__(self, rows: int, *, gaps: bool) -> None:
        """Create an empty cache of a model that allows masked gaps between positions, or does not."""
        self._cache = _growing_cache()
        super().__init__(rows, past_key_values=self._cache, use_cache=True)
        self._gaps = gaps
        self._used = torch.ones(rows, 0, dtype=torch.bool)  # [rows, slots]: which hold a position

    @classmethod
    def restored(cls, prefixes: Sequence[Prefix], *, gaps: bool) -> Self:
        """A cache whose rows hold these prefixes."""
        cache = cls(len(prefixes), gaps=gaps)
        cache.lengths = [prefix.length for prefix in prefixes]
        width = max(cache.lengths)
        cache._used = torch.arange(width) >= width - torch.tensor(cache.lengths)[:, None]
        known = next((piece.states for prefix in prefixes for piece in prefix.pieces), KeysAndValues(()))
        for at, like in enumerate(known.layers):
            layer = GrowingLayer()
            if like is not None:
                rows = [[(part.states.layers[at], part.used) for part in each.pieces] for each in prefixes]
                layer.fill(rows, like=like, width=width)
            cache._cache.layers.append(layer)
        return cache

    def saved(self, row: int, start: int) -> KeysAndValues:
        """A copy of what the cache holds of a row from this position on."""
        slots = self._used[row].nonzero().flatten()[start:]
        layers = [
            layer.copied(row, slots) if isinstance(layer, GrowingLayer) and layer.is_initialized else None
            for layer in self._cache.layers
        ]
        return KeysAndValues(tuple(layers))

    @property
    def width(self) -> int:
        """Slots per row."""
        return self._used.shape[1]

    def begin_pass(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Reserve slots for the new positions. As :meth:`DecodingCache.begin_pass`."""
        new = torch.tensor([length - old for length, old in zip(lengths, self.lengths, strict=True)])
        self._used = torch.cat([self._used, torch.arange(fed) >= fed - new[:, None]], dim=1)
        self.lengths = list(lengths)
        return self._used

    def rewind(self, lengths: Sequence[int]) -> None:
        """Keep the first ``lengths[row]`` positions of every row."""
        if list(lengths) == self.lengths:
            return
        removed = torch.tensor([old - new for old, new in zip(self.lengths, lengths, strict=True)])
        self.lengths = list(lengths)
        used_from_here = self._used.flip(1).cumsum(1).flip(1)
        self._used &= used_from_here > removed[:, None]
        gaps = self._trim() - max(lengths)
        if gaps > (spare_slots(self.width) if self._gaps else 0) or not (self._gaps or self._is_contiguous()):
            self._close_gaps()

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, at least one, in this order."""
        for layer in self._layers():
            layer.batch_select_indices(torch.tensor(rows))
        self._used = self._used[list(rows)]
        self.lengths = [self.lengths[row] for row in rows]
        self._trim()
        # Remove the padding that all rows have: it would grow without limit where rows come and go.
        first = int(self._used.any(0).int().argmax()) if self.width else 0
        self._resize(self.width - first)

    def join(self, other: "RowCache") -> None:
        """Add the rows of another cache of the same model after the present ones."""
        width = max(self.width, other.width)
        self._resize(width)
        other._resize(width)
        others = other._layers()
        for at, layer in enumerate(self._layers()):
            layer.concatenate(others[at] if others else None, len(other.lengths))
        self._used = torch.cat([self._used, other._used])
        self.lengths += other.lengths

    def _layers(self) -> list[GrowingLayer]:
        """The layers that hold states; a model that shares them between layers leaves some empty."""
        return [
            layer for layer in self._cache.layers if isinstance(layer, GrowingLayer) and layer.is_initialized
        ]

    def _trim(self) -> int:
        """Remove the last slots that no row uses, and return how many slots are left."""
        used = self._used.any(0)
        width = self.width - int(used.flip(0).int().argmax()) if used.any() else 0
        for layer in self._layers():
            layer.crop(width - self.width)
        self._used = self._used[:, :width]
        return width

    def _is_contiguous(self) -> bool:
        """Whether every row ends in the last slot and has no gap."""
        return bool((self._used[:, 1:] >= self._used[:, :-1]).all() and self._used[:, -1:].all())

    def _resize(self, width: int) -> None:
        """Add padding on the left, or remove padding that all rows have."""
        if padding := width - self.width:
            for layer in self._layers():
                layer.pad(padding)
            self._used = pad(self._used, (padding, 0), value=False)

    def _close_gaps(self) -> None:
        """Move every row's positions to the right edge."""
        width = max(self.lengths)
        slots = torch.zeros(len(self.lengths), width, dtype=torch.long)
        for row, (used, length) in enumerate(zip(self._used, self.lengths, strict=True)):
            slots[row, width - length :] = used.nonzero().flatten()
        for layer in self._layers():
            layer.gather(slots)
        self._used = torch.arange(width) >= width - torch.tensor(self.lengths)[:, None]

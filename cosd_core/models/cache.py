"""Keys and values of a batch that can be rolled back. The only file that makes transformers' caches."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedConfig, cache_utils

_ATTENDING = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
_IDLE = getattr(cache_utils, "DummyLayer", None)  # came late in 5.x


class DecodingCache(Protocol):
    """What a model has of the ids that it read, so that a pass need not read them again.

    Attributes:
        lengths: How many ids are remembered, per row.
    """

    lengths: list[int]

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that make a forward pass read and extend this memory."""

    def extend(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Expect a pass over ``fed`` slots that leaves the rows with these lengths.

        Returns:
            Which slots hold a position then, ``[rows, slots]``, booleans on the CPU.
        """

    def rewind(self, lengths: Sequence[int]) -> None:
        """Keep at most the first ``lengths[row]`` ids of every row: as many as can be."""

    def passed(self, output: Any) -> None:
        """Hear that the pass is over, and what the model returned."""


def attends_only(config: PreTrainedConfig) -> bool:
    """Whether, by its config, every layer of a model keeps keys and values per position, and nothing else.

    A config that says nothing of its layers means such layers.
    """
    return all(type(layer) in (GrowingLayer, _IDLE) for layer in mixed_cache(config).layers)


def mixed_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache of whatever kinds of layers a config names, for one row.

    Layers of attention keep every position, so that any suffix can be dropped.
    """
    try:
        cache = DynamicCache(config=config)
    except Exception:  # a config that knows nothing of kinds of layers
        cache = DynamicCache()
        cache.layer_class_to_replicate = GrowingLayer
    cache.layers = [GrowingLayer() if type(layer) in _ATTENDING else layer for layer in cache.layers]
    return cache


class RowCache:
    """The keys and values of several rows; padding is on the left.

    One kind of layer serves all models: it keeps every position, also where attention slides (the mask still
    applies the window), so any suffix can be dropped.

    Rows that drop different numbers of positions end in different slots. What they dropped stays as gaps,
    which are masked, if the model bears that: if its attention goes by positions alone. Else, and when there
    are too many gaps, the rows are moved to the right edge by one copy per layer: positions are dense then,
    which is right for rotary, ALiBi and sliding-window attention alike.

    Attributes:
        lengths: Cached positions per row.
    """

    def __init__(self, rows: int, *, gaps: bool) -> None:
        """Begin with nothing cached.

        Args:
            rows: How many rows there are.
            gaps: Whether the model bears gaps.
        """
        self.lengths = [0] * rows
        self._gaps = gaps
        self._taken = torch.ones(rows, 0, dtype=torch.bool)  # [rows, slots]: which hold a position
        self._cache = DynamicCache()
        self._cache.layer_class_to_replicate = GrowingLayer

    @property
    def width(self) -> int:
        """Slots per row."""
        return self._taken.shape[1]

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that make a forward pass read and extend this cache."""
        return {"past_key_values": self._cache, "use_cache": True}

    def extend(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Expect a pass over ``fed`` slots that leaves the rows with these lengths.

        Returns:
            Which slots hold a position then, ``[rows, width]``, booleans on the CPU.
        """
        new = torch.tensor([length - old for length, old in zip(lengths, self.lengths, strict=True)])
        self._taken = torch.cat([self._taken, torch.arange(fed) >= fed - new[:, None]], dim=1)
        self.lengths = list(lengths)
        return self._taken

    def passed(self, output: Any) -> None:
        """Hear that the pass is over, which is nothing to this cache."""

    def rewind(self, lengths: Sequence[int]) -> None:
        """Keep the first ``lengths[row]`` positions of every row."""
        dropped = torch.tensor([old - new for old, new in zip(self.lengths, lengths, strict=True)])
        self.lengths = list(lengths)
        if not dropped.any():
            return
        counted_from_the_end = self._taken.flip(1).cumsum(1).flip(1)
        self._taken &= counted_from_the_end > dropped[:, None]
        gaps = self._trim() - max(lengths)
        if gaps > (_room(self.width) if self._gaps else 0) or not (self._gaps or self._is_dense()):
            self._close_gaps()

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, at least one, in this order."""
        if self.width:
            self._cache.batch_select_indices(torch.tensor(rows))
            self._drop_rooms()
        self._taken = self._taken[list(rows)]
        self.lengths = [self.lengths[row] for row in rows]
        self._trim()
        # Padding that all rows have goes, or it would grow for ever where rows come and go.
        first = int(self._taken.any(0).int().argmax()) if self.width else 0
        self._widen(self.width - first)

    def join(self, other: "RowCache") -> None:
        """Take over the rows of another cache of the same model, after those that are here."""
        width = max(self.width, other.width)
        self._widen(width)
        other._widen(width)
        rows = len(other.lengths)
        theirs = [(layer.keys, layer.values) for layer in other._layers()] or [
            (_padding(layer.keys, rows), _padding(layer.values, rows)) for layer in self._layers()
        ]
        for layer, (keys, values) in zip(self._layers(), theirs, strict=True):
            layer.keys = torch.cat([layer.keys, keys])
            layer.values = torch.cat([layer.values, values])
        self._drop_rooms()
        self._taken = torch.cat([self._taken, other._taken])
        self.lengths += other.lengths

    def _layers(self) -> list[Any]:
        return [layer for layer in self._cache.layers if getattr(layer, "keys", None) is not None]

    def _drop_rooms(self) -> None:
        """Let go of what the layers' states stood in: they were copied, and memory should not hold both."""
        for layer in self._layers():
            layer.drop_rooms()

    def _trim(self) -> int:
        """Drop the last slots that no row uses, and return how many are left."""
        used = self._taken.any(0)
        width = self.width - int(used.flip(0).int().argmax()) if used.any() else 0
        if width < self.width:
            self._cache.crop(width - self.width)
            self._taken = self._taken[:, :width]
        return width

    def _is_dense(self) -> bool:
        """Whether every row ends in the last slot, without gaps."""
        return bool((self._taken[:, 1:] >= self._taken[:, :-1]).all() and self._taken[:, -1:].all())

    def _widen(self, width: int) -> None:
        """Add padding on the left, or take away what all rows have."""
        if width != self.width:
            more = width - self.width
            for layer in self._layers():
                layer.keys = pad(layer.keys, (0, 0, more, 0))
                layer.values = pad(layer.values, (0, 0, more, 0))
            self._drop_rooms()
            self._taken = pad(self._taken, (more, 0), value=False)

    def _close_gaps(self) -> None:
        """Move every row's positions to the right edge."""
        width = max(self.lengths)
        slots = torch.zeros(len(self.lengths), width, dtype=torch.long)
        for row, (taken, length) in enumerate(zip(self._taken, self.lengths, strict=True)):
            slots[row, width - length :] = taken.nonzero().flatten()
        for layer in self._layers():
            layer.rearrange(slots)
        self._taken = torch.arange(width) >= width - torch.tensor(self.lengths)[:, None]


class GrowingLayer(cache_utils.DynamicLayer):
    """Keys and values with room behind them: a pass appends, where transformers' own layer copies all."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rooms: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of new positions and return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append("keys", self.keys, key_states)
        self.values = self._append("values", self.values, value_states)
        return self.keys, self.values

    def drop_rooms(self) -> None:
        """Let go of rooms that the states have left."""
        for name in ("keys", "values"):
            if not self._fills(name, getattr(self, name)):
                self._rooms.pop(name, None)

    def rearrange(self, slots: torch.Tensor) -> None:
        """Go on with these slots of every row, ``[rows, slots]``."""
        width = slots.shape[1]
        with_room = pad(slots, (0, _room(width)))  # whatever is picked there is written over
        for name in ("keys", "values"):
            states = getattr(self, name)
            self._rooms[name] = _take(self._rooms[name] if self._fills(name, states) else states, with_room)
            setattr(self, name, self._rooms[name][..., :width, :])

    def _append(self, name: str, old: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        assert old is not None, "an initialised layer has states"
        known = old.shape[-2] if old.numel() else 0
        length = known + new.shape[-2]
        if not self._fills(name, old) or length > self._rooms[name].shape[-2]:
            rows, heads, _, size = new.shape
            room = new.new_empty(rows, heads, length + _room(length), size)
            if known:
                room[..., :known, :] = old
            self._rooms[name] = room
        room = self._rooms[name]
        room[..., known:length, :] = new
        return room[..., :length, :]

    def _fills(self, name: str, states: torch.Tensor) -> bool:
        """Whether these are the first states of the room, and not others that were put in their place."""
        room = self._rooms.get(name)
        return room is not None and room.data_ptr() == states.data_ptr() and room.stride() == states.stride()


def _room(length: int) -> int:
    """Slots to spare: copying everything when they are used up then costs little per pass."""
    return max(32, length // 8)


def _padding(states: torch.Tensor, rows: int) -> torch.Tensor:
    """So many rows that hold nothing, as wide as these."""
    return states.new_zeros(rows, *states.shape[1:])


def _take(states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Pick slots per row: ``[rows, heads, old slots, size]`` becomes ``[rows, heads, slots, size]``.

    One ``index_select`` over flattened rows copies whole vectors, ten times faster than a gather.
    """
    rows, heads, old, size = states.shape
    starts = torch.arange(rows * heads, device=states.device).view(rows, heads, 1) * old
    index = (starts + slots.to(states.device)[:, None]).flatten()
    return states.reshape(-1, size).index_select(0, index).view(rows, heads, slots.shape[1], size)

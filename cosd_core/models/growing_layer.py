"""A cache layer with spare slots: a pass appends keys and values, and copies no old ones."""

from typing import Any

import torch
from torch.nn.functional import pad
from transformers import cache_utils


class StateBuffer:
    """Keys or values of one layer: a tensor with spare slots behind the used ones.

    Attributes:
        length: The number of used slots.
    """

    def __init__(self, states: torch.Tensor) -> None:
        """Start with these states, ``[rows, heads, slots, size]``, and no spare slot."""
        self._storage = states
        self.length = states.shape[-2]

    @property
    def capacity(self) -> int:
        """The number of slots, used and spare."""
        return self._storage.shape[-2]

    @property
    def states(self) -> torch.Tensor:
        """The used slots, ``[rows, heads, length, size]``, as a view."""
        return self._storage[..., : self.length, :]

    def append(self, states: torch.Tensor) -> torch.Tensor:
        """Add slots at the end and return all used ones."""
        length = self.length + states.shape[-2]
        if length > self.capacity:
            rows, heads, _, size = states.shape
            larger = states.new_empty(rows, heads, length + spare_slots(length), size)
            larger[..., : self.length, :] = self.states
            self._storage = larger
        self._storage[..., self.length : length, :] = states
        self.length = length
        return self.states

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows, in this order."""
        self._storage = self._storage.index_select(0, rows.to(self._storage.device))

    def pad(self, slots: int) -> None:
        """Insert so many zero slots before the first one, or remove them if the number is negative."""
        self._storage = pad(self._storage, (0, 0, slots, 0))
        self.length += slots

    def concatenate(self, states: torch.Tensor) -> None:
        """Add rows of the same length after the present ones."""
        self._storage = torch.cat([self.states, states])

    def gather(self, slots: torch.Tensor) -> None:
        """Replace the used slots of every row by these of its slots, ``[rows, new length]``."""
        self.length = slots.shape[1]
        # The spare slots are filled with copies of slot 0, which later states overwrite.
        self._storage = _gather_slots(self._storage, pad(slots, (0, spare_slots(self.length))))


class GrowingLayer(cache_utils.DynamicLayer):
    """Keys and values of every position of one layer, also where attention slides over a window.

    transformers reads and replaces ``keys`` and ``values``; both are properties over a :class:`StateBuffer`.
    """

    def __init__(self) -> None:
        self._keys: StateBuffer | None = None
        self._values: StateBuffer | None = None
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def keys(self) -> torch.Tensor | None:
        """The keys, ``[rows, heads, slots, size]``; None before the first pass."""
        return None if self._keys is None else self._keys.states

    @keys.setter
    def keys(self, states: torch.Tensor | None) -> None:
        self._keys = None if states is None else StateBuffer(states)

    @property
    def values(self) -> torch.Tensor | None:
        """The values, ``[rows, heads, slots, size]``; None before the first pass."""
        return None if self._values is None else self._values.states

    @values.setter
    def values(self, states: torch.Tensor | None) -> None:
        self._values = None if states is None else StateBuffer(states)

    @property
    def _buffers(self) -> list[StateBuffer]:
        return [buffer for buffer in (self._keys, self._values) if buffer is not None]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Create empty buffers for states of this shape and type."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of new positions and return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self._buffers
        return keys.append(key_states), values.append(value_states)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove slots from the end, given as a negative number; their memory becomes spare."""
        for buffer in self._buffers:
            buffer.length += tokens_to_remove

    def select(self, rows: torch.Tensor) -> None:
        """Keep only these rows, in this order."""
        for buffer in self._buffers:
            buffer.select(rows)

    def pad(self, slots: int) -> None:
        """Insert so many slots on the left of every row, or remove them if the number is negative."""
        for buffer in self._buffers:
            buffer.pad(slots)

    def concatenate(self, other: "GrowingLayer | None", rows: int) -> None:
        """Add the rows of another layer of the same length, or so many empty rows if there is none."""
        others = other._buffers if other else []
        for at, buffer in enumerate(self._buffers):
            states = buffer.states
            buffer.concatenate(others[at].states if others else states.new_zeros(rows, *states.shape[1:]))

    def gather(self, slots: torch.Tensor) -> None:
        """Replace the slots of every row by these of its slots, ``[rows, new length]``."""
        for buffer in self._buffers:
            buffer.gather(slots)


def spare_slots(length: int) -> int:
    """How many slots to reserve behind so many: copying a full buffer then costs little per pass."""
    return max(32, length // 8)


def _gather_slots(states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Pick slots per row: ``[rows, heads, old slots, size]`` becomes ``[rows, heads, slots, size]``.

    One ``index_select`` over flattened rows copies whole vectors, ten times faster than ``torch.gather``.
    """
    rows, heads, old, size = states.shape
    starts = torch.arange(rows * heads, device=states.device).view(rows, heads, 1) * old
    index = (starts + slots.to(states.device)[:, None]).flatten()
    return states.reshape(-1, size).index_select(0, index).view(rows, heads, slots.shape[1], size)

"""A cache layer with spare slots: a pass appends keys and values, and copies no old ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import cache_utils


class GrowingLayer(cache_utils.DynamicLayer):
    """Keys and values of every position of one layer, also where attention slides over a window.

    transformers reads ``keys`` and ``values``, which are views of the used slots. The methods of
    ``DynamicLayer`` that decoding calls are overridden to replace buffers, length and views together.

    Attributes:
        length: The number of used slots.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated
        self.length = 0
        self._buffers: list[torch.Tensor] = []  # keys and values, [rows, heads, capacity, size]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Create empty buffers for states of this shape and type."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._replace([key_states[..., :0, :], value_states[..., :0, :]], 0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of new positions and return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, length = self.length, self.length + key_states.shape[-2]
        capacity = self._buffers[0].shape[-2]
        if length > capacity:
            more = length + spare_slots(length) - capacity
            self._buffers = [pad(each, (0, 0, 0, more)) for each in self._buffers]
        keys, values = self._buffers
        keys[..., start:length, :] = key_states
        values[..., start:length, :] = value_states
        return self._replace(self._buffers, length)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove slots from the end, given as a negative number; they become spare."""
        if self.is_initialized:
            self._replace(self._buffers, self.length + tokens_to_remove)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows, in this order."""
        self._replace([each.index_select(0, indices.to(each.device)) for each in self._buffers], self.length)

    def pad(self, slots: int) -> None:
        """Insert so many slots on the left of every row, or remove them if the number is negative."""
        self._replace([pad(each, (0, 0, slots, 0)) for each in self._buffers], self.length + slots)

    def concatenate(self, other: "GrowingLayer | None", rows: int) -> None:
        """Add the rows of another layer of the same length, or so many empty rows if there is none."""
        states = [each[..., : self.length, :] for each in self._buffers]
        new = [each.new_zeros(rows, *each.shape[1:]) for each in states]
        if other is not None:
            new = [each[..., : self.length, :] for each in other._buffers]
        self._replace([torch.cat(both) for both in zip(states, new, strict=True)], self.length)

    def fill(
        self,
        rows: Sequence[Sequence[tuple[tuple[torch.Tensor, torch.Tensor] | None, int]]],
        *,
        like: tuple[torch.Tensor, torch.Tensor],
        width: int,
    ) -> None:
        """Hold the first positions of these states behind each other, as the last of ``width`` slots.

        Args:
            rows: Per row keys and values, ``[heads, positions, size]``, and how many positions to take.
            like: States of the same heads, size, type and device.
            width: The number of slots.
        """
        buffers = []
        for at, each in enumerate(like):
            heads, _, size = each.shape
            buffer = each.new_zeros(len(rows), heads, width + spare_slots(width), size)
            for row, pieces in enumerate(rows):
                end = width
                for states, used in reversed(pieces):
                    assert states is not None, "a layer has keys and values for every position or for none"
                    buffer[row, :, end - used : end] = states[at][:, :used]
                    end -= used
            buffers.append(buffer)
        self.dtype, self.device = like[0].dtype, like[0].device
        self._replace(buffers, width)
        self.is_initialized = True

    def copied(self, row: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of keys and values in these slots of a row, ``[heads, slots, size]``."""
        keys, values = (each[row].index_select(1, slots.to(each.device)) for each in self._buffers)
        return keys, values

    def gather(self, slots: torch.Tensor) -> None:
        """Replace the slots of every row by these of its slots, ``[rows, new length]``."""
        length = slots.shape[1]
        with_spare = pad(slots, (0, spare_slots(length)))  # copies of slot 0, which later states overwrite
        self._replace([_gather_slots(each, with_spare) for each in self._buffers], length)

    def _replace(self, buffers: list[torch.Tensor], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Replace buffers and length, and return the used slots of keys and values."""
        self._buffers, self.length = buffers, length
        keys, values = buffers
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]
        return self.keys, self.values


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

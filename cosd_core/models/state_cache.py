"""The cache of a recurrent model: its states change with every token, so rolling back needs snapshots."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, cache_utils

from cosd_core.models.cache import DecodingCache, layered_cache
from cosd_core.models.growing_layer import GrowingLayer

_MAX_SNAPSHOTS = 8
"""They are the closer together the nearer they are to the end."""

_HYBRID = getattr(cache_utils, "LinearAttentionAndFullAttentionLayer", None)
"""Holds keys and values per position, and a recurrent state."""

_INDEXED = getattr(cache_utils, "DynamicIndexedLayer", GrowingLayer)
"""Holds keys and values per position, and others that select among them."""


class StateCache(DecodingCache):
    """The states of one row, with snapshots of earlier ones.

    Where a layer holds keys and values per position, a snapshot is a length to which they are cropped. Other
    states are copied. A rollback restores the latest snapshot that is not longer than requested, so that up
    to a few ids must be processed again.
    """

    def __init__(self, argument: str, config: PreTrainedConfig | None) -> None:
        """Create an empty cache, which ``forward`` takes under the name ``argument``.

        The configuration names the kinds of layers. None: the model creates a cache of its own class.
        """
        super().__init__(use_cache=True)
        self._argument = argument
        self._config = config
        self._cache = self._empty()
        self._snapshots: list[_Snapshot] = []

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that make a forward pass read and extend this cache, or create one."""
        return self._arguments if self._cache is None else {self._argument: self._cache, **self._arguments}

    def begin_pass(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Prepare for a pass over ``fed`` ids after which the row has this length; there is no padding."""
        assert lengths[0] == self.lengths[0] + fed, "a state processes every id once"
        self.lengths = list(lengths)
        return torch.ones(1, lengths[0], dtype=torch.bool)

    def finish_pass(self, output: Any) -> None:
        """Take a snapshot, and drop one if there are too many."""
        if self._config is None:
            self._cache = output[self._argument]
            state = copy.deepcopy(self._cache)
        else:
            state = [_copied(layer) for layer in self._cache.layers]
        length = self.lengths[0]
        self._snapshots.append(_Snapshot(length, state))
        if len(self._snapshots) > _MAX_SNAPSHOTS:
            # The first is the end of the prompt, the last is the present. Of the others, drop the one with
            # the smallest distance between its neighbours, relative to its distance from the end.
            ends = [each.length for each in self._snapshots]
            gaps = [
                (after - before) / (1 + length - end)
                for before, end, after in zip(ends, ends[1:], ends[2:], strict=False)
            ]
            del self._snapshots[1 + gaps.index(min(gaps))]

    def rewind(self, lengths: Sequence[int]) -> None:
        """Restore the latest snapshot of at most this length."""
        length = lengths[0]
        if length >= self.lengths[0]:
            return
        self._snapshots = [each for each in self._snapshots if each.length <= length]
        if not self._snapshots:
            self.lengths, self._cache = [0], self._empty()
            return
        latest = self._snapshots[-1]
        self.lengths = [latest.length]
        if self._config is None:
            self._cache = copy.deepcopy(latest.state)
        else:
            layers = zip(self._cache.layers, latest.state, strict=True)
            self._cache.layers = [_restored(live, saved, latest.length) for live, saved in layers]

    def saved(self, row: int, start: int) -> "StateCache":  # noqa: ARG002
        """A copy of the cache. As :meth:`DecodingCache.saved`."""
        return copy.deepcopy(self)

    def restored(self, length: int) -> "StateCache":
        """A copy, as it was at this length or before."""
        copied = copy.deepcopy(self)
        copied.rewind([length])
        return copied

    @property
    def nbytes(self) -> int:
        """The memory of all states."""
        return sum(each.nbytes() for each in _storages((self._cache, self._snapshots), {}).values())

    def _empty(self) -> Any:
        return None if self._config is None else layered_cache(self._config)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The state after so many ids: a cache, or its layers, with None for a layer that only needs a crop."""

    length: int
    state: Any


def _storages(value: Any, found: dict[int, torch.UntypedStorage]) -> dict[int, torch.UntypedStorage]:
    """The memory of all tensors in an object, by address."""
    if torch.is_tensor(value):
        storage = value.untyped_storage()
        found[storage.data_ptr()] = storage
    elif isinstance(value, (list, tuple)):
        for each in value:
            _storages(each, found)
    elif isinstance(value, dict):
        _storages(list(value.values()), found)
    elif hasattr(value, "__dict__") or hasattr(value, "__slots__"):
        names = [*getattr(value, "__dict__", ()), *getattr(value, "__slots__", ())]
        _storages([getattr(value, name, None) for name in names], found)
    return found


def _restored(live: Any, saved: Any, length: int) -> Any:
    """A layer as it was at this length."""
    if saved is None:
        live.crop(min(length - live.get_seq_length(), 0))  # a layer that no pass writes to stays empty
        return live
    restored = _copied(saved)
    if type(live) is _HYBRID and live.keys is not None:
        restored.keys, restored.values = live.keys[..., :length, :], live.values[..., :length, :]
    return restored


def _copied(layer: Any) -> Any:
    """A copy that passes with the original do not change; None if a crop restores the layer.

    Of transformers' own layers, those of linear attention write into the tensors of their dictionaries, the
    others replace their tensors. Layers of other origin may do either.
    """
    if type(layer) in (GrowingLayer, _INDEXED):
        return None
    if not type(layer).__module__.startswith("transformers.cache_utils"):
        return copy.deepcopy(layer)
    copied = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            cloned = {at: each.clone() if torch.is_tensor(each) else each for at, each in value.items()}
            setattr(copied, name, cloned)
    if type(layer) is _HYBRID:
        copied.keys = copied.values = None  # restored from the live layer
    return copied

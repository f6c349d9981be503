"""What a model remembers whose state moves on with every token, so that it goes back by snapshots only."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, cache_utils

from cosd_core.models.cache import GrowingLayer, mixed_cache

_KEPT = 8
"""Snapshots at most. They lie the denser the nearer they are to the end."""

_HYBRID = getattr(cache_utils, "LinearAttentionAndFullAttentionLayer", None)
"""Keeps keys and values per position, and a state."""

_INDEXED = getattr(cache_utils, "DynamicIndexedLayer", GrowingLayer)
"""Keeps keys and values per position, and others by which they are found."""


class StateCache:
    """The states of one row, with snapshots of earlier ones.

    Where a layer keeps keys and values per position, a snapshot is a length: what follows is cut off. Other
    states are copied. Going back restores the latest snapshot that is not longer than asked, so that up to
    a few ids must be read again.

    Attributes:
        lengths: How many ids the state has read; one number.
    """

    def __init__(self, argument: str, config: PreTrainedConfig | None) -> None:
        """Begin with nothing read.

        Args:
            argument: What the model's forward calls its cache.
            config: Names the kinds of layers. None: the first pass makes a cache of the model's own kind.
        """
        self.lengths = [0]
        self._argument = argument
        self._config = config
        self._cache = self._empty()
        self._snapshots: list[_Snapshot] = []

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that make a forward pass read and move on this state."""
        known = {} if self._cache is None else {self._argument: self._cache}
        return {**known, "use_cache": True}

    def extend(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Expect a pass over ``fed`` ids that leaves the row with this length; there is no padding."""
        assert lengths[0] == self.lengths[0] + fed, "a state reads every id once"
        self.lengths = list(lengths)
        return torch.ones(1, lengths[0], dtype=torch.bool)

    def rewind(self, lengths: Sequence[int]) -> None:
        """Go back to the latest snapshot of at most this length."""
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

    def passed(self, output: Any) -> None:
        """The pass is over: take a snapshot, and let go of one if there are too many."""
        if self._config is None:
            self._cache = output[self._argument]
            state = copy.deepcopy(self._cache)
        else:
            state = [_copied(layer) for layer in self._cache.layers]
        now = self.lengths[0]
        self._snapshots.append(_Snapshot(now, state))
        if len(self._snapshots) > _KEPT:
            # The first is the prompt's end, the last is now. Of the others the one that is missed least goes.
            at = [each.length for each in self._snapshots]
            gaps = [(after - before) / (1 + now - own) for before, own, after in zip(at, at[1:], at[2:])]  # noqa: B905
            del self._snapshots[1 + gaps.index(min(gaps))]

    def _empty(self) -> Any:
        return None if self._config is None else mixed_cache(self._config)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The state after so many ids: a cache, or layers, where None stands for one that need only be cut."""

    length: int
    state: Any


def _restored(live: Any, saved: Any, length: int) -> Any:
    """A layer as it was at this length."""
    if saved is None:
        live.crop(min(length - live.get_seq_length(), 0))  # a layer that nothing writes to stays empty
        return live
    restored = _copied(saved)
    if type(live) is _HYBRID and live.keys is not None:
        restored.keys, restored.values = live.keys[..., :length, :], live.values[..., :length, :]
    return restored


def _copied(layer: Any) -> Any:
    """What a pass that goes on with the original does not touch; None if it need only be cut to go back.

    Of transformers' own layers those of linear attention write into the tensors of their dictionaries, others
    put new tensors in the place of old ones. What layers of other origin do is not known.
    """
    if type(layer) in (GrowingLayer, _INDEXED):
        return None
    if not type(layer).__module__.startswith("transformers.cache_utils"):
        return copy.deepcopy(layer)
    copied = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(copied, name, {at: _cloned(each) for at, each in value.items()})
    if type(layer) is _HYBRID:
        copied.keys = copied.values = None  # are cut from those that are live then
    return copied


def _cloned(state: Any) -> Any:
    return state.clone() if isinstance(state, torch.Tensor) else state

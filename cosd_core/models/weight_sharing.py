"""Models over one copy of the weights: loaded once by name, and copies that share them."""

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.base import HfQuantizer

from cosd_core.errors import UnsupportedModelError, quoted
from cosd_core.utils import Lock

_Model = TypeVar("_Model")


class ModelRegistry:
    """Models that were loaded by name; a model that nothing else refers to is freed.

    Attributes:
        models: The models that are in use.
        lock: Held while a key is looked up for the first time.
    """

    def __init__(self) -> None:
        self.models: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.lock = Lock()
        self._loading: dict[str, Lock] = defaultdict(Lock)

    def get_or_load(self, key: str, load: Callable[[], _Model]) -> _Model:
        """The model of a key. Calls with one key at the same time load it once; other keys do not wait."""
        with self.lock:
            loading = self._loading[key]
        with loading:
            model: _Model | None = self.models.get(key)
            if model is None:
                model = self.models[key] = load()
            return model

    def forget(self, model: object) -> None:
        """Return this model for no key any more."""
        for reference in self.models.valuerefs():
            if reference() is model:
                self.models.pop(reference.key, None)


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model that shares its weights.

    Settings of one, such as the active adapter, do not affect the other, so no pass has to switch anything.
    Both must hold the same lock during a pass: quantised layers use what they share as scratch space.

    Raises:
        UnsupportedModelError: Some weights are offloaded, or an attribute cannot be copied.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UnsupportedModelError(
            f"model {quoted(model.name_or_path)} has weights that device_map offloads, which adapters cannot "
            "share: choose a device_map that keeps all of it in memory"
        )
    shared: list[object] = [getattr(model, "hf_quantizer", None)]
    for module in model.modules():
        own = module._non_persistent_buffers_set  # rotary frequencies and the like: some models change them
        shared += module._parameters.values()
        shared += [buffer for name, buffer in module._buffers.items() if name not in own]
        shared += [value for value in vars(module).values() if _holds_weights(value)]
    lock = lock_of(model)
    try:
        with lock:  # deepcopy keeps whatever its memo names as the copy
            other = copy.deepcopy(model, {id(each): each for each in shared if each is not None})
    except Exception as error:  # a model's own code may hold anything
        raise UnsupportedModelError(
            f"model {quoted(model.name_or_path)} cannot share its weights: {quoted(error)}"
        ) from error
    _locks[other] = lock
    return other


def lock_of(model: PreTrainedModel) -> Lock:
    """The lock that is held during a forward pass of a model, or of any other over the same weights."""
    return _locks.setdefault(model, Lock())


_locks: WeakKeyDictionary[PreTrainedModel, Lock] = WeakKeyDictionary()


def _holds_weights(value: object) -> bool:
    """Whether copies share an attribute: bitsandbytes keeps weights in a dataclass."""
    is_weight = isinstance(value, torch.Tensor | PreTrainedConfig | HfQuantizer)
    return is_weight or (is_dataclass(value) and not isinstance(value, type))

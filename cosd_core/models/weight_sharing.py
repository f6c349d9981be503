"""One model twice over the same weights."""

import copy
from dataclasses import is_dataclass
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.base import HfQuantizer

from cosd_core.errors import UnsupportedModelError, quoted
from cosd_core.utils import Lock


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """The same model once more, over the same weights.

    What one is told, to use an adapter say, the other does not notice, so nothing is switched between passes.
    Both must hold the same lock during a pass: quantised layers use what they share as scratch space.

    Raises:
        UnsupportedModelError: Some weights lie elsewhere until they are needed, or an attribute has no copy.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UnsupportedModelError(
            f"model {quoted(model.name_or_path)} has weights that device_map offloads, which adapters cannot "
            "share: choose a device_map that keeps all of it in memory"
        )
    shared: list[object] = [getattr(model, "hf_quantizer", None)]
    for module in model.modules():
        passing = module._non_persistent_buffers_set  # rotary frequencies and such: some models change them
        shared += module._parameters.values()
        shared += [buffer for name, buffer in module._buffers.items() if name not in passing]
        shared += [value for value in vars(module).values() if _holds_weights(value)]
    lock = lock_of(model)
    try:
        with lock:  # deepcopy takes what its memo holds for the copy
            other = copy.deepcopy(model, {id(each): each for each in shared if each is not None})
    except Exception as error:  # a model's own code may hold anything
        raise UnsupportedModelError(
            f"model {quoted(model.name_or_path)} cannot share its weights: {quoted(error)}"
        ) from error
    _locks[other] = lock
    return other


def lock_of(model: PreTrainedModel) -> Lock:
    """What is held during a forward pass of a model, and of every other over the same weights."""
    return _locks.setdefault(model, Lock())


_locks: WeakKeyDictionary[PreTrainedModel, Lock] = WeakKeyDictionary()


def _holds_weights(value: object) -> bool:
    """Whether an attribute is shared by twins: bitsandbytes keeps weights in a dataclass."""
    of_kind = isinstance(value, torch.Tensor | PreTrainedConfig | HfQuantizer)
    return of_kind or (is_dataclass(value) and not isinstance(value, type))

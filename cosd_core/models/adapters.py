"""PEFT adapters (LoRA and similar) over models that share their weights."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from cosd_core.errors import (
    InvalidOptionError,
    ModelLoadError,
    UnsupportedModelError,
    quoted,
)
from cosd_core.models.loading import find_file, hub_access
from cosd_core.models.weight_sharing import share_weights
from cosd_core.options import LoadingOptions
from cosd_core.utils import Lock, require_version

BASE = "__base__"
"""PEFT's name of the model without any of its adapters."""

_NAME = "cosd_adapter"
"""The name of a loaded adapter inside its model; no layer name contains it."""

_KINDS = ("LORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "LN_TUNING", "FOURIERFT")
"""The PEFT types that change layers only, so that a model works without the wrapper around it."""

_MIN_PEFT = "0.20"
"""The oldest supported release of PEFT, as in the package's extra."""

_peft_lock = Lock()
"""Held during calls of PEFT: warning filters are shared by all threads."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter on this machine that is not applied to a model yet.

    Attributes:
        source: Its hub id or path in messages.
        folder: The folder of its files.
        config: Its ``PeftConfig``.
    """

    source: str
    folder: str
    config: Any

    @classmethod
    def find(cls, source: str, options: LoadingOptions) -> Self:
        """Read the configuration of an adapter from the hub or a local folder.

        Raises:
            MissingExtraError: PEFT is not installed.
            ModelLoadError: It cannot be found or read.
            UnsupportedModelError: It is of a type that cannot be used.
        """
        _check_peft()
        from peft import PeftConfig, PeftType

        try:
            folder = _folder(source, options)
            config = PeftConfig.from_pretrained(folder)
            PeftType(config.peft_type)
        except Exception as error:  # the file may hold anything
            raise ModelLoadError(f"cannot load adapter {quoted(source)}: {quoted(error, 240)}") from error
        _check_kind(config, source)
        return cls(source, folder, config)

    @torch.inference_mode(False)  # not every quantised weight can be wrapped inside
    def over(self, model: PreTrainedModel) -> PreTrainedModel:
        """A copy of a model with this adapter, over the same weights.

        The adapter's weights get the dtype of the layers they belong to.

        Raises:
            ModelLoadError: It does not fit the model.
            UnsupportedModelError: The model takes no adapters, or not of this type.
        """
        from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

        if getattr(self.config, "use_dora", False):
            kinds = {type(module).__name__ for module in model.modules()}
            if "Linear8bitLt" in kinds:  # PEFT removes their scales, which the base model needs
                raise UnsupportedModelError(
                    f"adapter {quoted(self.source)} is a DoRA, which bitsandbytes' 8-bit layers do not take"
                )
        self._warn_of_another_base(model)
        other = share_weights(model)
        if getattr(self.config, "bias", "none") != "none":
            _copy_biases(other)
        try:
            with _peft_lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about training and merging; what matters is checked below
                wrapper = PeftModel(other, self.config, adapter_name=_NAME, autocast_adapter_dtype=False)
                weights = load_peft_weights(self.folder, device="cpu")
                result: Any = set_peft_model_state_dict(wrapper, weights, adapter_name=_NAME)
        except Exception as error:  # PEFT raises errors of nearly every type
            raise ModelLoadError(f"{self._misfit(model, error)}: {quoted(error, 240)}") from error
        if missing := [key for key in result.missing_keys if _NAME in key]:
            raise ModelLoadError(f"{self._misfit(model)}: it lacks weights for {quoted(missing[0])}")
        if unknown := result.unexpected_keys:
            raise ModelLoadError(f"{self._misfit(model)}: the model has no {quoted(unknown[0])}")
        return cast(PreTrainedModel, other.eval())

    def _misfit(self, model: PreTrainedModel, error: object = "") -> str:
        made_for = quoted(self.config.base_model_name_or_path)
        message = str(error)
        resized = "size mismatch" in message and any(name in message for name in ("embed", "wte", "lm_head"))
        advice = " (has it another vocabulary? then merge it into its base and name the result)"
        return (
            f"adapter {quoted(self.source)}, made for {made_for}, does not fit model "
            f"{quoted(model.name_or_path)}{advice if resized else ''}"
        )

    def _warn_of_another_base(self, model: PreTrainedModel) -> None:
        """Warn if the adapter names another base: its weights may differ although all shapes match."""
        made_for = self.config.base_model_name_or_path
        name, expected = (Path(str(each or "")).name.lower() for each in (model.name_or_path, made_for))
        if name and expected and name != expected:
            warnings.warn(
                f"adapter {quoted(self.source)} was made for {quoted(made_for)}, not for "
                f"{quoted(model.name_or_path)}; it works as trained only over the same weights",
                stacklevel=2,
            )


def with_active(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """A copy of a model, over the same weights, with one of its adapters active, or none for :data:`BASE`.

    Raises:
        InvalidOptionError: The model has no adapter of that name.
        UnsupportedModelError: The adapter is of a type that cannot be used, or merged into the weights.
    """
    known = getattr(model, "peft_config", {})
    if name != BASE and name not in known:
        has = f"it has {', '.join(map(repr, known))}" if known else "it has none: name it to from_pretrained"
        raise InvalidOptionError(f"adapter={quoted(name)} is no adapter loaded into the model; {has}")
    _check_peft()
    from peft.functional import set_adapter
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if name != BASE:
        _check_kind(known[name], name)
    layers = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
    if any(layer.merged for layer in layers):
        raise UnsupportedModelError(
            f"adapter={quoted(name)}: adapters are merged into the weights of the model; unmerge them first"
        )
    other = share_weights(model)
    trained = [(parameter, parameter.requires_grad) for parameter in other.parameters()]
    if name != BASE:
        set_adapter(other, name, inference_mode=True)
    for module in other.modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            module.enable_adapters(name != BASE)
    for parameter, flag in trained:  # the caller's model shares them
        parameter.requires_grad_(flag)
    return other


def unwrapped(model: object) -> object:
    """The transformers model in a ``PeftModel``; anything else unchanged.

    Raises:
        UnsupportedModelError: Its adapter is of a type that needs the wrapper.
    """
    peft = sys.modules.get("peft")  # a PeftModel exists only if it is imported
    if peft is None or not isinstance(model, peft.PeftModel):
        return model
    for name in model.active_adapters:
        _check_kind(model.peft_config[name], name)
    return model.get_base_model()


def _copy_biases(model: PreTrainedModel) -> None:
    """Give a model biases of its own, which the adapter replaces."""
    for module in model.modules():
        if (bias := module._parameters.get("bias")) is not None:
            module._parameters["bias"] = torch.nn.Parameter(bias.detach().clone(), requires_grad=False)


def _check_peft() -> None:
    require_version("peft", _MIN_PEFT, extra="adapters", user="adapters")


def _check_kind(config: Any, name: str) -> None:
    what = f"adapter {quoted(name)}"
    kind = getattr(config.peft_type, "value", config.peft_type)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UnsupportedModelError(
            f"{what} is of kind {kind}, which learns a prompt and changes no layers; it cannot be used here"
        )
    if kind not in _KINDS:
        raise UnsupportedModelError(f"{what} is of kind {kind}; there can be {', '.join(_KINDS)}")
    if getattr(config, "alora_invocation_tokens", None):
        raise UnsupportedModelError(
            f"{what} is an activated LoRA, which acts from certain tokens on; it must act on all of them"
        )


def _folder(source: str, options: LoadingOptions) -> str:
    """The local folder of an adapter, downloaded from the hub if necessary."""
    access = hub_access(options)
    names = ["adapter_model.safetensors", *([] if options.use_safetensors else ["adapter_model.bin"])]
    config = cached_file(source, "adapter_config.json", **access)
    if not any(find_file(source, name, access) for name in names):
        cached_file(source, names[0], **access)  # raises the error of the preferred file
    return str(Path(cast(str, config)).parent)

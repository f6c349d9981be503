"""Loads transformers objects by name. The only file that uses ``Auto*``."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from cosd_core.errors import InvalidOptionError, MissingExtraError, ModelLoadError, quoted
from cosd_core.options import LoadingOptions


def load(name: str, options: LoadingOptions) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer from the hub or a local folder.

    Raises:
        MissingExtraError: A package that quantises is not installed.
        ModelLoadError: Either cannot be found or read.
    """
    check_path(name)
    source = hub_access(options) | {
        "revision": options.revision,
        "subfolder": options.subfolder,
        "trust_remote_code": options.trust_remote_code,
    }
    tokenizer_source = dict(source, subfolder="", revision=None) if options.tokenizer else source
    try:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or name, **_given(tokenizer_source))
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            name, **_given(source), **_placement(options, quantised=_is_quantised(name, source))
        )
    except ImportError as error:  # a package for quantisation, or one that the model's own code needs
        raise MissingExtraError(
            f"cannot load model {quoted(name)}, for which something is missing here: {quoted(error, 240)}"
        ) from error
    except Exception as error:  # transformers raises errors of nearly every type
        place = f", subfolder {quoted(options.subfolder)}" if options.subfolder else ""
        raise ModelLoadError(f"cannot load model {quoted(name)}{place}: {quoted(error, 240)}") from error
    placed = options.device_map is not None or getattr(model, "hf_quantizer", None) is not None
    return (model if placed else _move(model, best_device(options.device))), tokenizer


def adapter_tokenizer(adapter: str, options: LoadingOptions) -> PreTrainedTokenizerBase | None:
    """The tokenizer that comes with an adapter; None if there is none, or if the options name another.

    Raises:
        ModelLoadError: It cannot be read.
    """
    source = hub_access(options)
    if options.tokenizer:
        return None
    try:
        cached_file(adapter, "tokenizer_config.json", **_given(source))
    except OSError:
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            adapter, trust_remote_code=options.trust_remote_code, **_given(source)
        )
    except Exception as error:  # transformers raises errors of nearly every type
        raise ModelLoadError(
            f"cannot load the tokenizer of adapter {quoted(adapter)}: {quoted(error, 240)}"
        ) from error
    return tokenizer


def known_config(name: str, options: LoadingOptions) -> PreTrainedConfig | None:
    """The configuration of a model, if it is on this machine and needs no code of its own."""
    source = {"revision": options.revision, "subfolder": options.subfolder, "cache_dir": options.cache_dir}
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, local_files_only=True, **_given(source))
    except Exception:  # not here, or not readable: loading will raise
        return None
    return config


def has_chat_template(name: str, options: LoadingOptions) -> bool | None:
    """Whether a model's tokenizer has a chat template; None if its files are not on this machine."""
    where = {"cache_dir": options.cache_dir, "local_files_only": True}
    if not options.tokenizer:
        where |= {"revision": options.revision, "subfolder": options.subfolder}

    def file(named: str) -> str | None:
        try:
            return cached_file(options.tokenizer or name, named, **_given(where))
        except OSError:
            return None

    if file("chat_template.jinja"):
        return True
    if (found := file("tokenizer_config.json")) is None:
        return None
    try:
        return bool(json.loads(Path(found).read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError):  # loading will raise
        return None


def _move(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    return torch.nn.Module.to(model, device)  # transformers annotates its own method wrongly


def best_device(device: str | torch.device) -> torch.device:
    """Resolve ``"auto"`` to the best available device.

    Raises:
        ModelLoadError: The device does not exist.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=torch.device(device))
        probe.item()  # "meta" holds no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelLoadError(f"device {quoted(str(device))} cannot be used: {quoted(error, 300)}") from error
    return probe.device  # with its index, so that "cuda" and "cuda:0" are equal


def hub_access(options: LoadingOptions) -> dict[str, Any]:
    """The options of every request to the hub."""
    return {
        "token": options.token,
        "cache_dir": options.cache_dir,
        "local_files_only": options.local_files_only,
    }


def check_path(name: str) -> None:
    """Refuse a mistyped folder before the hub is queried for it.

    Raises:
        ModelLoadError: The name can only be a path, and there is no such folder.
    """
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path and not Path(name).expanduser().is_dir():
        raise ModelLoadError(f"cannot load model {quoted(name)}: there is no such folder")


def resolve_source(option: str, name: str | PathLike[str]) -> str:
    """A hub id unchanged, or the absolute path of a folder.

    Args:
        option: The name of the option in error messages.
        name: Hub id or path.

    Raises:
        InvalidOptionError: It is neither.
    """
    if not isinstance(name, str | PathLike) or not str(name):
        raise InvalidOptionError(f"{option}={quoted(name)} should be a hub id or the path of a folder")
    try:
        folder = Path(name).expanduser()
        return str(folder.resolve()) if folder.is_dir() else str(name)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, "~nobody"
        raise InvalidOptionError(
            f"{option}={quoted(str(name))} cannot be looked up: {quoted(error)}"
        ) from error


def _is_quantised(name: str, source: dict[str, Any]) -> bool:
    """Whether a model was saved in quantised form."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(name, **_given(source))
    return getattr(config, "quantization_config", None) is not None


def _placement(options: LoadingOptions, *, quantised: bool) -> dict[str, Any]:
    # False would accept pickled weights only.
    placement: dict[str, Any] = {"dtype": options.dtype, "use_safetensors": options.use_safetensors or None}
    if options.attn_implementation is not None:
        placement["attn_implementation"] = options.attn_implementation
    if options.quantization_config is not None:
        given = options.quantization_config
        # transformers removes entries from a dictionary, which belongs to the caller.
        placement["quantization_config"] = dict(given) if isinstance(given, dict) else given
        quantised = True
    if options.device_map is not None:
        placement["device_map"] = options.device_map
    elif quantised:  # quantised weights cannot be moved later
        placement["device_map"] = {"": best_device(options.device)}
    return placement


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}

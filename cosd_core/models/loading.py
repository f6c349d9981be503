"""Loads transformers objects by name, or looks into their files. The only file that uses ``Auto*``."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import SecretStr
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
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.gguf.files import find_gguf, gguf_name, gguf_source, is_gguf
from cosd_core.models.gguf.header import read_header
from cosd_core.models.traits import context_length
from cosd_core.options import LoadingOptions

_FILES = ("revision", "subfolder")
"""The options that select files of a repository; they apply to the model alone."""


def load(name: str, options: LoadingOptions) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer from the hub or a local folder.

    Raises:
        MissingExtraError: A package that quantises is not installed.
        ModelLoadError: Either cannot be found or read, or the weights are not those of the model.
    """
    check_path(name)
    access = hub_access(options, "trust_remote_code")
    source = hub_access(options, "trust_remote_code", *_FILES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            options.tokenizer or name, **access if options.tokenizer else source
        )
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, **source)
        quantised = getattr(config, "quantization_config", None) is not None
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, **source, **_placement(options, quantised=quantised), output_loading_info=True
        )
    except ImportError as error:  # a package for quantisation, or one that the model's own code needs
        raise MissingExtraError(
            f"cannot load model {quoted(name)}, for which something is missing here: {quoted(error, 240)}"
        ) from error
    except Exception as error:  # transformers raises errors of nearly every type
        place = f", subfolder {quoted(options.subfolder)}" if options.subfolder else ""
        raise ModelLoadError(f"cannot load model {quoted(name)}{place}: {quoted(error, 240)}") from error
    model, report = loaded
    _check_weights(name, report)
    if options.device_map is None and getattr(model, "hf_quantizer", None) is None:
        model = torch.nn.Module.to(model, best_device(options.device))
    return model, tokenizer


def _check_weights(name: str, report: Mapping[str, Any]) -> None:
    """Refuse files that do not fit the model: transformers initialises weights that they lack at random.

    Its report leaves out weights that the architecture is known to compute, share or ignore.
    """
    for kind, problem in (("missing_keys", "lack the weights"), ("unexpected_keys", "hold unused weights")):
        if keys := sorted(report[kind]):
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            named = ", ".join(map(quoted, keys[:3]))
            raise ModelLoadError(f"cannot load model {quoted(name)}: its files {problem} {named}{more}")


def adapter_tokenizer(adapter: str, options: LoadingOptions) -> PreTrainedTokenizerBase | None:
    """The tokenizer that comes with an adapter; None if there is none, or if the options name another.

    Raises:
        ModelLoadError: It cannot be read.
    """
    access = hub_access(options)
    if options.tokenizer or not find_file(adapter, "tokenizer_config.json", access):
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            adapter, trust_remote_code=options.trust_remote_code, **access
        )
    except Exception as error:  # transformers raises errors of nearly every type
        raise ModelLoadError(
            f"cannot load the tokenizer of adapter {quoted(adapter)}: {quoted(error, 240)}"
        ) from error
    return tokenizer


def known_context_length(
    source: str | PathLike[str] | BaseLanguageModel, options: LoadingOptions
) -> int | None:
    """The context window of a model in tokens; None if it has none, or its files are not on this machine."""
    if isinstance(source, BaseLanguageModel):
        return source.context_length
    name = resolve_source("name", source)
    if is_gguf(name):
        trained = _from_header(name, options, "default_length")
        return min(filter(None, (trained, options.n_ctx)), default=None)
    try:  # without the model's own code
        config = AutoConfig.from_pretrained(name, **_local(options, *_FILES))
    except Exception:  # not here, or not readable: loading will raise
        return None
    return context_length(config)


def known_chat_template(
    source: str | PathLike[str] | BaseLanguageModel, options: LoadingOptions, *, adapter: str | None = None
) -> Any:
    """A model's chat template, as :attr:`PreTrainedTokenizerBase.chat_template`.

    It is the empty text if there is none, and None if the files are not on this machine.
    """
    if isinstance(source, BaseLanguageModel):
        return source.tokenizer.chat_template or ""
    if options.tokenizer:
        return _saved_template(options.tokenizer, _local(options))
    if is_gguf(source):
        return _from_header(resolve_source("name", source), options, "chat_template")
    if adapter is not None:
        found = _saved_template(resolve_source("adapter", adapter), _local(options))
        if found is not None:
            return found
    return _saved_template(resolve_source("name", source), _local(options, *_FILES))


def load_tokenizer(name: str, access: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load a tokenizer alone from the hub or a local folder.

    Raises:
        ModelLoadError: It cannot be found or read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **access)
    except Exception as error:  # transformers raises errors of nearly every type
        raise ModelLoadError(f"cannot load tokenizer {quoted(name)}: {quoted(error, 240)}") from error
    return tokenizer


def _from_header(source: str, options: LoadingOptions, attribute: str) -> Any:
    """A value from the header of a GGUF file; None if the file is not on this machine."""
    try:
        return getattr(read_header(find_gguf(source, _local(options, *_FILES))), attribute)
    except ModelLoadError:  # loading will raise
        return None


def _saved_template(name: str, access: dict[str, Any]) -> Any:
    try:
        if found := find_file(name, "chat_template.jinja", access):
            default = Path(found).read_text(encoding="utf-8")
            if for_tools := find_file(name, "additional_chat_templates/tool_use.jinja", access):
                return {"default": default, "tool_use": Path(for_tools).read_text(encoding="utf-8")}
            return default
        if (found := find_file(name, "tokenizer_config.json", access)) is None:
            return None
        return json.loads(Path(found).read_text(encoding="utf-8")).get("chat_template") or ""
    except (OSError, ValueError):  # loading will raise
        return None


def find_file(name: str, file: str, access: dict[str, Any]) -> str | None:
    """The path of a file of a repository or folder; None if it is not there."""
    try:
        return cached_file(name, file, **access)
    except OSError:
        return None


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


def hub_access(options: LoadingOptions, *more: str) -> dict[str, Any]:
    """The options of every request to the hub, and more of these names, as far as they are given."""
    names = ("token", "cache_dir", "local_files_only", *more)
    access = {name: _revealed(getattr(options, name)) for name in names}
    return {name: value for name, value in access.items() if value not in (None, "")}


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _local(options: LoadingOptions, *more: str) -> dict[str, Any]:
    return hub_access(options, *more) | {"local_files_only": True}


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def display_name(source: str) -> str:
    """The name of a model or adapter in messages and traces: a hub id, or the last part of a path.

    For a folder of the hub's cache that is the hub id.
    """
    if is_gguf(source):
        return gguf_name(source)
    try:
        path = Path(source).expanduser()
        if not source or not (_looks_like_path(source) or path.is_dir()):
            return source
        path = path.resolve()
    except (OSError, RuntimeError, ValueError):  # loading will raise
        return source
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return path.name


def check_path(name: str) -> None:
    """Refuse a mistyped folder before the hub is queried for it.

    Raises:
        ModelLoadError: The name can only be a path, and there is no such folder.
    """
    if _looks_like_path(name) and not Path(name).expanduser().is_dir():
        raise ModelLoadError(f"cannot load model {quoted(name)}: there is no such folder")


def resolve_source(option: str, name: str | PathLike[str]) -> str:
    """A hub id unchanged, or the absolute path of a folder or GGUF file.

    Raises:
        InvalidOptionError: It is neither; the message names the option.
    """
    if not isinstance(name, str | PathLike) or not str(name):
        raise InvalidOptionError(f"{option}={quoted(name)} should be a hub id or the path of a folder")
    if is_gguf(name):
        return gguf_source(name)
    try:
        folder = Path(name).expanduser()
        return str(folder.resolve()) if folder.is_dir() else str(name)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, "~nobody"
        raise InvalidOptionError(
            f"{option}={quoted(str(name))} cannot be looked up: {quoted(error)}"
        ) from error


def _placement(options: LoadingOptions, *, quantised: bool) -> dict[str, Any]:
    device_map, quantization = options.device_map, options.quantization_config
    if device_map is None and (quantised or quantization is not None):  # cannot be moved later
        device_map = {"": best_device(options.device)}
    placement = {
        "dtype": options.dtype,
        "use_safetensors": options.use_safetensors or None,  # False would accept pickled weights only
        "attn_implementation": options.attn_implementation,
        # transformers removes entries from a dictionary, which belongs to the caller.
        "quantization_config": dict(quantization) if isinstance(quantization, dict) else quantization,
        "device_map": device_map,
    }
    return {name: value for name, value in placement.items() if value is not None}

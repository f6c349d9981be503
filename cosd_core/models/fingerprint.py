"""A key of a loaded model's contents, which tells entries of caches on disk apart."""

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SAMPLES = 1024
"""How many numbers of every tensor enter the key, at equal distances: training changes nearly all of them."""


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, adapter: str | None) -> str:
    """A hash of weights, configuration and tokenizer as they are loaded.

    So the key covers every way to load another model under the same name: another revision, subfolder,
    precision, quantisation, tokenizer or adapter, or files that were replaced. It does not depend on the
    folder or the device. A change of few numbers of a tensor can escape it.
    """
    digest = hashlib.sha256(json.dumps([config_digest(model.config), adapter]).encode())
    for name, tensor in model.state_dict().items():
        for part in _plain_parts(tensor):
            digest.update(f"{name} {tuple(part.shape)} {part.dtype}".encode())
            if part.device.type != "meta":  # offloaded weights are not in memory
                digest.update(_sample(part).numpy().tobytes())
    digest.update(json.dumps(tokenizer_facts(tokenizer), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def config_digest(config: PreTrainedConfig) -> str:
    """A hash of a configuration, less where it was loaded from and which release wrote it."""
    values = config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        values.pop(name, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _plain_parts(tensor: Any) -> list[torch.Tensor]:
    """A tensor, or those that a quantiser's tensor class is made of: it lacks most operations."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _plain_parts(getattr(tensor, name))]


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers of a tensor at equal distances, as bytes on the CPU."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLES)].cpu().contiguous().view(torch.uint8)


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Everything by which a tokenizer turns texts and chats into ids."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if fast is None else fast.to_str()
    return [type(tokenizer).__name__, rules, tokenizer.special_tokens_map, tokenizer.chat_template]

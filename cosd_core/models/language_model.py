"""A causal language model with its tokenizer, and what decoding must know of them."""

import inspect
import threading
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cosd_core.errors import InvalidOptionError, UnsupportedModelError, quoted
from cosd_core.models.cache import can_roll_back
from cosd_core.models.loading import best_device, has_chat_template, known_config, load
from cosd_core.options import LoadingOptions

_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies follow the longest row, so that rows of a batch disturb each other."""


class LanguageModel:
    """A causal language model and its tokenizer.

    ::

        LanguageModel.from_pretrained("org/name", dtype="bfloat16", device="cuda:1")
        LanguageModel(model, tokenizer)

    The model is put into evaluation mode. One object may serve many decoders and threads.

    Attributes:
        model: The transformers model.
        tokenizer: Its tokenizer.
        name: What messages and traces call it.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str | None = None
    ) -> None:
        """Wrap loaded objects.

        Raises:
            InvalidOptionError: The objects are no transformers model and tokenizer.
            UnsupportedModelError: The model is no causal LM, or its cache cannot be rolled back.
        """
        if not isinstance(model, PreTrainedModel):
            raise InvalidOptionError(
                f"model should be a transformers PreTrainedModel, not {type(model).__name__} (merge adapters)"
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InvalidOptionError(
                f"tokenizer should be a transformers tokenizer, not {type(tokenizer).__name__}"
            )
        self.name = name or model.config.name_or_path or type(model).__name__
        _check_supported(model, self.name)
        self.model: Any = model  # transformers' own annotations do not describe its models
        self.model.eval()
        self.tokenizer = tokenizer
        self.lock = threading.Lock()
        """Held during a forward pass: some models change buffers while they run."""

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str], **options: Any) -> Self:
        """Load from a hub id or a local folder. What is named twice alike is loaded once and shared.

        Args:
            name: Hub id or path.
            **options: The fields of :class:`LoadingOptions`, with transformers' names and meanings.

        Raises:
            InvalidOptionError: An unknown option, or a value of a wrong type.
            ModelLoadError: The model or its tokenizer cannot be found or read.
            UnsupportedModelError: The model cannot take part.
        """
        if not isinstance(name, str | PathLike) or not str(name):
            raise InvalidOptionError(f"name={quoted(name)} should be a hub id or the path of a folder")
        name = str(name)
        loading = LoadingOptions(**options)
        place = Path(name).expanduser()
        source = str(place.resolve()) if place.is_dir() else name
        if loading.device_map is None:
            loading = loading.model_copy(update={"device": best_device(loading.device)})
        key = f"{cls.__qualname__} {source} {loading!r} {loading.token!r}"
        with _registry_lock:
            lock = _loading.setdefault(key, threading.Lock())
        with lock:
            if (known := _registry.get(key)) is not None:
                return cast(Self, known)
            loaded = cls(*load(source, loading), name=name)
            _registry[key] = loaded
            return loaded

    @property
    def device(self) -> torch.device:
        """Where token ids are sent."""
        embeddings = self.model.get_input_embeddings()
        hook = getattr(embeddings, "_hf_hook", None)  # accelerate's: offloaded weights lie on "meta"
        place = getattr(hook, "execution_device", None)
        return cast(torch.device, embeddings.weight.device) if place is None else torch.device(place)

    @cached_property
    def vocabulary_size(self) -> int:
        """The number of ids that are both scored by the model and known to the tokenizer."""
        highest = max(self.tokenizer.get_vocab().values()) + 1
        return min(highest, cast(int, self.model.config.get_text_config().vocab_size))

    @cached_property
    def context_length(self) -> int | None:
        """The most tokens that prompt and answer may have together, or None if the model has no limit."""
        return _context_length(self.model.config)

    @cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end a text: those of the generation config, or else the tokenizer's."""
        ids = getattr(self.model.generation_config, "eos_token_id", None)
        if ids is None:
            ids = self.tokenizer.eos_token_id
        if ids is None:
            return frozenset()
        return frozenset([ids] if isinstance(ids, int) else ids)

    @cached_property
    def batchable(self) -> bool:
        """Whether rows of different lengths can be decoded together without disturbing each other."""
        length_dependent = any(rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE for rope in self._ropes)
        # Llama 4 scales its attention by the slot, not the position, where padding counts too.
        by_slot = getattr(self.model.config.get_text_config(), "attn_temperature_tuning", False)
        return not length_dependent and not by_slot

    @cached_property
    def bears_gaps(self) -> bool:
        """Whether attention goes by positions alone, so that masked gaps between cached positions do no harm.

        Windows, and biases by distance (ALiBi), are counted in slots. Who does not say how it attends, and
        code that is not transformers' own, is taken to count slots.
        """
        config = self.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ()
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        return (
            type(self.model).__module__.startswith("transformers.")
            and "position_ids" in inspect.signature(self.model.forward).parameters
            and all(kind in ("full_attention", "global") for kind in kinds)
            and (bool(kinds) or not any(windows))
            and not getattr(config, "alibi", False)
        )

    @cached_property
    def rope_switch(self) -> int | None:
        """The length in tokens at which all rotary frequencies change (longrope), or None."""
        config = self.model.config.get_text_config()
        for rope in self._ropes:
            if rope.get("rope_type") == "longrope":
                own = getattr(config, "original_max_position_embeddings", None)
                return rope.get("original_max_position_embeddings") or own
        return None

    @property
    def _ropes(self) -> list[dict[str, Any]]:
        rope = getattr(self.model.config.get_text_config(), "rope_parameters", None) or {}
        return [rope, *(value for value in rope.values() if isinstance(value, dict))]

    @cached_property
    def forward_arguments(self) -> frozenset[str]:
        """The optional arguments of decoding that the model's forward takes."""
        parameters = inspect.signature(self.model.forward).parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        known = ("position_ids", "logits_to_keep")
        return frozenset(name for name in known if takes_any or name in parameters)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return cast(str, self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {type(self.model).__name__}, {self.device})"


_registry: WeakValueDictionary[str, LanguageModel] = WeakValueDictionary()
_loading: dict[str, threading.Lock] = {}
_registry_lock = threading.Lock()


def known_context_length(source: str | PathLike[str] | LanguageModel, options: LoadingOptions) -> int | None:
    """The context window of a model in tokens, as far as it is known without loading it."""
    if isinstance(source, LanguageModel):
        return source.context_length
    config = known_config(str(Path(source).expanduser()), options)
    return None if config is None else _context_length(config)


def known_to_chat(source: str | PathLike[str] | LanguageModel, options: LoadingOptions) -> bool | None:
    """Whether a model has a chat template, as far as it is known without loading it."""
    if isinstance(source, LanguageModel):
        return bool(source.tokenizer.chat_template)
    return has_chat_template(str(Path(source).expanduser()), options)


def _context_length(config: PreTrainedConfig) -> int | None:
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if length and length > 0 else None


def _check_supported(model: PreTrainedModel, name: str) -> None:
    kind = type(model).__name__
    if model.config.is_encoder_decoder or not model.can_generate():
        raise UnsupportedModelError(
            f"model {quoted(name)} ({kind}) is not a decoder-only causal language model"
        )
    takes_cache = "past_key_values" in inspect.signature(model.forward).parameters
    if model._is_stateful or not takes_cache or not can_roll_back(model.config):
        raise UnsupportedModelError(
            f"model {quoted(name)} ({kind}) keeps a state that cannot be rolled back when a drafted token is "
            "rejected; use a model with attention layers only"
        )

"""A causal language model with its tokenizer, and what decoding must know of them."""

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from inspect import Parameter
from os import PathLike
from pathlib import Path
from typing import Any, Self, Unpack, cast
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cosd_core.errors import InvalidOptionError, UnsupportedModelError, quoted
from cosd_core.models.adapters import Adapter, unwrapped, with_active
from cosd_core.models.loading import (
    adapter_tokenizer,
    best_device,
    check_path,
    has_chat_template,
    known_config,
    load,
)
from cosd_core.models.probe import CACHE_ARGUMENTS, Plan, probe
from cosd_core.models.weight_sharing import lock_of
from cosd_core.options import LoadingKwargs, LoadingOptions
from cosd_core.utils import Lock

_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies follow the longest row, so that rows of a batch disturb each other."""


class LanguageModel:
    """A causal language model and its tokenizer.

    ::

        LanguageModel.from_pretrained("org/name", dtype="bfloat16", device="cuda:1")
        LanguageModel.from_pretrained("org/name", adapter="org/lora")
        LanguageModel(model, tokenizer)

    The model is put into evaluation mode. One object may serve many decoders and threads.

    Attributes:
        model: The transformers model. With adapters over one base they are several that share its weights.
        tokenizer: Its tokenizer.
        name: What messages and traces call it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        adapter: str | None = None,
    ) -> None:
        """Wrap loaded objects.

        Args:
            model: A transformers model, or a ``PeftModel`` around one.
            tokenizer: Its tokenizer.
            name: What messages and traces call it.
            adapter: Which one of the adapters that are loaded into the model is used, whatever becomes active
                there later; ``"__base__"`` is the model without any. None takes the model as it is during
                each pass, with the adapters that are active then.

        Raises:
            InvalidOptionError: They are no transformers model and tokenizer, or there is no such adapter.
            MissingExtraError: An adapter is named, and PEFT is not installed.
            UnsupportedModelError: The model is no causal LM.
        """
        found = unwrapped(model)
        if not isinstance(found, PreTrainedModel):
            raise InvalidOptionError(
                f"model should be a transformers PreTrainedModel or a PeftModel, not {type(model).__name__}"
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InvalidOptionError(
                f"tokenizer should be a transformers tokenizer, not {type(tokenizer).__name__}"
            )
        if name is not None and not isinstance(name, str):
            raise InvalidOptionError(f"name={quoted(name)} should be text")
        self.name = name or with_adapter(found.config.name_or_path or type(found).__name__, adapter)
        _check_supported(found, self.name)
        if adapter is not None:
            found = with_active(found, adapter)
        self.model: Any = found  # transformers' own annotations do not describe its models
        self.model.eval()
        self.tokenizer = tokenizer
        self.lock = lock_of(found)
        """Held during a forward pass by all that share the weights: some models change buffers in it."""
        self._base: LanguageModel | None = None
        self._plan: Plan | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        adapter: str | PathLike[str] | None = None,
        **options: Unpack[LoadingKwargs],
    ) -> Self:
        """Load from a hub id or a local folder. What is named twice alike is loaded once and shared.

        Args:
            name: Hub id or path.
            adapter: Hub id or path of a PEFT adapter (LoRA and its like) over the model. Models of one name
                and the same options share one copy of its weights, whichever adapters they have. The
                tokenizer is the adapter's where it brings one, or else the model's.
            **options: The fields of :class:`LoadingOptions`, with transformers' names and meanings. What
                chooses among a repository's files, ``revision`` and ``subfolder``, is for the model alone.

        Raises:
            InvalidOptionError: An unknown option, or a value of a wrong type.
            MissingExtraError: An adapter or a quantisation needs a package that is not installed.
            ModelLoadError: The model, its tokenizer or the adapter cannot be found or read, or do not fit.
            UnsupportedModelError: The model or the adapter cannot take part.
        """
        source = _source("name", name)
        loading = LoadingOptions(**options)
        if loading.device_map is None:
            loading = loading.model_copy(update={"device": best_device(loading.device)})
        key = f"{cls.__qualname__} {source} {loading!r} {loading.token!r}"
        if adapter is None:
            return cls._loaded_once(key, lambda: cls(*load(source, loading), name=str(name)))
        over = _source("adapter", adapter)

        check_path(over)
        return cls._loaded_once(
            f"{key} {over}",
            lambda: cls._adapted(
                Adapter.find(over, loading),  # before the model, which takes longer
                cls.from_pretrained(name, **options),
                adapter_tokenizer(over, loading),
                name=with_adapter(str(name), str(adapter)),
            ),
        )

    @classmethod
    def _adapted(
        cls, adapter: Adapter, base: Self, tokenizer: PreTrainedTokenizerBase | None, *, name: str
    ) -> Self:
        model = cls(adapter.over(base.model), tokenizer or base.tokenizer, name=name)
        if tokenizer is not None and tokenizer.eos_token_id is not None:
            ends = base.eos_token_ids | {tokenizer.eos_token_id}
            model.model.generation_config.eos_token_id = sorted(ends)
        model._base = base  # so that the next adapter finds it
        return model

    @classmethod
    def _loaded_once(cls, key: str, load_it: Callable[[], Self]) -> Self:
        with _registry_lock:
            lock = _loading.setdefault(key, Lock())
        with lock:
            if (known := _registry.get(key)) is not None:
                return cast(Self, known)
            loaded = load_it()
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

    @property
    def plan(self) -> Plan:
        """How the model is run, found out by short passes when it is first asked for.

        Raises:
            UnsupportedModelError: The model cannot take part.
            GenerationError: There is not enough memory for a few tokens.
        """
        if self._plan is None:
            with self.lock:
                if self._plan is None:
                    self._plan = probe(self)
        return self._plan

    @property
    def batchable(self) -> bool:
        """Whether rows of different lengths share passes; else they are read one after another.

        Raises:
            UnsupportedModelError: The model cannot take part.
        """
        return self.plan.together

    @cached_property
    def shares_passes(self) -> bool:
        """Whether rows of different lengths may share passes, as far as the config knows."""
        length_dependent = any(rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE for rope in self._ropes)
        # Llama 4 scales its attention by the slot, not the position, where padding counts too.
        by_slot = getattr(self.model.config.get_text_config(), "attn_temperature_tuning", False)
        return not length_dependent and not by_slot

    @cached_property
    def bears_gaps(self) -> bool:
        """Whether attention goes by positions alone, so that masked gaps between cached positions do no harm.

        As far as the config knows; :attr:`plan` says what was found.

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
        kinds = {each.kind for each in parameters.values()}
        takes_any = Parameter.VAR_KEYWORD in kinds
        named = {name for name in (*CACHE_ARGUMENTS, "use_cache") if name in parameters}
        if kinds == {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:  # hands on whatever it is given
            named = {"past_key_values", "use_cache"}
        passed_on = {name for name in ("position_ids", "logits_to_keep") if takes_any or name in parameters}
        return frozenset(named | passed_on)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of token ids."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return cast(str, text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {type(self.model).__name__}, {self.device})"


_registry: WeakValueDictionary[str, LanguageModel] = WeakValueDictionary()
_loading: dict[str, Lock] = {}
_registry_lock = Lock()


def known_context_length(source: str | PathLike[str] | LanguageModel, options: LoadingOptions) -> int | None:
    """The context window of a model in tokens, as far as it is known without loading it."""
    if isinstance(source, LanguageModel):
        return source.context_length
    config = known_config(_source("name", source), options)
    return None if config is None else _context_length(config)


def known_to_chat(
    source: str | PathLike[str] | LanguageModel, options: LoadingOptions, *, adapter: str | None = None
) -> bool | None:
    """Whether a model has a chat template, as far as it is known without loading it."""
    if isinstance(source, LanguageModel):
        return bool(source.tokenizer.chat_template)
    if adapter is not None:
        own = options.model_copy(update={"revision": None, "subfolder": ""})
        if (found := has_chat_template(_source("adapter", adapter), own)) is not None:
            return found
    return has_chat_template(_source("name", source), options)


def _source(option: str, name: str | PathLike[str]) -> str:
    """A hub id as it is; the path of a folder as one of its spellings."""
    if not isinstance(name, str | PathLike) or not str(name):
        raise InvalidOptionError(f"{option}={quoted(name)} should be a hub id or the path of a folder")
    try:
        place = Path(name).expanduser()
        return str(place.resolve()) if place.is_dir() else str(name)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, "~nobody"
        raise InvalidOptionError(
            f"{option}={quoted(str(name))} cannot be looked up: {quoted(error)}"
        ) from error


def with_adapter(name: str, adapter: str | None) -> str:
    """What a model is called that has an adapter, or none."""
    return name if adapter is None else f"{name}[{adapter}]"


def without_adapter(name: str) -> tuple[str, str | None]:
    """The model and its adapter, or None, from what they are called together."""
    base, bracket, adapter = name.removesuffix("]").partition("[")
    return (base, adapter) if bracket and name.endswith("]") else (name, None)


def _context_length(config: PreTrainedConfig) -> int | None:
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if length and length > 0 else None


def _check_supported(model: PreTrainedModel, name: str) -> None:
    kind = type(model).__name__
    if model.config.is_encoder_decoder or not model.can_generate():
        raise UnsupportedModelError(
            f"model {quoted(name)} ({kind}) is not a decoder-only causal language model"
        )

"""The transformers backend: a causal language model with its tokenizer."""

from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import torch
from pydantic import SecretStr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cosd_core.errors import InvalidOptionError, ModelUnloadedError, UnsupportedModelError, quoted
from cosd_core.models.adapters import Adapter, unwrapped, with_active
from cosd_core.models.backend_options import LLAMA_CPP_OPTIONS, check_options_apply
from cosd_core.models.base import BaseLanguageModel, with_adapter, without_adapter
from cosd_core.models.batched_session import BatchedSession
from cosd_core.models.comparison import ProbedModel
from cosd_core.models.fingerprint import fingerprint
from cosd_core.models.forward import PassRunner, Plan, input_device
from cosd_core.models.gguf.files import is_gguf
from cosd_core.models.loading import (
    adapter_tokenizer,
    best_device,
    check_path,
    display_name,
    load,
    resolve_source,
)
from cosd_core.models.logits_session import LogitsSession
from cosd_core.models.memory import release_memory
from cosd_core.models.plan_choice import choose_plan
from cosd_core.models.prefix_cache import PrefixCache
from cosd_core.models.sequential_session import SequentialSession
from cosd_core.models.traits import ModelTraits
from cosd_core.models.weight_sharing import ModelRegistry, lock_of
from cosd_core.options import LoadingKwargs, LoadingOptions, check_number
from cosd_core.utils import Unloadable

if TYPE_CHECKING:
    from cosd_core.models.server.model import ServerModel


class LanguageModel(Unloadable, BaseLanguageModel):
    """A causal language model of transformers and its tokenizer.

    ::

        LanguageModel.from_pretrained("org/name", dtype="bfloat16", device="cuda:1")
        LanguageModel.from_pretrained("org/name", adapter="org/lora")
        LanguageModel(model, tokenizer)

    The model is put into evaluation mode. One object may serve many decoders and threads. As a context
    manager it ends with :meth:`unload`.

    Attributes:
        model: The transformers model. Models with adapters over one base are several that share its weights.
        tokenizer: Its tokenizer.
        name: Its name in messages and traces.
        source: The hub id or path that it was loaded from.
        lock: Held during a forward pass by all models that share the weights: some change buffers in it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        adapter: str | None = None,
        cache_tolerance: float | None = None,
        prefix_cache_mb: float = 0,
    ) -> None:
        """Wrap loaded objects.

        Args:
            model: A transformers model, or a ``PeftModel`` around one.
            tokenizer: Its tokenizer.
            name: Its name in messages and traces.
            adapter: Which of the adapters that are loaded into the model is used, whichever becomes active
                there later; ``"__base__"`` is the model without any. None uses the adapters that are active
                in the model during each pass.
            cache_tolerance: As :attr:`LoadingOptions.cache_tolerance`.
            prefix_cache_mb: As :attr:`LoadingOptions.prefix_cache_mb`, but 0 by default: the weights of a
                model that you hold yourself, and its active adapters, may change between calls. Where they
                do not, give it a size.

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
        if cache_tolerance is not None:
            check_number("cache_tolerance", cache_tolerance)
        check_number("prefix_cache_mb", prefix_cache_mb)
        kind = type(found).__name__
        loaded_from = found.config.name_or_path or kind
        self.name = name or with_adapter(display_name(loaded_from), adapter)
        self.source = None if name else with_adapter(loaded_from, adapter)
        if found.config.is_encoder_decoder or not found.can_generate():
            raise UnsupportedModelError(
                f"model {quoted(self.name)} ({kind}) is not a decoder-only causal language model"
            )
        if adapter is not None:
            found = with_active(found, adapter)
        self._model: Any = found.eval()
        self.tokenizer = tokenizer
        self.lock = lock_of(found)
        self._base: LanguageModel | None = None
        self._plan: Plan | None = None
        self._cache_tolerance = cache_tolerance
        self._prefix_bytes = int(prefix_cache_mb * 2**20)

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        adapter: str | PathLike[str] | None = None,
        **options: Unpack[LoadingKwargs],
    ) -> Self:
        """Load from a hub id or a local folder. Equal names and options are loaded once and shared.

        Args:
            name: Hub id or path.
            adapter: Hub id or path of a PEFT adapter (LoRA and similar) over the model. Models of one name
                and the same options share one copy of its weights, whichever adapters they have. The
                tokenizer is the adapter's if it comes with one, or else the model's.
            **options: The fields of :class:`LoadingOptions`, with transformers' names and meanings. Those
                that select files of a repository, ``revision`` and ``subfolder``, apply to the model alone.

        Raises:
            InvalidOptionError: An unknown option, or a value of a wrong type.
            MissingExtraError: An adapter or a quantisation needs a package that is not installed.
            ModelLoadError: The model, its tokenizer or the adapter cannot be found or read, or do not fit.
            UnsupportedModelError: The model or the adapter cannot take part.
        """
        _refuse_gguf(name=name, adapter=adapter)
        source = resolve_source("name", name)
        loading = LoadingOptions(**options)  # type: ignore[arg-type]  # None means the default
        what = f"model {quoted(str(name))} of transformers"
        check_options_apply(loading, what, without=LLAMA_CPP_OPTIONS)
        if loading.device_map is None:
            loading = loading.model_copy(update={"device": best_device(loading.device)})
        # Not the token's repr, which hides it: a model is for those who have its token.
        key = f"{cls.__qualname__} {source} {loading!r} {hash(loading.token)}"
        if adapter is None:
            return loaded_models.get_or_load(
                key, lambda: cls._of_source(load(source, loading), source, loading)
            )
        adapter_source = resolve_source("adapter", adapter)
        check_path(adapter_source)

        def load_adapted() -> Any:
            found = Adapter.find(adapter_source, loading)  # before the model, which takes longer
            base = cls.from_pretrained(name, **options)
            tokenizer = adapter_tokenizer(adapter_source, loading)
            loaded = found.over(base.model), tokenizer or base.tokenizer
            model = cls._of_source(loaded, source, loading, adapter_source)
            if tokenizer is not None and tokenizer.eos_token_id is not None:
                ends = base.eos_token_ids | {tokenizer.eos_token_id}
                model.model.generation_config.eos_token_id = sorted(ends)
            model._base = base  # keeps the base in the registry for the next adapter
            return model

        adapted: Self = loaded_models.get_or_load(f"{key} {adapter_source}", load_adapted)
        return adapted

    @staticmethod
    def from_server(
        url: str,
        *,
        model: str | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        api_key: str | SecretStr | None = None,
        timeout: float = 60.0,
        max_connections: int = 8,
        max_retries: int = 4,
        ahead: int = 8,
    ) -> "ServerModel":
        """A model behind vLLM's OpenAI-compatible server; the other models may be elsewhere.

        Args:
            url: The address, such as ``http://localhost:8000``.
            model: Its name there; None if the server has one model only.
            tokenizer: Its tokenizer, or the hub id or path of it; None: the model's name is one.
            api_key: Sent as a bearer token.
            timeout: Seconds that an answer may take.
            max_connections: The most requests at once.
            max_retries: How often a request is sent again that found no connection or a busy server.
            ahead: The tokens that a draft writes per request; those behind a replacement are lost.

        Raises:
            MissingExtraError: httpx is not installed.
            InvalidOptionError: An argument is of a wrong type or value.
            ModelLoadError: The server does not answer, has no such model, or the tokenizer cannot be loaded.
        """
        from cosd_core.models.server.model import ServerModel

        return ServerModel.connect(
            url,
            model=model,
            tokenizer=tokenizer,
            ahead=ahead,
            api_key=api_key,
            timeout=timeout,
            max_connections=max_connections,
            max_retries=max_retries,
        )

    @classmethod
    def _of_source(
        cls, loaded: tuple[Any, Any], source: str, loading: LoadingOptions, adapter: str | None = None
    ) -> Self:
        name = with_adapter(display_name(source), adapter and display_name(adapter))
        model = cls(
            *loaded,
            name=name,
            cache_tolerance=loading.cache_tolerance,
            prefix_cache_mb=loading.prefix_cache_mb,
        )
        model.source = with_adapter(source, adapter)
        return model

    @property
    def model(self) -> Any:
        """The transformers model; transformers' own annotations do not describe it.

        Raises:
            ModelUnloadedError: It was unloaded.
        """
        if self._model is None:
            raise ModelUnloadedError(f"model {quoted(self.name)} was unloaded: load it again")
        return self._model

    @property
    def device(self) -> torch.device:
        """The device to which token ids are sent."""
        return input_device(self.model)

    @cached_property
    def vocabulary_size(self) -> int:
        """The number of ids that are both scored by the model and known to the tokenizer."""
        highest = max(self.tokenizer.get_vocab().values()) + 1
        return min(highest, cast(int, self.model.config.get_text_config().vocab_size))

    @cached_property
    def context_length(self) -> int | None:
        """The most tokens that prompt and answer may have together, or None if the model has no limit."""
        return self.traits.context_length

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
    def traits(self) -> ModelTraits:
        """Facts in the model's configuration that decide how it can be run."""
        return ModelTraits.of(self.model)

    @property
    def plan(self) -> Plan:
        """How the model is run; the first access finds out by short passes.

        Raises:
            UnsupportedModelError: The model cannot take part.
            GenerationError: There is not enough memory for a few tokens.
        """
        if self._plan is None:
            with self.lock:
                if self._plan is None:
                    self._plan = choose_plan(
                        ProbedModel(
                            self.model,
                            self.traits,
                            self.name,
                            self.vocabulary_size,
                            self.tokenizer.all_special_ids,
                            self._cache_tolerance,
                        )
                    )
        return self._plan

    @property
    def batchable(self) -> bool:
        """Whether rows of different lengths share passes. As :meth:`BaseLanguageModel.batchable`."""
        return self.plan.batched

    @cached_property
    def fingerprint(self) -> str:
        """A key of what was loaded. As :attr:`BaseLanguageModel.fingerprint`."""
        _ = self.plan  # its passes come first: the first one changes how some quantised weights are stored
        contents = fingerprint(
            self.model, self.tokenizer, adapter=without_adapter(self.source or self.name)[1]
        )
        return f"{contents} {sorted(self.eos_token_ids)}"

    @cached_property
    def prefixes(self) -> PrefixCache | None:
        """The model's states of earlier texts; None if none are kept."""
        if self.traits.rope_switch_length is not None:  # keys depend on the length of the text
            return None
        return self.plan.prefix_cache(self._prefix_bytes)

    def open_session(
        self,
        *,
        vocabulary: int,
        role: str = "draft",
        calibration: float = 1.0,
        prefix_caching: bool = True,
    ) -> LogitsSession:
        """Start to work on the rows of one batch. As :meth:`BaseLanguageModel.open_session`."""
        plan = self.plan
        runner = PassRunner(self.model, plan, self.traits, self.lock, self.name, vocabulary)
        session = BatchedSession if plan.batched else SequentialSession
        prefixes = self.prefixes if prefix_caching else None
        return session(runner, prefixes, role=role, calibration=calibration)

    def unload(self) -> None:
        """Release the weights; neither the model nor a decoder with it can be used any more.

        They are freed unless something else refers to them: a model with an adapter over the same base, a
        transformers model that you hold yourself, or a call under way, until it ends.
        :meth:`from_pretrained` loads the model again.
        """
        loaded_models.forget(self)
        self._model = self._base = None
        vars(self).pop("prefixes", None)
        release_memory()

    def __repr__(self) -> str:
        if self._model is None:
            return f"{type(self).__name__}({self.name!r}, unloaded)"
        return f"{type(self).__name__}({self.name!r}, {type(self.model).__name__}, {self.device})"


def _refuse_gguf(**names: object) -> None:
    for option, name in names.items():
        if is_gguf(name):
            raise InvalidOptionError(
                f"{option}={quoted(name)} is a GGUF file, which transformers models have nothing to do with: "
                "GGUFModel.from_pretrained loads it"
            )


loaded_models = ModelRegistry()
"""The models that :meth:`LanguageModel.from_pretrained` has loaded."""

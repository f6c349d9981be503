"""The llama.cpp backend: a model in a GGUF file with its tokenizer."""

import hashlib
import json
import os
from functools import cached_property
from os import PathLike
from typing import Any, Self, Unpack

import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import InvalidOptionError, ModelUnloadedError, quoted
from cosd_core.models.backend_options import TRANSFORMERS_OPTIONS, check_options_apply
from cosd_core.models.base import BaseLanguageModel, with_adapter
from cosd_core.models.fingerprint import tokenizer_facts
from cosd_core.models.gguf.file_digest import digest_files
from cosd_core.models.gguf.files import all_parts, find_gguf, gguf_name, gguf_source, is_gguf
from cosd_core.models.gguf.header import GGUFHeader, read_header
from cosd_core.models.gguf.library import llama_cpp
from cosd_core.models.gguf.pool import ContextPool
from cosd_core.models.gguf.session import GGUFSession
from cosd_core.models.gguf.tokenizer import build_tokenizer
from cosd_core.models.gguf.tokenizer_check import check_tokenizer
from cosd_core.models.gguf.weights import LoraAdapter, Weights
from cosd_core.models.loading import hub_access, load_tokenizer
from cosd_core.models.logits_session import LogitsSession
from cosd_core.models.memory import release_memory
from cosd_core.models.prefix_cache import PrefixCache
from cosd_core.models.weight_sharing import ModelRegistry
from cosd_core.options import LoadingKwargs, LoadingOptions
from cosd_core.utils import Unloadable


class GGUFModel(Unloadable, BaseLanguageModel):
    """A causal language model in a GGUF file, run by llama.cpp, and its tokenizer.

    ::

        GGUFModel.from_pretrained("models/tiny-q4_k_m.gguf", n_ctx=4096)
        GGUFModel.from_pretrained("org/repository:tiny-q4_k_m.gguf", n_gpu_layers=0)

    One object may serve many decoders and threads. As a context manager it ends with :meth:`unload`.

    Attributes:
        tokenizer: Its tokenizer.
        name: The name of the file.
        source: The path, or the name on the hub, that it was loaded from.
        path: The file on this machine.
        prefixes: The model's states of earlier texts.
    """

    def __init__(
        self,
        weights: Weights,
        tokenizer: PreTrainedTokenizerBase,
        *,
        source: str,
        header: GGUFHeader,
        adapter: LoraAdapter | None,
        options: LoadingOptions,
    ) -> None:
        """Put the parts together; :meth:`from_pretrained` loads them.

        Raises:
            InvalidOptionError: ``n_ctx`` exceeds the length that the model was trained for.
        """
        self.tokenizer = tokenizer
        self.path = weights.path
        self.source = with_adapter(source, adapter.path if adapter else None)
        self.name = with_adapter(gguf_name(source), gguf_name(adapter.path) if adapter else None)
        self.options = options
        self._header = header
        self._context_length = _context_length(header, options.n_ctx)
        self._pool: ContextPool | None = self._make_pool(weights, adapter)
        self.prefixes = PrefixCache(int(options.prefix_cache_mb * 2**20), divisible=False)
        self._base: GGUFModel | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        adapter: str | PathLike[str] | None = None,
        **options: Unpack[LoadingKwargs],
    ) -> Self:
        """Load a GGUF file. Equal names and options are loaded once and shared.

        Args:
            name: The path of the file, or ``org/repository:file.gguf`` on the hub. Of a model that is split
                into several files, that of the first.
            adapter: A LoRA adapter over the model, another GGUF file. Models of one name and the same options
                share one copy of the weights, whichever adapters they have.
            **options: The fields of :class:`LoadingOptions` that are llama.cpp's, those that select files on
                the hub, and ``tokenizer``, the hub id or path of the original model's tokenizer.

        Raises:
            InvalidOptionError: An option is unknown, of a wrong type, or not for GGUF files.
            MissingExtraError: llama-cpp-python is not installed.
            ModelLoadError: A file cannot be found, is damaged, or of an architecture that llama.cpp does not
                know, or the adapter does not fit.
            UnsupportedModelError: The model is no causal language model, or no tokenizer can be made that
                agrees with llama.cpp's.
        """
        if not is_gguf(name):
            raise InvalidOptionError(f"name={quoted(name)} should be the name of a GGUF file")
        if adapter is not None and not is_gguf(adapter):
            raise InvalidOptionError(
                f"adapter={quoted(adapter)} should be a GGUF file, as model {quoted(str(name))} is one"
            )
        loading = LoadingOptions(**options)  # type: ignore[arg-type]  # None means the default
        check_options_apply(loading, f"model {quoted(str(name))}, a GGUF file", without=TRANSFORMERS_OPTIONS)
        source = gguf_source(name)
        key = f"{cls.__qualname__} {source} {loading!r} {hash(loading.token)}"
        if adapter is None:
            return _loaded.get_or_load(key, lambda: cls._load(source, loading))
        base = cls.from_pretrained(name, **options)
        adapter_source = gguf_source(adapter)
        return _loaded.get_or_load(f"{key} {adapter_source}", lambda: base._adapted(adapter_source))

    @classmethod
    def _load(cls, source: str, loading: LoadingOptions) -> Self:
        llama = llama_cpp()
        path = find_gguf(source, hub_access(loading, "revision", "subfolder"))
        header = read_header(path)
        _context_length(header, loading.n_ctx)  # an error that needs no weights
        layers = loading.n_gpu_layers
        weights = Weights(path, n_gpu_layers=-1 if layers is None else layers)
        tokenizer: PreTrainedTokenizerBase
        if loading.tokenizer is None:
            control = weights.ids_with(llama.llama_vocab_is_control)
            adds_bos = bool(llama.llama_vocab_get_add_bos(weights.vocabulary))
            tokenizer = build_tokenizer(header, control=control, adds_bos=adds_bos)
        else:
            tokenizer = load_tokenizer(loading.tokenizer, hub_access(loading))
            tokenizer.chat_template = tokenizer.chat_template or header.chat_template or None
        check_tokenizer(tokenizer, weights, named=loading.tokenizer)
        return cls(weights, tokenizer, source=source, header=header, adapter=None, options=loading)

    def _adapted(self, adapter: str) -> Self:
        """This model with an adapter, over the same weights."""
        weights = self.pool.weights
        path = find_gguf(adapter, hub_access(self.options))
        model = type(self)(
            weights,
            self.tokenizer,
            source=str(self.source),
            header=self._header,
            adapter=LoraAdapter(path, weights),
            options=self.options,
        )
        model._base = self  # keeps the base in the registry for the next adapter
        return model

    def _make_pool(self, weights: Weights, adapter: LoraAdapter | None) -> ContextPool:
        threads = self.options.n_threads or _default_threads()
        short = self._header.short_length
        if short is None:
            return ContextPool(weights, adapter, threads)
        # llama.cpp rotates positions by the size of the context: it must not depend on the texts.
        if self._context_length is not None and self._context_length <= short:
            return ContextPool(weights, adapter, threads, most=short)
        return ContextPool(weights, adapter, threads, least=short + 256)

    @property
    def pool(self) -> ContextPool:
        """Makes the contexts of the model.

        Raises:
            ModelUnloadedError: The model was unloaded.
        """
        if self._pool is None:
            raise ModelUnloadedError(f"model {quoted(self.name)} was unloaded: load it again")
        return self._pool

    @property
    def device(self) -> torch.device:
        """The CPU, where llama.cpp leaves the logits, wherever it computes them."""
        return torch.device("cpu")

    @cached_property
    def vocabulary_size(self) -> int:
        """The number of ids that are both scored by the model and known to the tokenizer."""
        return min(max(self.tokenizer.get_vocab().values()) + 1, self.pool.weights.vocabulary_size)

    @property
    def context_length(self) -> int | None:
        """The most tokens of prompt and answer together: ``n_ctx``, or those it was trained for."""
        return self._context_length

    @cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids at which llama.cpp ends a text: end of text, of turn, of message."""
        ids = self.pool.weights.ids_with(llama_cpp().llama_vocab_is_eog)
        return frozenset(each for each in ids if each < self.vocabulary_size)

    @property
    def batchable(self) -> bool:
        """Whether rows share passes. As :meth:`BaseLanguageModel.batchable`."""
        return self._header.short_length is None and not self.pool.weights.recurrent

    @cached_property
    def fingerprint(self) -> str:
        """A key of the files' contents and the tokenizer. As :attr:`BaseLanguageModel.fingerprint`."""
        adapter = self.pool.adapter
        paths = [*all_parts(self.path), *([adapter.path] if adapter else [])]
        longrope = self._header.short_length is not None and self._context_length
        facts = [
            digest_files(paths, head=self._header.size),
            tokenizer_facts(self.tokenizer),
            sorted(self.eos_token_ids),
            longrope,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def open_session(
        self,
        *,
        vocabulary: int,
        role: str = "draft",
        calibration: float = 1.0,
        prefix_caching: bool = True,
    ) -> LogitsSession:
        """Start to work on the rows of one batch. As :meth:`BaseLanguageModel.open_session`."""
        return GGUFSession(
            self.pool,
            self.prefixes if prefix_caching else None,
            vocabulary=vocabulary,
            shared=self.batchable,
            role=role,
            calibration=calibration,
        )

    def open_llama(self) -> Any:
        """The file once more as llama-cpp-python's high-level ``Llama``, to compare with."""
        from llama_cpp import Llama

        adapter, threads = self.pool.adapter, self.pool.threads
        return Llama(
            self.path,
            n_ctx=min(self._context_length or 2048, 2048),
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=-1 if self.options.n_gpu_layers is None else self.options.n_gpu_layers,
            lora_path=adapter.path if adapter else None,
            verbose=False,
        )

    def unload(self) -> None:
        """Free the weights and the contexts; neither the model nor a decoder with it can be used any more.

        A model with an adapter over the same weights, and a call under way, keep the weights until they end.
        """
        _loaded.forget(self)
        if self._pool is not None:
            self._pool.close()
        self._pool = self._base = None
        self.prefixes.clear()
        release_memory()

    def __repr__(self) -> str:
        state = self._header.architecture if self._pool is not None else "unloaded"
        return f"{type(self).__name__}({self.name!r}, {state})"


_loaded = ModelRegistry()


def _context_length(header: GGUFHeader, n_ctx: int | None) -> int | None:
    """The most tokens of a text; without ``n_ctx`` those up to which no rotary frequency changes."""
    trained = header.trained_length
    if not n_ctx:
        return header.default_length
    if trained is not None and n_ctx > trained:
        raise InvalidOptionError(
            f"n_ctx={n_ctx} exceeds the {trained} tokens that model {quoted(header.path)} was trained for"
        )
    return n_ctx


def _default_threads() -> int:
    """llama-cpp-python's default: half of the processors that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(count // 2, 1)

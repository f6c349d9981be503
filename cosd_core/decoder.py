"""The public facade: a draft model, its assistants and a verifier that write one text."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from os import PathLike
from sys import float_info
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

import cosd_core.explain  # noqa: F401 - gives Generation the method that notebooks call
from cosd_core.cross_tokenizer.row_factory import CrossTokenizerRowFactory
from cosd_core.errors import (
    InvalidOptionError,
    ScheduleError,
    UnsupportedModelError,
    VerifierError,
    quoted,
)
from cosd_core.generation.call import Groups, SyncCall, ThreadCall
from cosd_core.generation.call_counter import CallCounter, unloaded
from cosd_core.generation.chunks import Chunker, chunks_of
from cosd_core.generation.engine import Engine
from cosd_core.generation.loop import Batch
from cosd_core.generation.requests import Prompt, Prompts, is_one_prompt
from cosd_core.generation.row_factory import RowFactory, SharedRowFactory
from cosd_core.generation.scheduling import Schedule, make_schedule
from cosd_core.generation.text_state import RowConfig
from cosd_core.models.backends import load_models
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.loaded import is_pair, wrap_loaded
from cosd_core.models.memory import release_memory
from cosd_core.models.vocabulary_alignment import align, require_one_vocabulary
from cosd_core.options import (
    CallKwargs,
    GenerationOptions,
    LoadingKwargs,
    SyncCallKwargs,
    check_adapters,
    check_counts,
    check_flags,
    check_number,
)
from cosd_core.outputs import Chunk, Generation, Step
from cosd_core.utils import Unloadable
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers import Verifier, calibration_of, make_verifier

if TYPE_CHECKING:
    import torch
    from transformers import Pipeline, PreTrainedTokenizerBase

ModelSource = str | PathLike[str] | BaseLanguageModel
"""A hub id, the path of a folder, a GGUF file (see docs/gguf.md), or a model."""

if TYPE_CHECKING:
    LoadedModel = tuple[torch.nn.Module, PreTrainedTokenizerBase] | Pipeline
    """A transformers model with its tokenizer, or a text-generation pipeline."""

_OF_MODELS = ("draft", "assistants", "_alignment", "_rows", "_open_batch", "_engine")
"""The attributes of a decoder that refer to its models."""

_CPU_CHUNK, _GPU_CHUNK = 256, 2048
"""Tokens of a prompt: enough of them that a pass is efficient, few enough that others do not wait long."""


class CoSDDecoder(Unloadable):
    """Two or more language models that write one text by Collaborative Speculative Decoding.

    ::

        decoder = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
        print(decoder.generate("The capital of France", max_new_tokens=32).text)

    One decoder may be used from many threads and asyncio tasks at once. As a context manager it ends with
    :meth:`unload`.

    Attributes:
        draft: The model that proposes tokens.
        assistants: The models that predict at the same positions.
        verifier: Decides token by token whose token stands.
        schedule: Decides how far to draft before the assistants run.
        calibration: The temperature of every model's confidences, the draft's first.
        draft_length, batch_size, max_concurrent, max_waiting, lookup, prefill_chunk_size: The arguments of
            :meth:`from_pretrained`.
    """

    def __init__(
        self,
        draft: BaseLanguageModel,
        assistant: BaseLanguageModel | Sequence[BaseLanguageModel],
        *,
        verifier: str | Verifier | Sequence[str | Verifier] = "rule",
        schedule: str | Schedule = "adaptive",
        draft_length: int = 8,
        batch_size: int = 32,
        calibration: Sequence[float] | None = None,
        max_concurrent: int = 256,
        max_waiting: int = 1024,
        deterministic: bool = False,
        lookup: bool = False,
        prefill_chunk_size: int | None = None,
    ) -> None:
        """Put the parts together; the arguments are those of :meth:`from_pretrained`.

        Raises:
            InvalidOptionError: A part is of a wrong type or value.
            UnsupportedModelError: A model is not causal, fails, or has a cache that is wrong.
            VocabularyMismatchError: The models do not share one vocabulary and the verifier mixes their
                distributions, or a tokenizer cannot be followed.
        """
        assistants = assistant if isinstance(assistant, (list, tuple)) else [assistant]
        _check_models(draft, assistants)
        if prefill_chunk_size is None:
            prefill_chunk_size = _CPU_CHUNK if draft.device.type == "cpu" else _GPU_CHUNK
        check_counts(
            draft_length=draft_length,
            batch_size=batch_size,
            max_concurrent=max_concurrent,
            max_waiting=max_waiting,
            prefill_chunk_size=prefill_chunk_size,
        )
        self.draft = draft
        self.assistants = tuple(assistants)
        self.verifier = make_verifier(verifier)
        with guarded(VerifierError, self.verifier):
            self.verifier.check(len(assistants))
        self.schedule = make_schedule(schedule)
        check_flags(deterministic=deterministic, lookup=lookup)
        if deterministic:
            with guarded(ScheduleError, self.schedule):
                self.schedule = self.schedule.deterministic()
        self.calibration = calibration_of(self.verifier, calibration, len(self.models))
        _check_logits(self.models, self.verifier, self.calibration)
        self.draft_length = draft_length
        self.lookup = lookup
        self.prefill_chunk_size = prefill_chunk_size
        sharing = [model.batchable for model in self.models]  # all are probed now, not at their first token
        self.batch_size = batch_size if any(sharing) and not deterministic else 1
        self._alignment = align(self.models)
        if self.verifier.needs_logits:
            require_one_vocabulary(self.models, f"verifier={self.verifier.name!r} mixes distributions and")
        factory = SharedRowFactory if self._alignment.shared else CrossTokenizerRowFactory
        names = tuple(model.name for model in self.models)
        config = RowConfig(self.verifier, draft_length, self.schedule.lazy, names, self.calibration)
        self._rows: RowFactory = factory(self.models, self._alignment, config)
        sizes = self._alignment.vocabularies
        self._open_batch = partial(
            Batch,
            models=self.models,
            vocabularies=sizes,
            config=config,
            schedule=self.schedule,
            deterministic=deterministic,
            lookup=lookup,
            prefill_chunk_size=self.prefill_chunk_size,
        )
        self.max_concurrent, self.max_waiting = max_concurrent, max_waiting
        self._engine = Engine(
            self._open_batch, self.batch_size, max_concurrent=max_concurrent, max_waiting=max_waiting
        )
        self._calls = CallCounter()

    @classmethod
    def from_pretrained(
        cls,
        draft: "ModelSource | LoadedModel",
        assistant: "ModelSource | LoadedModel | Sequence[ModelSource | LoadedModel]",
        *,
        verifier: str | Verifier | Sequence[str | Verifier] = "rule",
        schedule: str | Schedule = "adaptive",
        draft_length: int = 8,
        batch_size: int = 32,
        calibration: Sequence[float] | None = None,
        max_concurrent: int = 256,
        max_waiting: int = 1024,
        deterministic: bool = False,
        lookup: bool = False,
        prefill_chunk_size: int | None = None,
        draft_adapter: str | PathLike[str] | None = None,
        assistant_adapter: str | PathLike[str] | Sequence[str | PathLike[str] | None] | None = None,
        **loading: Unpack[LoadingKwargs],
    ) -> Self:
        """Load the models by hub id or path; the same name is loaded once.

        Args:
            draft: Hub id, path of a folder, GGUF file (a path, or ``org/repository:file.gguf``), or a loaded
                model: a :class:`LanguageModel`, a :class:`GGUFModel`, a transformers model with its tokenizer
                as a tuple, or a text-generation pipeline.
            assistant: The same, or a list of them.
            verifier: A verifier, or ``"rule"``, ``"draft"``, ``"assistant"``, ``"speculative"`` or
                ``"average"``; a list of them judges every assistant by its own.
            schedule: A schedule, or ``"adaptive"``, ``"fixed"``.
            draft_length: K, the most tokens per block.
            batch_size: The most prompts that are decoded together. Further prompts of one call wait; further
                async calls open batches of their own.
            calibration: The temperature of every model's confidences, the draft's first; None: those that the
                verifier was learned at, or else all 1. It changes neither which token a model picks nor the
                distributions of ``"average"`` and ``"speculative"``.
            max_concurrent: Async calls begin while fewer prompts of async calls are decoded; others wait.
            max_waiting: The most async calls that wait; further ones raise OverloadedError.
            deterministic: Whether a text is the same in every batch also where the models round coarsely
                (bfloat16, float16): no two prompts share a pass, no block depends on measured times, and no
                prompt uses what was computed for another text.
            lookup: Whether the draft checks guesses of several tokens in one pass, copied from the prompt and
                the text (prompt lookup decoding): for answers that repeat their input. The text is the same;
                how far to guess is measured while decoding.
            prefill_chunk_size: About how many tokens of long prompts a model processes at once; between two
                chunks the texts of other calls go on. None: 256 on a CPU, 2048 on other devices.
            draft_adapter: Hub id or path of a PEFT adapter (LoRA for instance) over the draft, or over a GGUF
                file a LoRA in another GGUF file. Models of one name share one copy of its weights.
            assistant_adapter: The same for the assistant, or a list with an entry per assistant.
            **loading: The fields of :class:`LoadingOptions`, for every model that is named and whose backend
                has them. Use ``LanguageModel.from_pretrained`` for models that need different ones.

        Raises:
            InvalidOptionError: An option is unknown or of a wrong type or value.
            CoSDError: As the constructor and :meth:`LanguageModel.from_pretrained`.
        """
        several = isinstance(assistant, (list, tuple)) and not is_pair(assistant)
        assistants: Any = assistant if several else [assistant]
        adapters = (draft_adapter or None, *check_adapters(assistant_adapter, len(assistants)))
        sources = [wrap_loaded("draft", draft), *(wrap_loaded("assistant", each) for each in assistants)]
        models = load_models(sources, adapters, loading)
        return cls(
            models[0],
            models[1:],
            verifier=verifier,
            schedule=schedule,
            draft_length=draft_length,
            batch_size=batch_size,
            calibration=calibration,
            max_concurrent=max_concurrent,
            max_waiting=max_waiting,
            deterministic=deterministic,
            lookup=lookup,
            prefill_chunk_size=prefill_chunk_size,
        )

    def steps(self, prompts: Prompts, **options: Unpack[SyncCallKwargs]) -> Generator[Step, None, None]:
        """Decode and yield one record per prompt and round. Closing the generator stops the work.

        Args:
            prompts: One prompt, as text, token ids or a :class:`Chat`, or a list of prompts.
            **options: The fields of :class:`GenerationOptions`, and ``timeout``: seconds from now after which
                the call fails; None: never. Encoding the prompts counts, and so does the time in which nobody
                reads the steps. With ``share_batches=True`` the rounds run on the decoder's worker thread, as
                those of :meth:`asteps`, so that calls of several threads share batches.

        Raises:
            InvalidOptionError: An unknown option, or a value out of range.
            InvalidPromptError: A prompt is empty or of a wrong type.
            ContextOverflowError: Prompt and answer do not fit the context window.
            AnswerTimeoutError: Later: the timeout has passed.
            GenerationError: Later, while decoding: a model or a logits processor failed.
        """
        timeout, rest = _split_timeout(options)
        share_batches = rest.pop("share_batches", False)
        check_flags(share_batches=share_batches)
        if share_batches:
            shared = ThreadCall(timeout)  # before the prompts are encoded, which counts
            return self._calls.counted(self._engine.shared_steps(shared, self._groups(prompts, rest)))
        return self._calls.counted(self._engine.steps(SyncCall(timeout), self._groups(prompts, rest)))

    def stream(self, prompts: Prompts, **options: Unpack[SyncCallKwargs]) -> Generator[Chunk, None, None]:
        """Decode and yield text as soon as it is final; arguments and errors as in :meth:`steps`.

        The last chunk of every prompt carries its :class:`Generation`.
        """
        return chunks_of(self.steps(prompts, **options))

    @overload
    def generate(  # type: ignore[overload-overlap]  # str is Sequence[str]
        self, prompts: Prompt, **options: Unpack[SyncCallKwargs]
    ) -> Generation: ...
    @overload
    def generate(self, prompts: Sequence[Prompt], **options: Unpack[SyncCallKwargs]) -> list[Generation]: ...
    def generate(self, prompts: Any, **options: Unpack[SyncCallKwargs]) -> Any:
        """Decode to the end; arguments and errors as in :meth:`steps`.

        Returns:
            A :class:`Generation` for one prompt, a list of them in the prompts' order for a list.
        """
        steps = self.steps(prompts, **options)
        return _results(prompts, {step.index: step.generation for step in steps if step.generation})

    def asteps(self, prompts: Prompts, **options: Unpack[CallKwargs]) -> AsyncGenerator[Step, None]:
        """:meth:`steps` for asyncio: rounds run on the decoder's worker thread, and calls share batches.

        A call that finds no batch with room for its prompts opens another, and the batches take turns; beyond
        ``max_concurrent`` prompts calls wait, in the order in which they came. The work does not wait for its
        steps to be read; cancelling or closing stops it within one round.

        Raises:
            OverloadedError: Later, in addition to the errors of :meth:`steps`: ``max_waiting`` calls wait.
        """
        timeout, rest = _split_timeout(options)
        return self._calls.acounted(self._engine.asteps(partial(self._groups, prompts, rest), timeout))

    async def astream(self, prompts: Prompts, **options: Unpack[CallKwargs]) -> AsyncGenerator[Chunk, None]:
        """:meth:`stream` for asyncio."""
        chunker = Chunker()
        async with aclosing(self.asteps(prompts, **options)) as steps:
            async for step in steps:
                if chunk := chunker(step):
                    yield chunk

    @overload
    async def agenerate(  # type: ignore[overload-overlap]  # str is Sequence[str]
        self, prompts: Prompt, **options: Unpack[CallKwargs]
    ) -> Generation: ...
    @overload
    async def agenerate(
        self, prompts: Sequence[Prompt], **options: Unpack[CallKwargs]
    ) -> list[Generation]: ...
    async def agenerate(self, prompts: Any, **options: Unpack[CallKwargs]) -> Any:
        """:meth:`generate` for asyncio."""
        async with aclosing(self.asteps(prompts, **options)) as steps:
            finished = {step.index: step.generation async for step in steps if step.generation}
        return _results(prompts, finished)

    def unload(self) -> None:
        """Release the models; the decoder cannot be used any more.

        The weights of models that nothing else refers to are freed: those that were loaded by name, unless
        another decoder uses them. A model that you gave as an object is as it was.

        Raises:
            ModelInUseError: A call is under way, or a stream is neither read to its end nor closed.
        """
        self._calls.close()
        if engine := vars(self).get("_engine"):
            engine.close()
        for name in _OF_MODELS:
            vars(self).pop(name, None)
        del engine
        release_memory()

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name: str) -> Any:
            if name in _OF_MODELS:
                raise unloaded()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def models(self) -> tuple[BaseLanguageModel, ...]:
        """The draft, then the assistants."""
        return (self.draft, *self.assistants)

    @property
    def shares_vocabulary(self) -> bool:
        """Whether all models have the draft's tokens; if not, they are compared by text."""
        return self._alignment.shared

    def _groups(self, prompts: Prompts, options: Mapping[str, Any]) -> Groups:
        return self._rows.groups(prompts, GenerationOptions(**options), self.batch_size)


def _check_models(draft: object, assistants: Sequence[object]) -> None:
    """Refuse models of a wrong type; raises :class:`InvalidOptionError`."""
    for role, model in [("draft", draft), *(("assistant", each) for each in assistants)]:
        if not isinstance(model, BaseLanguageModel):
            kind = type(model).__name__
            raise InvalidOptionError(
                f"{role} should be a LanguageModel, not {kind}; from_pretrained takes names"
            )
    if not assistants:
        raise InvalidOptionError("assistant=[] should hold at least one LanguageModel")


def _check_logits(
    models: Sequence[BaseLanguageModel], verifier: Verifier, calibration: Sequence[float]
) -> None:
    for model, temperature in zip(models, calibration, strict=True):
        if not model.returns_logits and (verifier.needs_logits or temperature != 1):
            what = f"verifier={verifier.name!r}" if verifier.needs_logits else f"calibration={temperature}"
            raise UnsupportedModelError(
                f"{what} needs logits, which model {quoted(model.name)} behind a server does not return"
            )


def _results(prompts: Any, finished: Mapping[int, Generation]) -> Any:
    return finished[0] if is_one_prompt(prompts) else [finished[at] for at in range(len(finished))]


def _split_timeout(options: Mapping[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """The timeout of a call, and its other options.

    Raises:
        InvalidOptionError: The timeout is no positive number.
    """
    rest = dict(options)
    timeout = rest.pop("timeout", None)
    if timeout is not None:
        check_number("timeout", timeout, least=float_info.min)
    return timeout, rest

"""The front door of the core: a draft model, its assistants and a verifier that write one text."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from os import PathLike
from typing import Any, Self, overload

import cosd_core.explain  # noqa: F401 - gives Generation the method that notebooks call
from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import ChatPrompt
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.generation.engine import Engine, Groups
from cosd_core.generation.loop import Batch
from cosd_core.generation.requests import Prompt, Request, is_one_prompt, read_prompts
from cosd_core.generation.row_factory import CrossTokenizerRows, MakeRow, Rows, SharedRows
from cosd_core.generation.scheduling import Schedule, make_schedule
from cosd_core.models.language_model import LanguageModel
from cosd_core.models.vocabulary_alignment import align, require_one_vocabulary
from cosd_core.options import GenerationOptions, LoadingOptions, check_adapters
from cosd_core.outputs import Chunk, Generation, Step, TracedToken
from cosd_core.verifiers import Verifier, calibration_of, make_verifier

ModelSource = str | PathLike[str] | LanguageModel
"""A hub id, the path of a folder, or a loaded model."""


class CoSDDecoder:
    """Two or more language models that write one text by Collaborative Speculative Decoding.

    ::

        decoder = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
        print(decoder.generate("The capital of France", max_new_tokens=32).text)

    One decoder may be used from many threads and asyncio tasks at once.

    Attributes:
        draft: The model that proposes.
        assistants: The models that judge and correct.
        verifier: Decides token by token whose token stands.
        schedule: Decides how far to draft before the assistants are asked.
        draft_length: K, the most tokens per block.
        batch_size: The most prompts that are decoded together. Async calls beyond that open further batches.
        calibration: The temperature of every model's confidences, the draft's first.
    """

    def __init__(
        self,
        draft: LanguageModel,
        assistant: LanguageModel | Sequence[LanguageModel],
        *,
        verifier: str | Verifier | Sequence[str | Verifier] = "rule",
        schedule: str | Schedule = "adaptive",
        draft_length: int = 8,
        batch_size: int = 32,
        calibration: Sequence[float] | None = None,
    ) -> None:
        """Put the parts together; the arguments are those of :meth:`from_pretrained`.

        Raises:
            InvalidOptionError: A part is of a wrong type or value.
            UnsupportedModelError: A model is not causal, fails, or has a cache that is wrong.
            VocabularyMismatchError: The models do not share one vocabulary and the verifier mixes their
                distributions, or a tokenizer cannot be followed.
        """
        assistants = assistant if isinstance(assistant, (list, tuple)) else [assistant]
        for role, model in [("draft", draft), *(("assistant", each) for each in assistants)]:
            if not isinstance(model, LanguageModel):
                kind = type(model).__name__
                raise InvalidOptionError(
                    f"{role} should be a LanguageModel, not {kind}; from_pretrained takes names"
                )
        if not assistants:
            raise InvalidOptionError("assistant=[] should hold at least one LanguageModel")
        for name, value in (("draft_length", draft_length), ("batch_size", batch_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidOptionError(f"{name}={quoted(value)} should be a whole number of at least 1")
        self.draft = draft
        self.assistants = tuple(assistants)
        self.verifier = make_verifier(verifier)
        self.verifier.check(len(assistants))
        self.schedule = make_schedule(schedule)
        self.calibration = calibration_of(self.verifier, calibration, len(self.models))
        self.draft_length = draft_length
        sharing = [model.batchable for model in self.models]  # all are probed now, not at their first token
        self.batch_size = batch_size if any(sharing) else 1
        self._alignment = align(self.models)
        if self.verifier.needs_logits:
            require_one_vocabulary(self.models, f"verifier={self.verifier.name!r} mixes distributions and")
        rows_of = SharedRows if self._alignment.shared else CrossTokenizerRows
        self._rows: Rows = rows_of(
            self.models,
            self._alignment,
            self.verifier,
            draft_length=draft_length,
            lazy=self.schedule.lazy,
            calibration=self.calibration,
        )
        self._open_batch = partial(
            Batch,
            models=self.models,
            vocabularies=self._alignment.vocabularies,
            verifier=self.verifier,
            schedule=self.schedule,
            calibration=self.calibration,
        )
        self._engine = Engine(self._open_batch, self.batch_size)

    @classmethod
    def from_pretrained(
        cls,
        draft: ModelSource,
        assistant: ModelSource | Sequence[ModelSource],
        *,
        verifier: str | Verifier | Sequence[str | Verifier] = "rule",
        schedule: str | Schedule = "adaptive",
        draft_length: int = 8,
        batch_size: int = 32,
        calibration: Sequence[float] | None = None,
        draft_adapter: str | PathLike[str] | None = None,
        assistant_adapter: str | PathLike[str] | Sequence[str | PathLike[str] | None] | None = None,
        **loading: Any,
    ) -> Self:
        """Load the models by hub id or path; the same name is loaded once.

        Args:
            draft: Hub id, path, or a loaded model.
            assistant: The same, or a list of them.
            verifier: A verifier, or ``"rule"``, ``"draft"``, ``"assistant"``, ``"speculative"`` or
                ``"average"``; a list of them judges every assistant by its own.
            schedule: A schedule, or ``"adaptive"``, ``"fixed"``.
            draft_length: K, the most tokens per block.
            batch_size: The most prompts that are decoded together. Of one call, the others wait; async calls
                that find no room open further batches, so memory grows with the calls under way.
            calibration: One temperature per model, the draft's first; None: those that the verifier was
                learned at, or else all 1. It sees the confidences at these temperatures; which token a model
                picks, and what ``"average"`` and ``"speculative"`` make of the distributions, stays the same.
            draft_adapter: Hub id or path of a PEFT adapter (LoRA and its like) over the draft. Models of one
                name share one copy of its weights, whichever adapters they have.
            assistant_adapter: The same for the assistant, or a list with an entry per assistant; None: none.
            **loading: The fields of :class:`LoadingOptions`, for every model that is named. Models that
                need different ones (two devices, say) are loaded by ``LanguageModel.from_pretrained``.

        Raises:
            InvalidOptionError: A part is of a wrong type or value, or an option unknown.
            ModelLoadError: A model or an adapter cannot be found or read, or they do not fit.
            MissingExtraError: An adapter or a quantisation needs a package that is not installed.
            UnsupportedModelError: A model or an adapter cannot take part.
            VocabularyMismatchError: The models do not share one vocabulary and the verifier mixes their
                distributions, or a tokenizer cannot be followed.
        """
        assistants = assistant if isinstance(assistant, (list, tuple)) else [assistant]
        asks_for_nothing = LoadingOptions(**loading) == LoadingOptions()
        adapters = (draft_adapter or None, *check_adapters(assistant_adapter, len(assistants)))
        for at, (each, adapter) in enumerate(zip((draft, *assistants), adapters, strict=True)):
            if adapter is not None and not isinstance(each, str | PathLike):
                option = "assistant_adapter" if at else "draft_adapter"
                raise InvalidOptionError(
                    f"{option}={quoted(adapter)} given, but the model is loaded already: name its base"
                )
        models = [
            LanguageModel.from_pretrained(each, adapter=adapter, **loading)
            if isinstance(each, str | PathLike)
            else each
            for each, adapter in zip((draft, *assistants), adapters, strict=True)
        ]
        if models == [draft, *assistants] and not asks_for_nothing:
            raise InvalidOptionError(f"{', '.join(loading)} given, but every model is loaded already")
        return cls(
            models[0],
            models[1:],
            verifier=verifier,
            schedule=schedule,
            draft_length=draft_length,
            batch_size=batch_size,
            calibration=calibration,
        )

    def steps(self, prompts: Prompt | Sequence[Prompt], **options: Any) -> Generator[Step, None, None]:
        """Decode and yield one record per prompt and round. Closing the generator stops the work.

        Args:
            prompts: One prompt, as text, token ids or a :class:`Chat`, or a list of prompts.
            **options: The fields of :class:`GenerationOptions`.

        Raises:
            InvalidOptionError: An unknown option, or a value out of range.
            InvalidPromptError: A prompt is empty or of a wrong type.
            ContextOverflowError: Prompt and answer do not fit the context window.
            GenerationError: Later, while decoding: a model or a logits processor failed.
        """
        return self._decode(self._read(prompts, options))

    def stream(self, prompts: Prompt | Sequence[Prompt], **options: Any) -> Generator[Chunk, None, None]:
        """Decode and yield text as soon as it is final; arguments and errors as in :meth:`steps`.

        The last chunk of every prompt carries its :class:`Generation`.
        """
        return chunks_of(self.steps(prompts, **options))

    @overload
    def generate(self, prompts: str | Sequence[int] | Chat | ChatPrompt, **options: Any) -> Generation: ...
    @overload
    def generate(
        self, prompts: Sequence[str | Sequence[int] | Chat | ChatPrompt], **options: Any
    ) -> list[Generation]: ...
    def generate(self, prompts: Any, **options: Any) -> Any:
        """Decode to the end; arguments and errors as in :meth:`steps`.

        Returns:
            A :class:`Generation` for one prompt, a list of them in the prompts' order for a list.
        """
        finished = {step.index: step.generation for step in self.steps(prompts, **options) if step.generation}
        return finished[0] if is_one_prompt(prompts) else [finished[at] for at in range(len(finished))]

    def asteps(self, prompts: Prompt | Sequence[Prompt], **options: Any) -> AsyncGenerator[Step, None]:
        """:meth:`steps` for asyncio: rounds run on the decoder's worker thread, requests share batches.

        A request joins a batch that is under way if its prompts fit into it, up to ``batch_size``, and if
        little of the batch would be padding then. Otherwise it opens another, and the batches take turns. So
        nobody waits for a place, and memory grows with the number of requests under way: who must bound it
        bounds those, by an :class:`asyncio.Semaphore` say.

        The work does not wait until its steps are read. Cancelling the task or closing the generator stops it
        within one round, and what fails in one request fails in no other.
        """
        return self._engine.steps(partial(self._read, prompts, options))

    async def astream(
        self, prompts: Prompt | Sequence[Prompt], **options: Any
    ) -> AsyncGenerator[Chunk, None]:
        """:meth:`stream` for asyncio."""
        chunker = _Chunker()
        async with aclosing(self.asteps(prompts, **options)) as steps:
            async for step in steps:
                if chunk := chunker(step):
                    yield chunk

    @overload
    async def agenerate(
        self, prompts: str | Sequence[int] | Chat | ChatPrompt, **options: Any
    ) -> Generation: ...
    @overload
    async def agenerate(
        self, prompts: Sequence[str | Sequence[int] | Chat | ChatPrompt], **options: Any
    ) -> list[Generation]: ...
    async def agenerate(self, prompts: Any, **options: Any) -> Any:
        """:meth:`generate` for asyncio."""
        async with aclosing(self.asteps(prompts, **options)) as steps:
            finished = {step.index: step.generation async for step in steps if step.generation}
        return finished[0] if is_one_prompt(prompts) else [finished[at] for at in range(len(finished))]

    @property
    def models(self) -> tuple[LanguageModel, ...]:
        """The draft, then the assistants."""
        return (self.draft, *self.assistants)

    @property
    def shares_vocabulary(self) -> bool:
        """Whether all models have the draft's tokens; if not, they are compared by text."""
        return self._alignment.shared

    def _read(self, prompts: Prompt | Sequence[Prompt], options: Mapping[str, Any]) -> Groups:
        wanted = GenerationOptions(**options)
        requests = read_prompts(prompts, wanted, self.models, self._alignment)
        return self._groups(requests, self._rows.begin(wanted))

    def _groups(self, requests: Sequence[Request], make: MakeRow) -> Groups:
        numbered = list(enumerate(requests))
        if len(numbered) > self.batch_size:
            # Neighbours of like length waste little on padding, and tend to end together.
            numbered.sort(key=lambda entry: len(entry[1].ids))
        for start in range(0, len(numbered), self.batch_size):
            group = numbered[start : start + self.batch_size]
            yield [make(index, request) for index, request in group]

    def _decode(self, groups: Groups) -> Generator[Step, None, None]:
        for rows in groups:
            yield from self._open_batch(rows).rounds()


class _Chunker:
    """Turns steps into chunks; tokens of steps without text wait for the next chunk."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[TracedToken, ...]] = {}

    def __call__(self, step: Step) -> Chunk | None:
        tokens = self._waiting.pop(step.index, ()) + step.tokens
        if not step.text and not step.generation:
            self._waiting[step.index] = tokens
            return None
        reason = step.generation.finish_reason if step.generation else None
        return Chunk(step.text, tokens, step.index, reason, step.generation)


def chunks_of(steps: Generator[Step, None, None]) -> Generator[Chunk, None, None]:
    """Steps as chunks of text, one for every step with text or an end; closing them closes the steps."""
    chunker = _Chunker()
    with closing(steps):
        for step in steps:
            if chunk := chunker(step):
                yield chunk

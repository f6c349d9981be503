"""What the classes of every framework share: settings that load what they name, and answer."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from copy import copy
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator

from cosd_core.chat.messages import Chat
from cosd_core.chat.openai_options import answer_schema, named_choice
from cosd_core.chat.turn import Turn
from cosd_core.decoder import CoSDDecoder
from cosd_core.decoder import _chunks as chunks_of
from cosd_core.errors import AnswerTimeoutError, InvalidOptionError
from cosd_core.frontend.decoder_cache import DecoderCache
from cosd_core.frontend.serialization import plain
from cosd_core.frontend.settings import MODELS, Settings, names_of
from cosd_core.models.base import BaseLanguageModel
from cosd_core.options import ChatOptions, LoadingOptions, in_one_line, unknown_option
from cosd_core.outputs import Chunk, Generation, Step

_LOADING = frozenset((*LoadingOptions.model_fields, *MODELS))
"""What cannot be changed for one call."""

T = TypeVar("T")


class FrameworkModel(Settings):
    """The settings of cosd as constructor parameters of a framework's class.

    Nothing is loaded before the first call. Instances that name the same models share one copy of the
    weights. A setting can be changed at any time; the next call honours it.

    Raises:
        InvalidOptionError: A parameter is unknown or of a wrong type or value.
    """

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    aliases: ClassVar[Mapping[str, str]] = {"max_tokens": "max_new_tokens"}
    """The framework's names for settings that have transformers' name here."""

    cache_key_fields: ClassVar[tuple[str, ...]] = (*Settings.model_fields, "return_trace")
    """The settings that shape an answer."""

    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which a call is given up. Loading models does not count; reading the "
        "prompt does, and so does whoever reads a stream slowly.",
    )
    return_trace: bool = Field(default=False, description="Put the trace of every token into the result.")

    # A field, because frameworks make copies from the fields: they share what is loaded.
    loaded: DecoderCache = Field(
        default_factory=DecoderCache, exclude=True, repr=False, description="Internal."
    )

    __hash__ = None  # type: ignore[assignment]  # what can be changed has no hash

    if TYPE_CHECKING:  # the alias, for editors and type checkers
        max_tokens: int | None = 128
    else:

        @property
        def max_tokens(self) -> int:
            """The frameworks' name for ``max_new_tokens``."""
            return self.max_new_tokens

    @model_validator(mode="before")
    @classmethod
    def _take_the_frameworks_names(cls, values: Any) -> Any:
        return cls._by_own_names(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _let_go_of_other_models(self) -> Self:
        self._keep_what_fits()
        return self

    def _keep_what_fits(self) -> None:
        """Let go of models that are no longer named."""
        sources = self.sources()
        if self.loaded.sources != sources:
            self.__dict__["loaded"] = DecoderCache(sources)  # past validation, which called this

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(self.aliases.get(name, name), value)
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy has its own settings and the same weights."""
        mutable = {name: value for name, value in self.__dict__.items() if isinstance(value, (dict, list))}
        return self.model_copy(update={name: copy(value) for name, value in mutable.items()})

    def __getstate__(self) -> dict[Any, Any]:
        """Settings travel, weights do not.

        Raises:
            InvalidOptionError: A model was given as an object.
        """
        self._check_portable()
        return super().__getstate__()

    def _check_portable(self) -> None:
        named = (self.draft_model, *self.assistants)
        if held := [source.name for source in named if isinstance(source, BaseLanguageModel)]:
            raise InvalidOptionError(
                f"{', '.join(held)}: a model given as an object cannot be pickled; give its hub id or path"
            )

    @property
    def model_name(self) -> str:
        """The pair in logs and traces: the names, joined by a plus sign."""
        return "+".join(self._names)

    @property
    def _names(self) -> list[str]:
        return names_of({name: getattr(self, name) for name in MODELS})

    def _identity(self) -> dict[str, Any]:
        """Everything that shapes an answer, as plain JSON: caches tell models apart by it."""
        cache_key_fields = [name for name in self.cache_key_fields if name not in ("token", "cache_dir")]
        return {
            "model_name": self.model_name,
            **{name: plain(getattr(self, name)) for name in cache_key_fields},
            "verifier": plain(self._verifier()),  # a tree by its nodes: the file may change
        }

    # What a call is made of

    @staticmethod
    def _translated_errors() -> AbstractContextManager[None]:
        """A context that raises cosd's errors under the framework's names, where it has some."""
        return nullcontext()

    @classmethod
    def _by_own_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by the names they have here; an alias that is None says nothing."""
        values = dict(values)
        for alias, name in cls.aliases.items():
            if alias in values:
                if name in values:
                    raise InvalidOptionError(f"{alias} and {name} are the same option: give one")
                if (value := values.pop(alias)) is not None:
                    values[name] = value
        if isinstance(values.get("token"), SecretStr):
            values["token"] = values["token"].get_secret_value()
        return values

    def _with_options(self, options: Mapping[str, Any]) -> Self:
        """A copy of this model with the options of one call, checked: what is set later is for later calls.

        Raises:
            InvalidOptionError: An unknown option, or a value out of range.
        """
        wanted = self._by_own_names(options)
        known = [*(name for name in self.cache_key_fields if name not in _LOADING), "timeout"]
        for name in wanted:
            if name in _LOADING:
                raise InvalidOptionError(f"{name} is read when models are loaded: give it to the constructor")
            if name not in known:
                raise InvalidOptionError(unknown_option(name, known))
        self._keep_what_fits()  # before the copy, which shares it
        other = self.model_copy()
        for name, value in wanted.items():
            setattr(other, name, value)
        return other

    def _decoder(self) -> CoSDDecoder:
        """The decoder of these settings, built at the first use."""
        self._keep_what_fits()  # model_copy(update=...) checks nothing
        with self._translated_errors():
            return self.loaded.decoder(self.method())

    async def _run_in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what may load models, or takes long, away from the event loop."""
        return await self.loaded.run_in_thread(work, *arguments)

    def _steps(self, prompts: Any, **more: Any) -> Generator[Step, None, None]:
        """What is written, step by step and in time; closing the generator stops the work."""
        decoder = self._decoder()
        end = inf if self.timeout is None else time.monotonic() + self.timeout
        options = {**self.generation_options(), **more}
        with self._translated_errors(), closing(decoder.steps(prompts, **options)) as steps:
            for step in steps:
                if time.monotonic() > end:
                    raise self._too_late()
                yield step

    def _stream_chunks(self, prompts: Any, **more: Any) -> Generator[Chunk, None, None]:
        return chunks_of(self._steps(prompts, **more))

    async def _astream_chunks(self, prompts: Any, **more: Any) -> AsyncGenerator[Chunk, None]:
        decoder = await self._run_in_thread(self._decoder)
        end = inf if self.timeout is None else asyncio.get_running_loop().time() + self.timeout
        options = {**self.generation_options(), **more}
        with self._translated_errors():
            async with aclosing(decoder.astream(prompts, **options)) as chunks:
                while (chunk := await self._in_time(anext(chunks, None), end)) is not None:
                    yield chunk

    def _answers(self, prompts: Sequence[Any], **more: Any) -> list[Generation]:
        """Every prompt's answer, all of them decoded as one batch."""
        steps = self._steps(prompts, **more)
        finished = {step.index: step.generation for step in steps if step.generation}
        return [finished[at] for at in range(len(finished))]

    async def _aanswers(self, prompts: Sequence[Any], **more: Any) -> list[Generation]:
        chunks = self._astream_chunks(prompts, **more)
        finished = {chunk.index: chunk.generation async for chunk in chunks if chunk.generation}
        return [finished[at] for at in range(len(finished))]

    async def _in_time(self, awaited: Awaitable[Chunk | None], end: float) -> Chunk | None:
        try:
            async with asyncio.timeout_at(end if isfinite(end) else None):
                found = await awaited
        except TimeoutError:
            raise self._too_late() from None
        # What is there already is not awaited. After the last chunk, None comes whenever it is asked for.
        if found is not None and asyncio.get_running_loop().time() > end:
            raise self._too_late()
        return found

    def _too_late(self) -> AnswerTimeoutError:
        return AnswerTimeoutError(f"no answer within timeout={self.timeout} seconds")

    def _info(self, generation: Generation) -> dict[str, Any]:
        """What is told about an answer besides its text, as plain JSON."""
        trace = {"trace": generation.to_dict()["tokens"]} if self.return_trace else {}
        return {
            "finish_reason": generation.finish_reason,
            "stop_sequence": generation.stop_sequence,
            "model_name": self.model_name,
            "verifier": generation.verifier.to_dict(),
            "stats": generation.stats.to_dict(),
            **trace,
        }


class ChatFrameworkModel(ChatOptions, FrameworkModel):
    """The same for classes that answer chats."""

    __hash__ = None  # ChatOptions are frozen, and have one

    cache_key_fields: ClassVar[tuple[str, ...]] = (
        *FrameworkModel.cache_key_fields,
        *ChatOptions.model_fields,
    )

    def _turn(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        asked: Mapping[str, Any],
    ) -> Turn:
        """One answer to these messages, in the form that is asked for (:func:`split_options` says by what).

        Raises:
            InvalidOptionError: What is asked for cannot be.
            InvalidPromptError: A model's template does not take the messages.
        """
        with self._translated_errors():
            return Turn(
                self._chat(messages, tools),
                self._decoder().models,
                tool_choice=named_choice(asked.get("tool_choice"), tools),
                parallel_tool_calls=asked.get("parallel_tool_calls"),
                strict=asked.get("strict"),
                answer_schema=answer_schema(asked.get("response_format")),
                grammar=self.grammar,
            )

    def _chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Chat:
        return Chat(messages, tools, self.chat_template, self.chat_template_kwargs)


def usage(generations: Sequence[Generation]) -> dict[str, int]:
    """Tokens of prompts and answers."""
    prompts = sum(each.prompt_tokens for each in generations)
    answers = sum(len(each.token_ids) for each in generations)
    return {"prompt_tokens": prompts, "completion_tokens": answers, "total_tokens": prompts + answers}

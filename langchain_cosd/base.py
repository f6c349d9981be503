"""What both LangChain classes share: settings as constructor parameters, the decoder, how it is driven."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch
from langchain_core.language_models import BaseLanguageModel, LangSmithParams
from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator

from cosd_core import (
    Chunk,
    CoSDDecoder,
    Generation,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    LoadingOptions,
    Settings,
    Verifier,
    __version__,
)
from cosd_core.loaded import Loaded
from cosd_core.options import in_one_line, unknown_option
from langchain_cosd.errors import CoSDTimeoutError, langchain_errors

_ALIASES = {"max_tokens": "max_new_tokens", "api_key": "token"}
"""LangChain's names for settings that have transformers' name here."""

_LOADING = frozenset((*LoadingOptions.model_fields, "draft_model", "assistant_model"))
"""What cannot be changed for one call."""


class CoSDModel(Settings, BaseLanguageModel[Any]):
    """The settings of cosd as constructor parameters of a LangChain model.

    Nothing is loaded before the first call. Instances that name the same models share one copy of the
    weights. A setting can be changed at any time; the next call honours it.
    """

    model_config = ConfigDict(extra="forbid", frozen=False, validate_assignment=True)

    shaping: ClassVar[tuple[str, ...]] = (*Settings.model_fields, "return_trace")
    """The settings that shape an answer."""

    timeout: float | None = Field(
        None,
        gt=0,
        description="Seconds of writing after which a call is given up; loading models does not count.",
    )
    max_retries: int = Field(2, ge=0, description="Has no effect: there is no connection that could fail.")
    return_trace: bool = Field(False, description="Put the trace of every token into the result.")

    # A field, because LangChain makes configured copies from the fields: they share what is loaded.
    loaded: Loaded = Field(default_factory=Loaded, exclude=True, repr=False, description="Internal.")

    __hash__ = None  # type: ignore[assignment]  # what can be changed has no hash

    if TYPE_CHECKING:  # LangChain's names, for editors and type checkers
        max_tokens: int = 128
        api_key: SecretStr | str | None = None
    else:

        @property
        def max_tokens(self) -> int:
            """LangChain's name for ``max_new_tokens``."""
            return self.max_new_tokens

    @model_validator(mode="before")
    @classmethod
    def _take_langchain_names(cls, values: Any) -> Any:
        return _by_own_names(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _add_cosd_version(self) -> Self:
        self._add_version("langchain-cosd", __version__)
        return self

    @model_validator(mode="after")
    def _let_go_of_other_models(self) -> Self:
        self._keep_what_fits()
        return self

    def _keep_what_fits(self) -> None:
        """Let go of models that are no longer named."""
        sources = self.sources()
        if self.loaded.sources != sources:
            self.__dict__["loaded"] = Loaded(sources)  # past validation, which called this

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(_ALIASES.get(name, name), value)
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None

    def configurable_fields(self, **fields: Any) -> Any:
        """:meth:`Runnable.configurable_fields`, which takes LangChain's names too."""
        return super().configurable_fields(
            **{_ALIASES.get(name, name): field for name, field in fields.items()}
        )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy has its own settings and the same weights."""
        return self.model_copy()

    def __getstate__(self) -> dict[Any, Any]:
        """Settings travel, weights do not.

        Raises:
            InvalidOptionError: A model was given as an object.
        """
        if held := [source.name for source in self._sources if isinstance(source, LanguageModel)]:
            raise InvalidOptionError(
                f"{', '.join(held)}: a model given as an object cannot be pickled; give its hub id or path"
            )
        return super().__getstate__()

    @property
    def model_name(self) -> str:
        """The pair as traces and usage callbacks call it: the names, joined by a plus sign."""
        return "+".join(
            source.name if isinstance(source, LanguageModel) else str(source) for source in self._sources
        )

    @property
    def _sources(self) -> list[Any]:
        assistants = self.assistant_model
        return [self.draft_model, *(assistants if isinstance(assistants, list) else [assistants])]

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Everything that shapes an answer, as plain JSON: LangChain's caches tell models apart by it."""
        shaping = [name for name in self.shaping if name not in ("token", "cache_dir")]
        return {
            "model_name": self.model_name,
            **{name: _plain(getattr(self, name)) for name in shaping},
            "verifier": _plain(self._verifier()),  # a tree by its nodes: the file may change
        }

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, by the pair's own tokenizer."""
        return self._decoder().draft.encode(text, add_special_tokens=False)

    # What a call is made of

    def _with_options(self, stop: list[str] | None, options: Mapping[str, Any]) -> Self:
        """This model with the options of one call, checked; itself if there are none.

        Raises:
            InvalidOptionError: An unknown option, or a value out of range.
        """
        wanted = _by_own_names(dict(options))
        if stop is not None:
            wanted["stop"] = stop
        if not wanted:
            return self
        known = [*(name for name in self.shaping if name not in _LOADING), "timeout"]
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
        with langchain_errors():
            return self.loaded.decoder(self.method())

    def _stream_chunks(self, prompts: Any, **more: Any) -> Generator[Chunk, None, None]:
        decoder = self._decoder()
        check = self._deadline()
        options = {**self.generation_options(), **more}
        with langchain_errors(), closing(decoder.stream(prompts, **options)) as chunks:
            for chunk in chunks:
                check()
                yield chunk

    async def _astream_chunks(self, prompts: Any, **more: Any) -> AsyncGenerator[Chunk, None]:
        decoder = await asyncio.to_thread(self._decoder)  # the first call loads the models
        end = None if self.timeout is None else asyncio.get_running_loop().time() + self.timeout
        options = {**self.generation_options(), **more}
        with langchain_errors():
            async with aclosing(decoder.astream(prompts, **options)) as chunks:
                while (chunk := await self._in_time(anext(chunks, None), end)) is not None:
                    yield chunk

    def _answers(self, prompts: Sequence[Any], **more: Any) -> list[Generation]:
        """Every prompt's answer, all of them decoded as one batch."""
        decoder = self._decoder()
        check = self._deadline()
        finished: dict[int, Generation] = {}
        options = {**self.generation_options(), **more}
        with langchain_errors(), closing(decoder.steps(prompts, **options)) as steps:
            for step in steps:
                check()
                if step.generation:
                    finished[step.index] = step.generation
        return [finished[at] for at in range(len(finished))]

    async def _aanswers(self, prompts: Sequence[Any], **more: Any) -> list[Generation]:
        chunks = self._astream_chunks(prompts, **more)
        finished = {chunk.index: chunk.generation async for chunk in chunks if chunk.generation}
        return [finished[at] for at in range(len(finished))]

    def _deadline(self) -> Callable[[], None]:
        """A check that raises once the time is over; closing the stream then stops the work."""
        started = time.monotonic()

        def check() -> None:
            if self.timeout is not None and time.monotonic() - started > self.timeout:
                raise self._too_late()

        return check

    async def _in_time(self, awaited: Awaitable[Chunk | None], end: float | None) -> Chunk | None:
        try:
            async with asyncio.timeout_at(end):
                return await awaited
        except TimeoutError:
            raise self._too_late() from None

    def _too_late(self) -> CoSDTimeoutError:
        return CoSDTimeoutError(f"no answer within timeout={self.timeout} seconds")

    def _tracing_params(self, kind: Literal["llm", "chat"], named: Any) -> LangSmithParams:
        """What LangSmith is told of a model; ``named`` is the name that a call gives it, if any."""
        params = LangSmithParams(
            ls_provider="cosd",
            ls_model_type=kind,
            ls_model_name=named or self.model_name,
            ls_temperature=self.temperature,
            ls_max_tokens=self.max_new_tokens,
        )
        if self.stop:
            params["ls_stop"] = list(self.stop)
        return params

    def _info(self, generation: Generation) -> dict[str, Any]:
        """What is told about an answer besides its text, as plain JSON."""
        trace = {"trace": generation.to_dict()["tokens"]} if self.return_trace else {}
        return {
            "finish_reason": generation.finish_reason,
            "stop_sequence": generation.stop_sequence,
            "model_name": self.model_name,
            "verifier": generation.verifier.to_dict(),
            "stats": generation.stats.to_dict(),
            "token_usage": usage([generation]),
            **trace,
        }


def usage(generations: Sequence[Generation]) -> dict[str, int]:
    """Tokens of prompts and answers."""
    prompts = sum(each.prompt_tokens for each in generations)
    answers = sum(len(each.token_ids) for each in generations)
    return {"prompt_tokens": prompts, "completion_tokens": answers, "total_tokens": prompts + answers}


def _by_own_names(values: dict[str, Any]) -> dict[str, Any]:
    values = dict(values)
    for alias, name in _ALIASES.items():
        if alias in values:
            if name in values:
                raise InvalidOptionError(f"{alias} and {name} are the same option: give one")
            values[name] = values.pop(alias)
    if isinstance(values.get("token"), SecretStr):
        values["token"] = values["token"].get_secret_value()
    return values


def _plain(value: Any) -> Any:
    """A setting as JSON. What has no name of its own is told apart by a mark for this process."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case LanguageModel():
            return f"{value.name}#{_mark(value)}"
        case Verifier() if type(value).__module__.startswith("cosd_core."):
            return value.to_dict()
        case Verifier():  # what a user's own verifier says of itself may leave out its settings
            return {**value.to_dict(), "object": _mark(value)}
        case Grammar():
            return {value.kind: value.source}
        case torch.dtype() | torch.device():
            return str(value)
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    return str(value) if hasattr(value, "__fspath__") else f"{type(value).__name__}#{_mark(value)}"


_marks: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _mark(value: Any) -> str:
    """The same for the same object, different for any other, in this process and all others."""
    try:
        return _marks.setdefault(value, uuid4().hex[:12])
    except TypeError:  # no hash or no weak reference: never the same again, so never found in a cache
        return uuid4().hex[:12]

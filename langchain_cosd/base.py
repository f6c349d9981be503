"""What both LangChain classes share: settings as constructor parameters, the decoder, how it is driven."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from threading import Lock
from typing import Any, Self
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch
from langchain_core.language_models import BaseLanguageModel
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator

from cosd_core import (
    Chunk,
    CoSDDecoder,
    Generation,
    GenerationOptions,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    Settings,
    Verifier,
    __version__,
)
from cosd_core.options import in_one_line, unknown_option
from langchain_cosd.errors import CoSDTimeoutError, langchain_errors

_ALIASES = {"max_tokens": "max_new_tokens", "api_key": "token"}
"""LangChain's names for settings that have transformers' name here."""

_MOST_DECODERS = 16
"""Decoders share the weights, so keeping those of recent calls costs little."""


class CoSDModel(Settings, BaseLanguageModel[Any]):
    """The settings of cosd as constructor parameters of a LangChain model.

    Nothing is loaded before the first call. Instances that name the same models share one copy of the
    weights. A setting can be changed at any time; the next call honours it.
    """

    model_config = ConfigDict(extra="forbid", frozen=False, validate_assignment=True)

    timeout: float | None = Field(None, gt=0, description="Seconds after which a call is given up.")
    max_retries: int = Field(2, ge=0, description="Has no effect: there is no connection that could fail.")
    return_trace: bool = Field(False, description="Put the trace of every token into the result.")

    _decoders: dict[str, CoSDDecoder] = PrivateAttr(default_factory=dict)
    _building: Lock = PrivateAttr(default_factory=Lock)

    @model_validator(mode="before")
    @classmethod
    def _take_langchain_names(cls, values: Any) -> Any:
        return _by_own_names(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _add_cosd_version(self) -> Self:
        self._add_version("langchain-cosd", __version__)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(_ALIASES.get(name, name), value)
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy has its own settings and the same weights."""
        return self.model_copy()

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
        shaping = [name for name in Settings.model_fields if name not in ("token", "cache_dir")]
        return {
            "model_name": self.model_name,
            **{name: _plain(getattr(self, name)) for name in shaping},
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
        known = [*Settings.model_fields, "timeout", "return_trace"]
        if unknown := [name for name in wanted if name not in known]:
            raise InvalidOptionError(unknown_option(unknown[0], known))
        other = self.model_copy()
        for name, value in wanted.items():
            setattr(other, name, value)
        return other

    def _decoder(self) -> CoSDDecoder:
        """The decoder of these settings, built at the first use."""
        generation = set(GenerationOptions.model_fields)
        key = repr({n: v for n, v in self._identifying_params.items() if n not in generation})
        with self._building, langchain_errors():
            if key not in self._decoders:
                while len(self._decoders) >= _MOST_DECODERS:
                    del self._decoders[next(iter(self._decoders))]
                self._decoders[key] = self.decoder()
            return self._decoders[key]

    def _stream_chunks(self, prompts: Any) -> Generator[Chunk, None, None]:
        check = self._deadline()
        with (
            langchain_errors(),
            closing(self._decoder().stream(prompts, **self.generation_options())) as chunks,
        ):
            for chunk in chunks:
                check()
                yield chunk

    async def _astream_chunks(self, prompts: Any) -> AsyncGenerator[Chunk, None]:
        check = self._deadline()
        decoder = await asyncio.to_thread(self._decoder)  # the first call loads the models
        with langchain_errors():
            async with aclosing(decoder.astream(prompts, **self.generation_options())) as chunks:
                async for chunk in chunks:
                    check()
                    yield chunk

    def _answers(self, prompts: Sequence[Any]) -> list[Generation]:
        """Every prompt's answer, all of them decoded as one batch."""
        return _in_order([chunk for chunk in self._stream_chunks(prompts) if chunk.generation])

    async def _aanswers(self, prompts: Sequence[Any]) -> list[Generation]:
        return _in_order([chunk async for chunk in self._astream_chunks(prompts) if chunk.generation])

    def _deadline(self) -> Callable[[], None]:
        """A check that raises once the time is over; closing the stream then stops the work."""
        started = time.monotonic()

        def check() -> None:
            if self.timeout is not None and time.monotonic() - started > self.timeout:
                raise CoSDTimeoutError(f"no answer within timeout={self.timeout} seconds")

        return check

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


def _in_order(last: Sequence[Chunk]) -> list[Generation]:
    return [chunk.generation for chunk in sorted(last, key=lambda chunk: chunk.index) if chunk.generation]


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
        case Verifier():
            return value.to_dict()
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
    return _marks.setdefault(value, uuid4().hex[:12])

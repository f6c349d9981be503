"""The engine that decodes in this process: the settings of the server as calls of a decoder."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from math import inf
from typing import Any, Self

from pydantic import ConfigDict, Field

from cosd_core.frontend.call import Call
from cosd_core.frontend.framework_model import FrameworkModel
from cosd_core.options import ANSWER_TOKENS, ChatOptions
from cosd_core.serving.choices import ChatWriter, ChoiceWriter, Piece, TextWriter
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.requests import ChatRequest, CompletionRequest, TextRequest
from cosd_core.serving.work import Emit


class _Pair(ChatOptions, FrameworkModel):
    """The settings of the server, and the calls that are made with them."""

    model_config = ConfigDict(frozen=False)

    top_logprobs: int | None = Field(default=None, ge=0)

    def call(self, options: Mapping[str, Any]) -> Call:
        """A call with these options."""
        return self._with_options(options)._call()


class LocalEngine:
    """A pair, and the requests that it answers.

    Attributes:
        name: The names of the models, joined by a plus sign.
        max_requests: The most requests that are decoded and wait at once.
    """

    def __init__(self, settings: Mapping[str, Any], options: ServerOptions) -> None:
        """Load the models.

        Args:
            settings: Fields of :class:`CallSettings`.
            options: Limit the time of a request, and the tokens of a text where nothing else does.

        Raises:
            CoSDError: A setting is not valid, or a model cannot be loaded.
        """
        self._pair = _Pair(**settings, timeout=options.request_timeout)
        models = self._pair.call({}).decoder().models
        if "max_new_tokens" not in self._pair.model_fields_set:
            window = min(model.context_length or inf for model in models)
            self._pair.max_new_tokens = int(min(ANSWER_TOKENS, window / 2, options.max_tokens_limit or inf))
        self.name = self._pair.model_name
        self.max_requests = self._pair.max_concurrent + self._pair.max_waiting
        self._places = asyncio.Semaphore(self.max_requests)  # choices that the decoder has no room for wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pair.unload()

    async def complete(self, request: CompletionRequest, emit: Emit[Piece]) -> None:
        """Complete the prompts of a request; errors as of :meth:`CoSDDecoder.astream`."""
        prompts, call = request.prompts(), await self._call(request)
        seeds = request.seeds(call.settings.seed)
        async with asyncio.TaskGroup() as tasks:
            for number, seed in enumerate(seeds):
                writers = [
                    TextWriter(at * len(seeds) + number, call, provenance=request.provenance)
                    for at in range(len(prompts))
                ]
                tasks.create_task(self._decode(call, prompts, writers, emit, seed=seed))

    async def chat(self, request: ChatRequest, emit: Emit[Piece]) -> None:
        """Continue the chat of a request; errors as of :class:`Turn` and :meth:`CoSDDecoder.astream`."""
        messages, form = [message.to_core() for message in request.messages], request.form()
        call = await self._call(request)

        async def choose(number: int, seed: int | None) -> None:
            turn = await call.decoder_cache.run_in_thread(call.turn, messages, form)
            writer = ChatWriter(number, call, turn, provenance=request.provenance)
            await self._decode(call, [turn.prompt], [writer], emit, seed=seed, grammar=turn.grammar)

        async with asyncio.TaskGroup() as tasks:
            for number, seed in enumerate(request.seeds(call.settings.seed)):
                tasks.create_task(choose(number, seed))

    async def _call(self, request: TextRequest) -> Call:
        options = request.options(self._pair.verifier)
        return await self._pair.decoder_cache.run_in_thread(self._pair.call, options)

    async def _decode(
        self,
        call: Call,
        prompts: Sequence[Any],
        writers: Sequence[ChoiceWriter],
        emit: Emit[Piece],
        **options: Any,
    ) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        async with self._places, aclosing(call.astream(prompts, **given)) as chunks:
            async for chunk in chunks:
                emit((writers[chunk.index], chunk))

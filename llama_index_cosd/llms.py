"""A model pair as a LlamaIndex LLM."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, cast

from llama_index.core.async_utils import asyncio_run
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.loading import RECOGNIZED_LLMS
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from llama_index_cosd.calls import prepare_chat, prepare_completion
from llama_index_cosd.program import CoSDProgram, Options
from llama_index_cosd.responses import ResponseBuilder
from llama_index_cosd.tool_calls import ToolCallingModel

_dispatcher = get_dispatcher(__name__)


class CoSDLLM(ToolCallingModel):
    """Two or more language models behind one LlamaIndex LLM.

    ::

        llm = CoSDLLM(draft_model="org/model-a", assistant_model="org/model-b", alpha=0.5, max_tokens=256)
        Settings.llm = llm
        index.as_query_engine(streaming=True).query("What is the capital of France?")
        llm.as_structured_llm(Person).complete("Anna is 30 years old.").raw

    A pair whose draft has a chat template is a chat model: every model's own template renders the messages,
    ``complete`` makes a user's message of its prompt, and control tokens in messages are text. Any other pair
    is a completion model; its chats have plain headings. ``messages_to_prompt`` and ``completion_to_prompt``,
    if given, write the prompt instead. Every prompt begins with ``system_prompt``, once, except a
    ``formatted`` one.

    Engines and agents pass no options, so set ``stop``, ``max_tokens`` and the like here; each is an option
    of a direct call too. Asynchronous calls never block the event loop, share batches, and stop when
    cancelled; closing a stream stops the work.

    ``raw`` holds usage, finish reason, verifier, statistics and, with ``return_trace``, the trace that
    :func:`cosd_core.explain.to_html` shows, as plain JSON; in a stream the last response has it.

    Raises:
        InvalidOptionError: A parameter is unknown or of a wrong type or value.
    """

    # Completions

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt.

        Args:
            prompt: The prompt.
            formatted: Whether the models get it unchanged.
            **kwargs: Options of the call: any setting that shapes a text, and ``response_format``.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.generate`.
        """
        return prepare_completion(self, prompt, formatted, kwargs).run().completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """:meth:`complete` as a stream of at least one response."""
        return prepare_completion(self, prompt, formatted, kwargs).stream(ResponseBuilder.completion)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """:meth:`complete` for asyncio."""
        call = await self.decoder_cache.run_in_thread(prepare_completion, self, prompt, formatted, kwargs)
        return (await call.arun()).completion()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """:meth:`stream_complete` for asyncio."""
        call = await self.decoder_cache.run_in_thread(prepare_completion, self, prompt, formatted, kwargs)
        return call.astream(ResponseBuilder.completion)

    def complete_batch(
        self, prompts: Sequence[str], formatted: bool = False, **kwargs: Any
    ) -> list[CompletionResponse]:
        """:meth:`complete` for several prompts, which share batches."""
        answers: list[CompletionResponse] = asyncio_run(self.acomplete_batch(prompts, formatted, **kwargs))
        return answers

    async def acomplete_batch(
        self, prompts: Sequence[str], formatted: bool = False, **kwargs: Any
    ) -> list[CompletionResponse]:
        """:meth:`complete_batch` for asyncio."""
        # If more calls waited than the decoder admits, they would fail.
        room = asyncio.Semaphore(self.max_concurrent)

        async def complete(prompt: str) -> CompletionResponse:
            async with room:
                answer: CompletionResponse = await self.acomplete(prompt, formatted, **kwargs)
                return answer

        tasks = [asyncio.ensure_future(complete(prompt)) for prompt in prompts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # after an error nobody reads the other answers
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Chats

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Continue a chat.

        Args:
            messages: The conversation so far.
            **kwargs: Options of the call: any setting that shapes a text, and OpenAI's ``tools``,
                ``tool_choice``, ``parallel_tool_calls``, ``strict`` and ``response_format``. With
                ``continue_final_message=True`` the last message, the assistant's, is continued, and the
                response holds what is new.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.generate`.
        """
        return prepare_chat(self, messages, kwargs).run().chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """:meth:`chat` as a stream of at least one response."""
        return prepare_chat(self, messages, kwargs).stream(ResponseBuilder.chat)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """:meth:`chat` for asyncio."""
        call = await self.decoder_cache.run_in_thread(prepare_chat, self, messages, kwargs)
        return (await call.arun()).chat()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """:meth:`stream_chat` for asyncio."""
        call = await self.decoder_cache.run_in_thread(prepare_chat, self, messages, kwargs)
        return call.astream(ResponseBuilder.chat)

    # Structured prediction

    def structured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Options = None, **prompt_args: Any
    ) -> Model:
        """A value of a pydantic class, valid by construction (:class:`CoSDProgram`).

        Raises:
            IncompleteAnswerError: ``max_new_tokens`` or a stop string cut the answer.
            GenerationError: The class rejects the answer, or decoding failed.
        """
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return cast(Model, super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args))
        _record_start(output_cls, prompt, prompt_args)
        answer = CoSDProgram(output_cls, self, prompt)(llm_kwargs=llm_kwargs, **prompt_args)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=answer))
        return answer

    async def astructured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Options = None, **prompt_args: Any
    ) -> Model:
        """:meth:`structured_predict` for asyncio."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return cast(
                Model, await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            )
        _record_start(output_cls, prompt, prompt_args)
        answer = await CoSDProgram(output_cls, self, prompt).acall(llm_kwargs=llm_kwargs, **prompt_args)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=answer))
        return answer

    def _structured_stream_call(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Options = None, **prompt_args: Any
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return CoSDProgram(output_cls, self, prompt).stream_call(llm_kwargs=llm_kwargs, **prompt_args)

    async def _structured_astream_call(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: Options = None, **prompt_args: Any
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return await CoSDProgram(output_cls, self, prompt).astream_call(llm_kwargs=llm_kwargs, **prompt_args)


def _record_start(cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]) -> None:
    event = LLMStructuredPredictStartEvent(output_cls=cls, template=prompt, template_args=prompt_args)
    _dispatcher.event(event)


RECOGNIZED_LLMS[CoSDLLM.class_name()] = CoSDLLM

"""A model pair as a LlamaIndex LLM."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.agent.react import ReActChatFormatter, ReActOutputParser
from llama_index.core.async_utils import asyncio_run
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.loading import RECOGNIZED_LLMS
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from cosd_core import GenerationError
from cosd_core.errors import quoted
from llama_index_cosd.base import CoSDModel
from llama_index_cosd.calls import PreparedCall
from llama_index_cosd.program import CoSDProgram
from llama_index_cosd.responses import ResponseBuilder

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.tools.types import BaseTool

_dispatcher = get_dispatcher(__name__)


class CoSDLLM(CoSDModel):
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

    ``raw`` holds usage, finish reason, verifier, statistics and, with ``return_trace``, the model that wrote
    each token, as plain JSON; in a stream the last response has it.

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
        return PreparedCall.to_complete(self, prompt, formatted, kwargs).run().completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """:meth:`complete` as a stream of at least one response."""
        call = PreparedCall.to_complete(self, prompt, formatted, kwargs)
        return call.stream(ResponseBuilder.completion)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """:meth:`complete` for asyncio."""
        call = await self.decoder_cache.run_in_thread(
            PreparedCall.to_complete, self, prompt, formatted, kwargs
        )
        return (await call.arun()).completion()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """:meth:`stream_complete` for asyncio."""
        call = await self.decoder_cache.run_in_thread(
            PreparedCall.to_complete, self, prompt, formatted, kwargs
        )
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
        return list(await asyncio.gather(*(self.acomplete(each, formatted, **kwargs) for each in prompts)))

    # Chats

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Continue a chat.

        Args:
            messages: The conversation so far.
            **kwargs: Options of the call: any setting that shapes a text, and OpenAI's ``tools``,
                ``tool_choice``, ``parallel_tool_calls``, ``strict`` and ``response_format``.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.generate`.
        """
        return PreparedCall.to_chat(self, messages, kwargs).run().chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """:meth:`chat` as a stream of at least one response."""
        call = PreparedCall.to_chat(self, messages, kwargs)
        return call.stream(ResponseBuilder.chat)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """:meth:`chat` for asyncio."""
        call = await self.decoder_cache.run_in_thread(PreparedCall.to_chat, self, messages, kwargs)
        return (await call.arun()).chat()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """:meth:`stream_chat` for asyncio."""
        call = await self.decoder_cache.run_in_thread(PreparedCall.to_chat, self, messages, kwargs)
        return call.astream(ResponseBuilder.chat)

    # Tool calls

    def _prepare_chat_with_tools(
        self,
        tools: Sequence["BaseTool"],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002 - nothing is printed
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        return {
            "messages": [*(chat_history or ()), *([user_msg] if user_msg else ())],
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_choice": tool_choice or ("any" if tool_required else "auto"),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,  # noqa: ARG002 - LlamaIndex's signature
    ) -> list[ToolSelection]:
        """The tool calls of an answer; within a stream the incomplete ones too.

        Raises:
            GenerationError: There is none, and ``error_on_no_tool_call``.
        """
        calls = response.message.additional_kwargs.get("tool_calls")
        if calls is None:
            blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
            calls = [
                {"id": each.tool_call_id, "function": {"name": each.tool_name, "arguments": each.tool_kwargs}}
                for each in blocks
            ]
        if not calls and error_on_no_tool_call:
            raise GenerationError(f"the answer calls no tool: {quoted(response.message.content)}")
        return [
            ToolSelection(
                tool_id=call["id"] or "",
                tool_name=call["function"]["name"],
                tool_kwargs=_arguments(call["function"]["arguments"]),
            )
            for call in calls
        ]

    def predict_and_call(self, tools: Sequence["BaseTool"], *args: Any, **kwargs: Any) -> "AgentChatResponse":
        """Run the tool that the models call.

        With ``react_chat_formatter`` or ``output_parser`` a ReAct agent chooses the tool; otherwise the chat
        template shows the tools, whether or not ``is_function_calling_model``.
        """
        if options := _react_options(kwargs):
            return LLM.predict_and_call(self, list(tools), *args, **options)
        return FunctionCallingLLM.predict_and_call(self._as_function_calling(), tools, *args, **kwargs)

    async def apredict_and_call(
        self, tools: Sequence["BaseTool"], *args: Any, **kwargs: Any
    ) -> "AgentChatResponse":
        """:meth:`predict_and_call` for asyncio."""
        if options := _react_options(kwargs):
            return await LLM.apredict_and_call(self, list(tools), *args, **options)
        return await FunctionCallingLLM.apredict_and_call(self._as_function_calling(), tools, *args, **kwargs)

    def _as_function_calling(self) -> "CoSDLLM":
        return self.model_copy(update={"is_function_calling_model": True})

    # Structured prediction

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
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
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """:meth:`structured_predict` for asyncio."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            other = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return cast(Model, other)
        _record_start(output_cls, prompt, prompt_args)
        answer = await CoSDProgram(output_cls, self, prompt).acall(llm_kwargs=llm_kwargs, **prompt_args)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=answer))
        return answer

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return CoSDProgram(output_cls, self, prompt).stream_call(llm_kwargs=llm_kwargs, **prompt_args)

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return await CoSDProgram(output_cls, self, prompt).astream_call(llm_kwargs=llm_kwargs, **prompt_args)


def _arguments(arguments: Any) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = parse_partial_json(arguments)
        except ValueError:
            arguments = {}
    return arguments if isinstance(arguments, dict) else {}


def _react_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a ReAct agent if any is given, else none: LlamaIndex adds no defaults for its agent."""
    if not any(name in options for name in ("react_chat_formatter", "output_parser")):
        return {}
    formatter = options.get("react_chat_formatter") or ReActChatFormatter.from_defaults()
    parser = options.get("output_parser") or ReActOutputParser()
    return {**options, "react_chat_formatter": formatter, "output_parser": parser}


def _record_start(
    output_cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
) -> None:
    _dispatcher.event(
        LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
    )


RECOGNIZED_LLMS[CoSDLLM.class_name()] = CoSDLLM

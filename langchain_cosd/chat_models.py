"""A model pair as a LangChain chat model."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from typing import Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import (
    BaseChatModel,
    LangSmithParams,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from pydantic import BaseModel, ConfigDict, Field

from cosd_core import Chunk, Generation, InvalidOptionError, Turn
from cosd_core.chat.openai_options import answer_schema, named_choice, split_options
from cosd_core.errors import quoted
from cosd_core.frontend.framework_model import ChatFrameworkModel, usage
from langchain_cosd.base import CoSDModel
from langchain_cosd.messages import ChunkWriter, to_core
from langchain_cosd.parsers import json_parser, tool_parser
from langchain_cosd.tools import ToolLike, described_tools, is_no_object, schema_format

Method = Literal["json_schema", "function_calling", "json_mode"]

_PROFILED = ("max_tokens", "max_new_tokens", "draft_model", "assistant_model")
"""Settings that a profile tells of."""


class ChatCoSD(ChatFrameworkModel, CoSDModel, BaseChatModel):
    """Two or more language models that answer a chat together.

    ::

        chat = ChatCoSD(draft_model="org/model-a", assistant_model="org/model-b", max_tokens=256)
        chat.invoke([("system", "Be brief."), ("human", "What is the capital of France?")])
        chat.bind_tools([get_weather]).invoke("What is the weather in Oslo?").tool_calls
        chat.with_structured_output(Person).invoke("Anna is 30 years old.")

    Every model is shown the messages by its own chat template; control tokens in them are text. A model
    without a template is shown plain headings, one whose template knows no tools is told of them in words.

    Tool calls are held to the tools' schemas, and structured output to its schema: a grammar masks every
    model before they are fused. An answer that ``max_tokens`` cut says so (``finish_reason`` is
    ``"length"``), and is never taken for whole: a call becomes an invalid call, and
    :meth:`with_structured_output` raises.

    Every setting is a constructor parameter, and an option of each call. Asynchronous calls never block the
    event loop; cancelling one, or closing a stream, stops the work. ``response_metadata`` holds the finish
    reason, verifier, statistics and, with ``return_trace``, who wrote every token.

    Raises:
        InvalidOptionError: A parameter is unknown or of a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid")

    streaming: bool = Field(
        default=False, description="Answer invoke by streaming, so that callbacks see tokens."
    )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a profile that was made from the settings follows them."""
        follows = name in _PROFILED and self.profile == self._resolve_model_profile()
        super().__setattr__(name, value)
        if follows:
            self.__dict__["profile"] = self._resolve_model_profile()

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the models.

        Args:
            tools: Functions, LangChain tools, pydantic classes, or dictionaries of OpenAI's or Anthropic's
                form.
            tool_choice: ``"auto"`` (None) leaves it to the models, ``"none"`` keeps them from calling,
                ``"any"`` (``"required"``, True) makes them call one, a name, or
                ``{"type": "function", "function": {"name": ...}}``, that one.
            parallel_tool_calls: Whether one answer may hold several calls; None means yes where the models
                are free to call, else no.
            strict: Whether arguments are held to the schemas even where the models are free to call or not.
                None: where a grammar can do that. A call that must be made always is.
            **kwargs: Options of the calls.

        Raises:
            InvalidOptionError: The choice names no tool.
        """
        described = described_tools(tools)
        options = {
            "tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls, "strict": strict,
        }  # fmt: skip
        bound = {name: value for name, value in options.items() if value is not None}
        named_choice(tool_choice, described)
        return self.bind(tools=described, **bound, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer with a value of a schema.

        Args:
            schema: A pydantic class, a ``TypedDict``, a JSON schema or a function as OpenAI describes it.
            method: ``"json_schema"`` masks every model to the schema and tells them of it;
                ``"function_calling"`` makes them call a tool of that schema; ``"json_mode"`` masks them to
                JSON of any kind, and what it should hold is up to your prompt.
            include_raw: Give ``{"raw": message, "parsed": value, "parsing_error": error}`` and raise nothing.
            strict: Accepted for other models' sake: the first two methods are strict anyway.
            **kwargs: Options of the calls.

        Raises:
            InvalidOptionError: The method is unknown, or needs a schema.
            OutputParserException: Later, at a call: the answer was cut, or does not fit ``json_mode``'s
                schema.
        """
        if method not in ("json_schema", "function_calling", "json_mode"):
            raise InvalidOptionError(
                f'method={quoted(method)} should be "json_schema", "function_calling" or "json_mode"'
            )
        if schema is None and method != "json_mode":
            raise InvalidOptionError(f'method="{method}" needs a schema')
        noted = {
            "kwargs": {"method": method, **({} if strict is None else {"strict": strict})},
            "schema": schema,
        }
        if method == "function_calling":
            assert schema is not None
            if is_no_object(schema):
                raise InvalidOptionError(
                    f'schema={quoted(schema)}: functions take objects; method="json_schema" takes any schema'
                )
            (tool,) = described_tools([schema])
            llm = self.bind_tools(
                [tool],
                tool_choice=tool["function"]["name"],
                parallel_tool_calls=False,
                ls_structured_output_format=noted,
                **kwargs,
            )
            parser: Runnable[Any, Any] = tool_parser(schema, tool["function"]["name"])
        else:
            response_format = {"type": "json_object"} if method == "json_mode" else schema_format(schema)
            llm = self.bind(
                response_format=response_format,
                **({} if schema is None else {"ls_structured_output_format": noted}),
                **kwargs,
            )
            parser = json_parser(schema)
        if not include_raw:
            return llm | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[ToolLike] | None = None
    ) -> int:
        """The length of the prompt that the draft is shown for these messages and tools."""
        described = described_tools(tools or ())
        if not messages:
            return 0
        return len(Turn(self._chat(to_core(messages), described), [self._decoder().draft]).prompt.ids[0])

    # What LangChain calls

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - nothing to report on the way
        **kwargs: Any,
    ) -> ChatResult:
        model, asked = self._asked(stop, kwargs)
        turn = model._answering(messages, asked)
        (answer,) = model._answers([turn.prompt], grammar=turn.grammar)
        return model._result(answer, turn)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        model, asked = self._asked(stop, kwargs)
        turn = await model._run_in_thread(
            model._answering, messages, asked
        )  # the first call loads the models
        (answer,) = await model._aanswers([turn.prompt], grammar=turn.grammar)
        return model._result(answer, turn)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain reports tokens itself
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        model, asked = self._asked(stop, kwargs)
        turn = model._answering(messages, asked)
        writer = ChunkWriter(self.output_version)
        with closing(model._stream_chunks(turn.prompt, grammar=turn.grammar)) as chunks:
            for chunk in chunks:
                yield from model._pieces(chunk, turn, writer)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        model, asked = self._asked(stop, kwargs)
        turn = await model._run_in_thread(model._answering, messages, asked)
        writer = ChunkWriter(self.output_version)
        async with aclosing(model._astream_chunks(turn.prompt, grammar=turn.grammar)) as chunks:
            async for chunk in chunks:
                for piece in model._pieces(chunk, turn, writer):
                    yield piece

    def _asked(self, stop: list[str] | None, options: dict[str, Any]) -> tuple["ChatCoSD", dict[str, Any]]:
        """This model with the options of one call, and those that are about the answer's form."""
        others, asked = split_options(options)
        others.pop("stream", None)  # which of our methods to call, and LangChain has called one
        if isinstance(asked.get("response_format"), type):
            asked["response_format"] = schema_format(asked["response_format"])
        return self._with_stop(stop, others), {**asked, "tools": described_tools(asked.get("tools") or ())}

    def _answering(self, messages: list[BaseMessage], asked: Mapping[str, Any]) -> Turn:
        return self._turn(to_core(messages), asked["tools"], asked)

    def _pieces(
        self, piece: Chunk | Generation, turn: Turn, writer: ChunkWriter
    ) -> Iterator[ChatGenerationChunk]:
        """A piece of the answer, or all of it, as LangChain's chunks."""
        for message in writer.write(turn.read(piece)):
            yield ChatGenerationChunk(message=message)
        if (answer := piece if isinstance(piece, Generation) else piece.generation) is None:
            return
        # LangChain adds up what chunks say of themselves, strings too: it is said once, at the end.
        info = {**self._info(answer), "model_provider": "cosd"}
        if info["finish_reason"] == "stop" and writer.called:
            info["finish_reason"] = "tool_calls"
        used = usage([answer])
        counts = UsageMetadata(
            input_tokens=used["prompt_tokens"],
            output_tokens=used["completion_tokens"],
            total_tokens=used["total_tokens"],
        )
        last = AIMessageChunk(
            content="", response_metadata=info, usage_metadata=counts, chunk_position="last"
        )
        yield ChatGenerationChunk(message=last)

    def _result(self, answer: Generation, turn: Turn) -> ChatResult:
        writer = ChunkWriter(self.output_version)
        (added,) = generate_from_stream(self._pieces(answer, turn, writer)).generations
        message = writer.whole(cast(AIMessage, added.message))
        told = {"token_usage": usage([answer]), "model_name": self.model_name}
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output=told)

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            temperature=True,
            open_weights=True,
            max_output_tokens=self.max_new_tokens,
        )
        if (length := self.known_context_length()) is not None:
            profile["max_input_tokens"] = max(length - self.max_new_tokens, 0)
        return profile

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """What LangChain's caches tell calls apart by: settings, options, and the answer's form."""
        model, asked = self._asked(stop, kwargs)
        form = {**asked, "response_format": answer_schema(asked.get("response_format"))}
        return json.dumps([self._llm_type, model._identifying_params, form], sort_keys=True, default=str)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        model, _ = self._asked(stop, {name: kwargs[name] for name in kwargs if name != "model"})
        return model._tracing_params("chat", kwargs.get("model"))

    @property
    def _llm_type(self) -> str:
        return "cosd-chat"

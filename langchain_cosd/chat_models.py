"""A model pair as a LangChain chat model."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from cosd_core import ChatOptions, Generation, Turn
from cosd_core.chat.openai_options import answer_schema, named_choice, split_options
from cosd_core.frontend.call import Call, token_usage
from cosd_core.options import SECRET_OPTIONS
from langchain_cosd.base import AsyncRun, Run, Stop
from langchain_cosd.chat_lists import ChatListCalls
from langchain_cosd.chunk_writer import ChunkWriter
from langchain_cosd.messages import to_core
from langchain_cosd.structured_output import Method, structured_output, with_raw
from langchain_cosd.tools import ToolLike, described_tools, schema_format

Messages = list[BaseMessage]

_PROFILE_SETTINGS = ("max_tokens", "max_new_tokens", "draft_model", "assistant_model")
"""The settings that a profile is made from."""


class ChatCoSD(ChatOptions, ChatListCalls):
    """Two or more language models that continue a chat together.

    ::

        chat = ChatCoSD(draft_model="org/model-a", assistant_model="org/model-b", max_tokens=256)
        chat.invoke([("system", "Be brief."), ("human", "What is the capital of France?")])
        chat.bind_tools([get_weather]).invoke("What is the weather in Oslo?").tool_calls
        chat.with_structured_output(Person).invoke("Anna is 30 years old.")

    The prompt of every model is rendered by its own chat template; control tokens in messages are text. For
    a model without a template the prompt has plain headings; for one whose template does not support tools
    the system message describes them.

    Tool calls follow the tools' schemas, and structured output its schema: a grammar masks the logits of
    every model before they are fused. An answer that ``max_tokens`` cut has the ``finish_reason``
    ``"length"`` and is never parsed as a whole one: a call becomes an invalid call, and
    :meth:`with_structured_output` raises.

    Every setting is a constructor parameter; those that do not load models are options of each call, too.
    Asynchronous calls never block the event loop; cancelling one, or closing a stream, stops the work.
    ``response_metadata`` holds the finish reason, verifier, statistics, with ``logprobs`` those of every
    token in OpenAI's form, and with ``return_trace`` the trace that :func:`cosd_core.explain.to_html` shows.
    With ``continue_final_message=True`` a call continues the last message, the assistant's; its answer is
    what is new.

    Raises:
        InvalidOptionError: A parameter is unknown or of a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid", frozen=False)
    _ls_model_type = "chat"

    streaming: bool = Field(
        default=False, description="Run invoke as a stream, so that callbacks receive tokens."
    )

    # LangChain's standard tests pass it to every chat model; no connection can fail here.
    max_retries: int = Field(
        default=2, ge=0, description="Has no effect: there is no connection that could fail."
    )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, and update a profile that was made from the settings."""
        is_derived = name in _PROFILE_SETTINGS and self.profile == self._resolve_model_profile()
        super().__setattr__(name, value)
        if is_derived:
            self.profile = self._resolve_model_profile()

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
            tool_choice: ``"auto"`` (None) permits calls, ``"none"`` forbids them, ``"any"``
                (``"required"``, True) requires a call; a name, or
                ``{"type": "function", "function": {"name": ...}}``, requires a call of that tool.
            parallel_tool_calls: Whether one answer may hold several calls. None: yes if no call is required.
            strict: Whether the arguments of calls must match the tools' schemas. A grammar enforces most
                keywords; a call that breaks another one is among the ``invalid_tool_calls``. False: only
                those of a required call must.
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
            method: ``"json_schema"`` masks the models to the schema, which the prompt includes;
                ``"function_calling"`` requires a call of a tool with that schema; ``"json_mode"`` masks the
                models to a JSON object of any schema, which your prompt should describe.
            include_raw: Return ``{"raw": message, "parsed": value, "parsing_error": error}``; raise nothing.
            strict: No effect, for compatibility: the first two methods are always strict.
            **kwargs: Options of the calls.

        Raises:
            InvalidOptionError: The method is unknown, or needs a schema.
            OutputParserException: At a call: the answer was cut, breaks a rule of the schema that the grammar
                cannot enforce, or the class refuses it.
        """
        llm, parser = structured_output(self, schema, method, strict, kwargs)
        return with_raw(llm, parser) if include_raw else llm | parser

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[ToolLike] | None = None
    ) -> int:
        """The number of tokens in the draft's prompt for these messages and tools."""
        form = {"tools": described_tools(tools or ())}
        return len(self._call().turn(to_core(messages), form).prompt.ids[0]) if messages else 0

    # The hooks of BaseChatModel, which itself reports tokens and results to the run manager

    @override
    def _generate(
        self, messages: Messages, stop: Stop = None, run_manager: Run = None, **kwargs: Any
    ) -> ChatResult:
        call, form = self._call_for(stop, kwargs)
        turn = call.turn(to_core(messages), form)
        (generation,) = call.generate([turn.prompt], grammar=turn.grammar)
        return self._result(call, generation, turn)

    @override
    async def _agenerate(
        self, messages: Messages, stop: Stop = None, run_manager: AsyncRun = None, **kwargs: Any
    ) -> ChatResult:
        call, form = self._call_for(stop, kwargs)
        turn = await call.decoder_cache.run_in_thread(call.turn, to_core(messages), form)
        (generation,) = await call.agenerate([turn.prompt], grammar=turn.grammar)
        return self._result(call, generation, turn)

    @override
    def _stream(
        self, messages: Messages, stop: Stop = None, run_manager: Run = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        call, form = self._call_for(stop, kwargs)
        turn = call.turn(to_core(messages), form)
        writer = ChunkWriter(call, turn, self.output_version)
        with closing(call.stream(turn.prompt, grammar=turn.grammar)) as chunks:
            for chunk in chunks:
                yield from writer.write(chunk)

    @override
    async def _astream(
        self, messages: Messages, stop: Stop = None, run_manager: AsyncRun = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        call, form = self._call_for(stop, kwargs)
        turn = await call.decoder_cache.run_in_thread(call.turn, to_core(messages), form)
        writer = ChunkWriter(call, turn, self.output_version)
        async with aclosing(call.astream(turn.prompt, grammar=turn.grammar)) as chunks:
            async for chunk in chunks:
                for converted in writer.write(chunk):
                    yield converted

    def _call_for(self, stop: Stop, options: dict[str, Any]) -> tuple[Call, dict[str, Any]]:
        """A call with these options, and those of them that determine the form of the answer."""
        others, form = split_options(options)
        others.pop("stream", None)  # LangChain has chosen the method by it
        if isinstance(form.get("response_format"), type):
            form["response_format"] = schema_format(form["response_format"])
        form["tools"] = described_tools(form.get("tools") or ())
        return self._with_stop(stop, others)._call(), form

    def _result(self, call: Call, generation: Generation, turn: Turn) -> ChatResult:
        writer = ChunkWriter(call, turn, self.output_version)
        (merged,) = generate_from_stream(writer.write(generation)).generations
        message = writer.with_errors(cast(AIMessage, merged.message))
        output = {"token_usage": token_usage([generation]), "model_name": call.settings.model_name}
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output=output)

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            text_inputs=True, text_outputs=True, image_inputs=False, audio_inputs=False, video_inputs=False,
            tool_calling=True, tool_choice=True, tool_call_streaming=True, structured_output=True,
            temperature=True, open_weights=True, max_output_tokens=self.max_new_tokens,
        )  # fmt: skip
        if (context_length := self._source_settings().known_context_length()) is not None:
            profile["max_input_tokens"] = max(context_length - self.max_new_tokens, 0)
        return profile

    def _get_invocation_params(self, stop: Stop = None, **kwargs: Any) -> dict[str, Any]:
        """What traces record of a call, before its options are validated."""
        public = {name: kwargs[name] for name in kwargs if self.aliases.get(name, name) not in SECRET_OPTIONS}
        return super()._get_invocation_params(stop, **public)

    def _get_llm_string(self, stop: Stop = None, **kwargs: Any) -> str:
        """The part of LangChain's cache key besides the messages: settings, options, form of the answer."""
        call, form = self._call_for(stop, kwargs)
        form["response_format"] = answer_schema(form.get("response_format"))
        return json.dumps([self._llm_type, call.settings.identity, form], sort_keys=True, default=str)

    @property
    def _llm_type(self) -> str:
        return "cosd-chat"

"""Tool calls of a LlamaIndex LLM."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.agent.react import ReActChatFormatter, ReActOutputParser
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from typing_extensions import override

from cosd_core import GenerationError
from cosd_core.errors import quoted
from llama_index_cosd.base import CoSDModel

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.tools.types import BaseTool


class ToolCallingModel(CoSDModel):
    """An LLM whose chat template shows the tools, and whose answers hold calls of them."""

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

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of an answer; within a stream the incomplete ones too.

        Raises:
            GenerationError: There is none, and ``error_on_no_tool_call``.
        """
        calls = response.message.additional_kwargs.get("tool_calls")
        if calls is None:
            calls = [
                {"id": each.tool_call_id, "function": {"name": each.tool_name, "arguments": each.tool_kwargs}}
                for each in response.message.blocks
                if isinstance(each, ToolCallBlock)
            ]
        if not calls and error_on_no_tool_call:
            invalid = "; ".join(response.additional_kwargs.get("invalid_tool_calls", ()))
            reason = f"the tool call is invalid: {invalid}" if invalid else "the answer calls no tool"
            raise GenerationError(f"{reason}: {quoted(response.message.content)}")
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

    def _as_function_calling(self) -> Self:
        return self.model_copy(update={"is_function_calling_model": True})


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

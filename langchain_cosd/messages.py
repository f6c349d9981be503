"""Between LangChain's messages and the core's: chats on the way in, events of an answer on the way out."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call_chunk

from cosd_core import InvalidPromptError
from cosd_core.chat.events import (
    CallDelta,
    CallEnd,
    CallStart,
    Event,
    InvalidCall,
    ReasoningDelta,
    TextDelta,
)
from cosd_core.errors import quoted

_ROLES = {SystemMessage: "system", HumanMessage: "user", AIMessage: "assistant"}
_TEXT = {"text": "text", "text-plain": "text", "output_text": "text", "refusal": "refusal"}
"""Parts that are text, and the key it stands under."""

_THOUGHTS = ("reasoning", "thinking")
_NOT_SPOKEN = (
    *_THOUGHTS,
    "redacted_thinking",
    "tool_use",
    "tool_call",
    "invalid_tool_call",
    "tool_call_chunk",
    "function_call",
    "server_tool_call",
    "server_tool_call_chunk",
    "server_tool_result",
    "server_tool_use",
    "web_search_tool_result",
    "non_standard",
)
"""Parts of an assistant's content that are told elsewhere in the message, or that only its provider reads."""


def to_core(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """LangChain's messages as the core's chats take them.

    Raises:
        InvalidPromptError: A message holds what is no text, or is of an unknown kind.
    """
    return [each for message in messages for each in _to_core(message)]


def _to_core(message: BaseMessage) -> list[dict[str, Any]]:
    if isinstance(message, (ToolMessage, FunctionMessage)):
        return [_result(message.content, getattr(message, "tool_call_id", None), message)]
    if isinstance(message, ChatMessage):
        return [{"role": message.role, "content": _texts(message.content)}]
    role = next((role for kind, role in _ROLES.items() if isinstance(message, kind)), None)
    if role is None:
        raise InvalidPromptError(f"a {type(message).__name__} is no message for a model: {quoted(message)}")
    parts = message.content if isinstance(message.content, list) else [message.content]
    results = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"]
    spoken = [part for part in parts if part not in results]
    told = [_result(part.get("content"), part.get("tool_use_id"), part) for part in results]
    if results and not spoken:
        return told
    read: dict[str, Any] = {"role": role, "content": _texts(spoken)}
    if message.name:
        read["name"] = message.name
    return [*told, {**read, **_of_the_assistant(message, read)} if isinstance(message, AIMessage) else read]


def _result(content: Any, number: str | None, message: Any) -> dict[str, Any]:
    failed = (
        message.get("is_error") if isinstance(message, dict) else getattr(message, "status", "") == "error"
    )
    parts = _texts(content)
    if failed and not (parts and isinstance(parts[0], dict) and _says_error(parts[0])):
        parts = [{"type": "text", "text": "Error: "}, *parts]
    read = {"role": "tool", "content": parts, **({"tool_call_id": number} if number else {})}
    name = None if isinstance(message, dict) else message.name
    return {**read, "name": name} if name else read


def _says_error(part: dict[str, Any]) -> bool:
    return str(part.get("text")).startswith("Error")


def _texts(content: Any) -> list[dict[str, Any]]:
    """Content as a list of parts; what is no text is left for the core to refuse."""
    parts = content if isinstance(content, list) else [content or ""]
    read = []
    for part in parts:
        if isinstance(part, str):
            read.append({"type": "text", "text": part})
        elif isinstance(part, dict) and isinstance(part.get(_TEXT.get(str(part.get("type")), "")), str):
            read.append({"type": "text", "text": part[_TEXT[part["type"]]]})
        elif not (isinstance(part, dict) and part.get("type") in _NOT_SPOKEN):
            read.append(part)
    return read


def _of_the_assistant(message: AIMessage, read: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if message.tool_calls:
        more["tool_calls"] = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if broken := [call["args"] or "" for call in message.invalid_tool_calls]:
        more["content"] = [*read["content"], *({"type": "text", "text": text} for text in broken)]
    parts = message.content if isinstance(message.content, list) else []
    thoughts = [part[part["type"]] for part in parts if isinstance(part, dict) and _is_thought(part)]
    if not thoughts and isinstance(told := message.additional_kwargs.get("reasoning_content"), str):
        thoughts = [told]
    return {**more, "reasoning_content": "".join(thoughts)} if thoughts else more


def _is_thought(part: dict[str, Any]) -> bool:
    return part.get("type") in _THOUGHTS and isinstance(part.get(part["type"]), str)


class ChunkWriter:
    """The events of one answer as message chunks that add up to LangChain's message.

    Blocks of content are numbered in their order, since LangChain merges blocks of equal numbers.
    """

    def __init__(self, output_version: str | None) -> None:
        self._as_blocks = output_version == "v1"
        self._block, self._kind = -1, ""
        self._calls: dict[int, tuple[str, int]] = {}  # id and block by the call's number
        self._written: dict[int, str] = {}
        self._broken: dict[str | None, tuple[str, str]] = {}  # text and error by id

    def write(self, events: Sequence[Event]) -> list[AIMessageChunk]:
        """The chunks that tell of these events."""
        return [chunk for event in events if (chunk := self._chunk(event)) is not None]

    @property
    def called(self) -> bool:
        """Whether the answer calls a tool."""
        return len(self._calls) > len(self._broken)

    def whole(self, message: AIMessage) -> AIMessage:
        """The message that all chunks add up to, with what was wrong with its broken calls."""
        if not message.invalid_tool_calls:
            return message
        broken: dict[Any, Any] = {call["id"]: self._invalid(call) for call in message.invalid_tool_calls}
        content = message.content
        if isinstance(content, list):
            content = [broken.get(part.get("id"), part) for part in content if isinstance(part, dict)]
        return message.model_copy(update={"invalid_tool_calls": [*broken.values()], "content": content})

    def _invalid(self, call: InvalidToolCall) -> InvalidToolCall:
        text, error = self._broken[call["id"]]
        return {**call, "args": text, "error": error}

    def _chunk(self, event: Event) -> AIMessageChunk | None:
        match event:
            case TextDelta(text):
                block = {"type": "text", "text": text, "index": self._number("text")}
                return self._as_block(block) if self._as_blocks else AIMessageChunk(content=text)
            case ReasoningDelta(text):
                block = {"type": "reasoning", "reasoning": text, "index": self._number("reasoning")}
                if self._as_blocks:
                    return self._as_block(block)
                return AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
            case CallStart(at, name):
                return self._call(at, name, "")
            case CallDelta(at, arguments):
                self._written[at] += arguments
                return self._call(at, None, arguments)
            case InvalidCall(at, text, error):
                chunk = self._call(at, None, _spoiling(self._written.get(at, text), begun=at in self._calls))
                self._broken[self._calls[at][0]] = (text, error)
                return chunk
            case CallEnd():
                return None  # its name and arguments have been told

    def _call(self, at: int, name: str | None, arguments: str) -> AIMessageChunk:
        is_new = at not in self._calls
        if is_new:
            # Nine letters and digits: what Mistral's templates ask for, and others take.
            self._calls[at] = (uuid4().hex[:9], self._number(f"call {at}"))
            self._written[at] = ""
        number, block = self._calls[at]
        piece = tool_call_chunk(name=name, args=arguments, id=number if is_new else None, index=block)
        if self._as_blocks:
            return self._as_block({**piece, "type": "tool_call_chunk"}, tool_call_chunks=[piece])
        return AIMessageChunk(content="", tool_call_chunks=[piece])

    def _as_block(self, block: dict[str, Any], **more: Any) -> AIMessageChunk:
        return AIMessageChunk(content=[block], response_metadata={"output_version": "v1"}, **more)

    def _number(self, kind: str) -> int:
        if kind != self._kind:
            self._block, self._kind = self._block + 1, kind
        return self._block


def _spoiling(arguments: str, *, begun: bool) -> str:
    """What makes LangChain see that a call is broken; arguments that have not been told come first.

    It reads JSON that is merely cut off as if it were whole. A bracket that closes what nothing opened is
    what it takes for broken.
    """
    is_text = is_escaped = False
    open_brackets: list[str] = []
    for character in arguments:
        if is_text:
            is_text = character != '"' or is_escaped
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_text = True
        elif character in "{[":
            open_brackets.append(character)
        elif character in "}]" and open_brackets:
            open_brackets.pop()
    wrong = "}" if open_brackets[-1:] == ["["] else "]"
    end = ("\\" if is_escaped else "") + ('"' if is_text else "") + wrong
    return end if begun else arguments + end

"""LangChain's messages as the core's chats take them."""

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from cosd_core import InvalidPromptError
from cosd_core.errors import quoted

_ROLES = {SystemMessage: "system", HumanMessage: "user", AIMessage: "assistant"}
_TEXT_KEYS = {"text": "text", "text-plain": "text", "output_text": "text", "refusal": "refusal"}
"""The types of text parts, and the key of the text."""

_REASONING_TYPES = ("reasoning", "thinking")
_IGNORED_TYPES = (
    *_REASONING_TYPES, "redacted_thinking", "tool_use", "tool_call", "invalid_tool_call", "tool_call_chunk",
    "function_call", "server_tool_call", "server_tool_call_chunk", "server_tool_result", "server_tool_use",
    "web_search_tool_result", "non_standard",
)  # fmt: skip
"""Parts whose content is also in another field of the message, or that only one provider can use."""


def to_core(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Convert messages to the dictionaries that :class:`cosd_core.Chat` takes."""
    return [converted for message in messages for converted in _to_core(message)]


def _to_core(message: BaseMessage) -> list[dict[str, Any]]:
    if isinstance(message, (ToolMessage, FunctionMessage)):
        return [_tool_result(message.content, getattr(message, "tool_call_id", None), message)]
    if isinstance(message, ChatMessage):
        return [{"role": message.role, "content": _text_parts(message.content)}]
    role = next((role for kind, role in _ROLES.items() if isinstance(message, kind)), None)
    if role is None:
        raise InvalidPromptError(f"a {type(message).__name__} is no message for a model: {quoted(message)}")
    parts = message.content if isinstance(message.content, list) else [message.content]
    results = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"]
    others = [part for part in parts if part not in results]
    converted = [_tool_result(part.get("content"), part.get("tool_use_id"), part) for part in results]
    if results and not others:
        return converted
    main: dict[str, Any] = {"role": role, "content": _text_parts(others)}
    if message.name:
        main["name"] = message.name
    if isinstance(message, AIMessage):
        main |= _assistant_fields(message, main)
    return [*converted, main]


def _tool_result(content: Any, call_id: str | None, message: Any) -> dict[str, Any]:
    if isinstance(message, dict):
        failed, name = message.get("is_error"), None
    else:
        failed, name = getattr(message, "status", "") == "error", message.name
    parts = _text_parts(content)
    is_marked = bool(parts) and isinstance(parts[0], dict) and str(parts[0].get("text")).startswith("Error")
    if failed and not is_marked:
        parts = [{"type": "text", "text": "Error: "}, *parts]
    optional = {"tool_call_id": call_id, "name": name}
    return {"role": "tool", "content": parts, **{key: value for key, value in optional.items() if value}}


def _text_parts(content: Any) -> list[dict[str, Any]]:
    """The text parts of a content; a part of an unknown type is kept, and the core refuses it."""
    converted = []
    for part in content if isinstance(content, list) else [content or ""]:
        if isinstance(part, str):
            converted.append({"type": "text", "text": part})
        elif isinstance(part, dict) and isinstance(part.get(_TEXT_KEYS.get(str(part.get("type")), "")), str):
            converted.append({"type": "text", "text": part[_TEXT_KEYS[part["type"]]]})
        elif not (isinstance(part, dict) and part.get("type") in _IGNORED_TYPES):
            converted.append(part)
    return converted


def _assistant_fields(message: AIMessage, main: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if invalid := [call["args"] or "" for call in message.invalid_tool_calls]:
        fields["content"] = [*main["content"], *({"type": "text", "text": text} for text in invalid)]
    parts = message.content if isinstance(message.content, list) else []
    reasoning = [part[part["type"]] for part in parts if isinstance(part, dict) and _is_reasoning(part)]
    if not reasoning and isinstance(text := message.additional_kwargs.get("reasoning_content"), str):
        reasoning = [text]
    return {**fields, "reasoning_content": "".join(reasoning)} if reasoning else fields


def _is_reasoning(part: dict[str, Any]) -> bool:
    return part.get("type") in _REASONING_TYPES and isinstance(part.get(part["type"]), str)

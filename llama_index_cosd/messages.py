"""LlamaIndex's messages as the core's chats take them."""

from collections.abc import Iterable
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from cosd_core import InvalidPromptError
from cosd_core.errors import quoted

_ROLES = {
    **{role: role.value for role in MessageRole},
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}


def to_core(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Convert messages to the dictionaries that :class:`cosd_core.Chat` takes."""
    return [_to_core(message) for message in messages]


def _to_core(message: ChatMessage) -> dict[str, Any]:
    if not isinstance(message, ChatMessage):
        raise InvalidPromptError(f"{quoted(message)} should be a ChatMessage")
    role = _ROLES[message.role]
    texts = [text for block in message.blocks for text in _texts(block)]
    # ChatMessage.content joins its blocks by newlines too.
    converted: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    fields = message.additional_kwargs
    if role == "tool":
        converted |= {key: str(fields[key]) for key in ("tool_call_id", "name") if fields.get(key)}
    if role != "assistant":
        return converted
    if reasoning := [block.content for block in message.blocks if isinstance(block, ThinkingBlock)]:
        converted["reasoning_content"] = "\n".join(each for each in reasoning if each)
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = [_call(each.tool_call_id, each.tool_name, each.tool_kwargs) for each in blocks]
    if calls := calls or [_call_of_openai(each) for each in fields.get("tool_calls") or ()]:
        converted["tool_calls"] = calls
    return converted


def _texts(block: Any) -> list[str]:
    match block:
        case TextBlock():
            return [block.text]
        case CitableBlock():
            return [text for each in block.content for text in _texts(each)]
        case CitationBlock():
            return _texts(block.cited_content)
        case ThinkingBlock() | ToolCallBlock() | CachePoint():
            return []  # the first two become other fields; the third holds no content
    kind = type(block).__name__
    raise InvalidPromptError(f"a message holds a block of type {kind}; these models read text only")


def _call(call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    call = {"function": {"name": name, "arguments": arguments or {}}}
    return {**call, "id": call_id} if call_id else call


def _call_of_openai(call: Any) -> dict[str, Any]:
    """A call in OpenAI's form, as a dictionary or an object."""
    fields = call if isinstance(call, dict) else call.model_dump() if hasattr(call, "model_dump") else {}
    function = fields.get("function") or {}
    return _call(fields.get("id"), function.get("name"), function.get("arguments"))

"""Between LlamaIndex's messages and the core's: chats on the way in, events of an answer on the way out."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from cosd_core import Chunk, Generation, InvalidPromptError, TracedToken
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

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def to_core(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """LlamaIndex's messages as the core's chats take them.

    Raises:
        InvalidPromptError: A message holds what is no text, or is none.
    """
    return [_to_core(message) for message in messages]


def _to_core(message: ChatMessage) -> dict[str, Any]:
    if not isinstance(message, ChatMessage):
        raise InvalidPromptError(f"{quoted(message)} should be a ChatMessage")
    role = _ROLES[message.role]
    texts = [text for block in message.blocks for text in _texts(block)]
    # ChatMessage.content joins its blocks so.
    read: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    more = message.additional_kwargs
    if role == "tool":
        read |= {key: str(more[key]) for key in ("tool_call_id", "name") if more.get(key)}
    if role != "assistant":
        return read
    if thoughts := [block.content for block in message.blocks if isinstance(block, ThinkingBlock)]:
        read["reasoning_content"] = "\n".join(each for each in thoughts if each)
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = [_call(each.tool_call_id, each.tool_name, each.tool_kwargs) for each in blocks]
    if calls := calls or [_call_of_openai(each) for each in more.get("tool_calls") or ()]:
        read["tool_calls"] = calls
    return read


def _texts(block: Any) -> list[str]:
    match block:
        case TextBlock():
            return [block.text]
        case CitableBlock():
            return [text for each in block.content for text in _texts(each)]
        case CitationBlock():
            return _texts(block.cited_content)
        case ThinkingBlock() | ToolCallBlock() | CachePoint():
            return []  # told elsewhere in the message, or to nobody
    kind = type(block).__name__
    raise InvalidPromptError(f"a message holds a block of type {kind}; these models read text only")


def _call(number: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    call = {"function": {"name": name, "arguments": arguments or {}}}
    return {**call, "id": number} if number else call


def _call_of_openai(call: Any) -> dict[str, Any]:
    """A call as OpenAI writes it, a dictionary or an object."""
    read = call if isinstance(call, dict) else call.model_dump() if hasattr(call, "model_dump") else {}
    function = read.get("function") or {}
    return _call(read.get("id"), function.get("name"), function.get("arguments"))


@dataclass
class _Call:
    """A tool call while it is written; ``whole`` once it is."""

    name: str
    number: str = field(default_factory=lambda: uuid4().hex[:9])  # what Mistral's templates ask for
    arguments: str = ""
    whole: dict[str, Any] | None = None


class Answer:
    """An answer while it is written, and what it is in LlamaIndex's words at any moment.

    A broken call is no call: what it says becomes part of the answer's text, and is never taken for whole.
    """

    def __init__(self, read: Callable[[Chunk | Generation], Sequence[Event]], *, logprobs: bool) -> None:
        """Begin with an empty answer.

        Args:
            read: What a piece of the text tells.
            logprobs: Whether to tell the tokens' probabilities.
        """
        self._read = read
        self._logprobs: list[list[LogProb]] | None = [] if logprobs else None
        self._calls: dict[int, _Call] = {}
        self._text = self._delta = self._thoughts = self._thought = ""
        self._errors: list[str] = []
        self._raw: dict[str, Any] | None = None

    def add(self, piece: Chunk | Generation) -> None:
        """Take a piece of the text, or all of it."""
        before, thought = len(self._text), len(self._thoughts)
        for event in self._read(piece):
            self._take(event)
        self._delta, self._thought = self._text[before:], self._thoughts[thought:]
        if self._logprobs is not None:
            self._logprobs += map(_logprobs, piece.tokens)

    def end(self, told: dict[str, Any], usage: dict[str, int]) -> None:
        """Take what is told about the answer besides its text."""
        if self._calls and told["finish_reason"] == "stop":
            told = {**told, "finish_reason": "tool_calls"}
        self._raw = {**told, "usage": usage}

    def completion(self) -> CompletionResponse:
        """The answer as a text."""
        return CompletionResponse(text=self._text, **self._response())

    def chat(self) -> ChatResponse:
        """The answer as a message, with blocks for thoughts, text and whole calls.

        ``additional_kwargs["tool_calls"]`` has the calls as OpenAI writes them, in a stream those that are
        not whole yet too: LlamaIndex's programs read them there.
        """
        blocks: list[Any] = [ThinkingBlock(content=self._thoughts)] if self._thoughts else []
        if self._text or not self._calls:
            blocks.append(TextBlock(text=self._text))
        calls = list(self._calls.values())
        blocks += [
            ToolCallBlock(tool_call_id=call.number, tool_name=call.name, tool_kwargs=call.whole)
            for call in calls
            if call.whole is not None
        ]
        more = {"tool_calls": [_openai(call) for call in calls]} if calls else {}
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=more)
        return ChatResponse(message=message, **self._response())

    def _response(self) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self._raw:
            more = {**self._raw["usage"], "finish_reason": self._raw["finish_reason"]}
        if self._errors:
            more["invalid_tool_calls"] = list(self._errors)
        if self._thought:
            more["thinking_delta"] = self._thought
        logprobs = None if self._logprobs is None else list(self._logprobs)
        return {"raw": self._raw, "additional_kwargs": more, "delta": self._delta, "logprobs": logprobs}

    def _take(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._text += text
            case ReasoningDelta(text):
                self._thoughts += text
            case CallStart(at, name):
                self._calls[at] = _Call(name)
            case CallDelta(at, arguments):
                self._calls[at].arguments += arguments
            case CallEnd(at, name, arguments):
                call = self._calls.setdefault(at, _Call(name))
                call.whole, call.arguments = arguments, json.dumps(arguments, ensure_ascii=False)
            case InvalidCall(at, text, error):
                self._calls.pop(at, None)
                self._text += text
                self._errors.append(error)


def _openai(call: _Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.number, "type": "function", "function": function}


def _logprobs(token: TracedToken) -> list[LogProb]:
    """The token that stands, then the one that lost, each with its writer's confidence."""
    stands, lost = (token.p, token.q) if token.source == "draft" else (token.q, token.p)
    told = [_logprob(token.text, stands)]
    if token.other_text:
        told.append(_logprob(token.other_text, lost))
    return told


def _logprob(text: str, confidence: float | None) -> LogProb:
    # The smallest float instead of nothing: a token that was drawn may round to probability 0.
    value = math.log(max(confidence or 0.0, 5e-324))
    return LogProb(token=text, logprob=value, bytes=list(text.encode()))

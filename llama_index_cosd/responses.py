"""The events of an answer as LlamaIndex's responses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from cosd_core import Chunk, Generation, TracedToken, Verifier
from cosd_core.chat import events
from cosd_core.chat.events import Event
from cosd_core.frontend.call import Call, token_usage
from cosd_core.frontend.logprobs import known_logprobs


@dataclass
class _ToolCall:
    """A tool call, perhaps incomplete; ``parsed`` holds the arguments of a complete one."""

    name: str
    call_id: str = field(default_factory=lambda: uuid4().hex[:9])  # the form that Mistral's templates require
    arguments: str = ""
    parsed: dict[str, Any] | None = None


class ResponseBuilder:
    """Accumulates the events of one answer, and returns the response so far.

    ``read`` converts a chunk, or the whole generation, to events. The text of an invalid call becomes part of
    the answer's text.
    """

    def __init__(self, call: Call, read: Callable[[Chunk | Generation], Sequence[Event]]) -> None:
        self._call = call
        self._read = read
        self._logprobs: list[list[LogProb]] | None = [] if call.settings.logprobs else None
        self._calls: dict[int, _ToolCall] = {}
        self._text = self._delta = self._reasoning = self._reasoning_delta = ""
        self._errors: list[str] = []
        self._schema_error: str | None = None
        self._raw: dict[str, Any] | None = None

    def add(self, piece: Chunk | Generation) -> Self:
        """Add a chunk, or the whole generation."""
        before, reasoning_before = len(self._text), len(self._reasoning)
        for event in self._read(piece):
            self._add_event(event)
        self._delta, self._reasoning_delta = self._text[before:], self._reasoning[reasoning_before:]
        if self._logprobs is not None:
            verifier = self._call.settings.method()["verifier"]
            self._logprobs += [_logprobs(token, verifier) for token in piece.tokens]
        if generation := piece if isinstance(piece, Generation) else piece.generation:
            self._raw = {**self._call.info(generation), "usage": token_usage([generation])}
            if self._calls and generation.finish_reason == "stop":
                self._raw["finish_reason"] = "tool_calls"
            if self._schema_error is not None:
                self._raw["schema_error"] = self._schema_error
        return self

    def completion(self) -> CompletionResponse:
        """The answer as text."""
        return CompletionResponse(text=self._text, **self._response_fields())

    def chat(self) -> ChatResponse:
        """The answer as a message, with blocks for reasoning, text and complete calls.

        ``additional_kwargs["tool_calls"]`` has the calls in OpenAI's form, in a stream the incomplete ones
        too: LlamaIndex's programs read them there.
        """
        blocks: list[Any] = [ThinkingBlock(content=self._reasoning)] if self._reasoning else []
        if self._text or not self._calls:
            blocks.append(TextBlock(text=self._text))
        calls = list(self._calls.values())
        blocks += [
            ToolCallBlock(tool_call_id=call.call_id, tool_name=call.name, tool_kwargs=call.parsed)
            for call in calls
            if call.parsed is not None
        ]
        fields = {"tool_calls": [_openai(call) for call in calls]} if calls else {}
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=fields)
        return ChatResponse(message=message, **self._response_fields())

    def _response_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self._raw:
            fields = {**self._raw["usage"], "finish_reason": self._raw["finish_reason"]}
        if self._errors:
            fields["invalid_tool_calls"] = list(self._errors)
        if self._reasoning_delta:
            fields["thinking_delta"] = self._reasoning_delta
        logprobs = None if self._logprobs is None else list(self._logprobs)
        return {"raw": self._raw, "additional_kwargs": fields, "delta": self._delta, "logprobs": logprobs}

    def _add_event(self, event: Event) -> None:
        match event:
            case events.TextDelta(text):
                self._text += text
            case events.ReasoningDelta(text):
                self._reasoning += text
            case events.CallStart(at, name):
                self._calls[at] = _ToolCall(name)
            case events.CallDelta(at, arguments):
                self._calls[at].arguments += arguments
            case events.CallEnd(at, name, arguments):
                call = self._calls.setdefault(at, _ToolCall(name))
                call.parsed, call.arguments = arguments, json.dumps(arguments, ensure_ascii=False)
            case events.InvalidCall(at, text, error):
                self._calls.pop(at, None)
                self._text += text
                self._errors.append(error)
            case events.InvalidAnswer(error):
                self._schema_error = error


def _openai(call: _ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _logprobs(token: TracedToken, verifier: Verifier) -> list[LogProb]:
    """The accepted token, then the rejected one, each with the confidence of its own model."""
    return [
        LogProb(token=text, logprob=logprob, bytes=list(text.encode()))
        for text, logprob in known_logprobs(token, verifier)
    ]

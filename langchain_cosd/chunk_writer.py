"""The events of an answer as LangChain's message chunks."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from cosd_core import Chunk, Generation, TracedToken, Turn
from cosd_core.chat import events
from cosd_core.chat.events import Event
from cosd_core.frontend.call import Call
from langchain_cosd.base import generation_info
from langchain_cosd.broken_json import breaking_suffix


class ChunkWriter:
    """Converts the chunks of one answer to message chunks, which LangChain merges to one message.

    Blocks of content are numbered in their order, since LangChain merges blocks of equal numbers.
    """

    def __init__(self, call: Call, turn: Turn, output_version: str | None) -> None:
        self._call, self._turn = call, turn
        self._as_blocks = output_version == "v1"
        self._block, self._kind = -1, ""
        self._tokens: list[TracedToken] = []  # of which no chunk has had the logprobs
        self._calls: dict[int, tuple[str, int]] = {}  # id and block, by the call's index in the answer
        self._arguments: dict[int, str] = {}
        self._invalid: dict[str | None, dict[str, str]] = {}  # text and error, by the call's id
        self._schema_error: str | None = None

    def write(self, piece: Chunk | Generation) -> Iterator[ChatGenerationChunk]:
        """The message chunks of a chunk or of a whole generation."""
        self._tokens += piece.tokens
        for event in self._turn.read(piece):
            if (message := self._message(event)) is not None:
                yield self._with_logprobs(message)
        if generation := piece if isinstance(piece, Generation) else piece.generation:
            yield self._with_logprobs(self._last_message(generation))

    def _with_logprobs(self, message: AIMessageChunk) -> ChatGenerationChunk:
        """A chunk with the logprobs, if they are asked for, of the tokens since the last one."""
        message.response_metadata |= self._call.logprobs(self._tokens)
        self._tokens.clear()
        return ChatGenerationChunk(message=message)

    def _last_message(self, generation: Generation) -> AIMessageChunk:
        # LangChain concatenates the metadata of all chunks, strings included: only the last chunk has it.
        info = {**generation_info(self._call, generation), "model_provider": "cosd"}
        if self._schema_error is not None:
            info["schema_error"] = self._schema_error
        if info["finish_reason"] == "stop" and len(self._calls) > len(self._invalid):
            info["finish_reason"] = "tool_calls"
        usage = UsageMetadata(
            input_tokens=info["token_usage"]["prompt_tokens"],
            output_tokens=info["token_usage"]["completion_tokens"],
            total_tokens=info["token_usage"]["total_tokens"],
        )
        return AIMessageChunk(content="", response_metadata=info, usage_metadata=usage, chunk_position="last")

    def with_errors(self, message: AIMessage) -> AIMessage:
        """The merged message, with the text and the error of every invalid call."""
        if not message.invalid_tool_calls:
            return message
        calls = message.invalid_tool_calls
        invalid: dict[Any, Any] = {call["id"]: {**call, **self._invalid[call["id"]]} for call in calls}
        content = message.content
        if isinstance(content, list):
            content = [invalid.get(part.get("id"), part) for part in content if isinstance(part, dict)]
        return message.model_copy(update={"invalid_tool_calls": [*invalid.values()], "content": content})

    def _message(self, event: Event) -> AIMessageChunk | None:
        match event:
            case events.TextDelta(text):
                block = {"type": "text", "text": text, "index": self._block_of("text")}
                return self._as_block(block) if self._as_blocks else AIMessageChunk(content=text)
            case events.ReasoningDelta(text):
                block = {"type": "reasoning", "reasoning": text, "index": self._block_of("reasoning")}
                if self._as_blocks:
                    return self._as_block(block)
                return AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
            case events.CallStart(at, name):
                return self._call_message(at, name, "")
            case events.CallDelta(at, arguments):
                self._arguments[at] += arguments
                return self._call_message(at, None, arguments)
            case events.InvalidCall(at, text, error):
                arguments = self._arguments.get(at, text)
                suffix = breaking_suffix(arguments)
                chunk = self._call_message(at, None, suffix if at in self._calls else arguments + suffix)
                self._invalid[self._calls[at][0]] = {"args": text, "error": error}
                self._schema_error = self._schema_error or error  # LangChain drops errors when it adds chunks
                return chunk
            case events.InvalidAnswer(error):
                self._schema_error = error
                return None  # the last chunk has it
            case events.CallEnd():
                return None  # earlier chunks hold the name and the arguments

    def _call_message(self, at: int, name: str | None, arguments: str) -> AIMessageChunk:
        is_new = at not in self._calls
        if is_new:
            # Nine letters and digits: Mistral's templates require this form, others accept it.
            self._calls[at] = (uuid4().hex[:9], self._block_of(f"call {at}"))
            self._arguments[at] = ""
        call_id, block = self._calls[at]
        chunk = tool_call_chunk(name=name, args=arguments, id=call_id if is_new else None, index=block)
        if self._as_blocks:
            return self._as_block({**chunk, "type": "tool_call_chunk"}, tool_call_chunks=[chunk])
        return AIMessageChunk(content="", tool_call_chunks=[chunk])

    def _as_block(self, block: dict[str, Any], **fields: Any) -> AIMessageChunk:
        return AIMessageChunk(content=[block], response_metadata={"output_version": "v1"}, **fields)

    def _block_of(self, kind: str) -> int:
        """The number of the current block, or of a new one if the kind of content changes."""
        if kind != self._kind:
            self._block, self._kind = self._block + 1, kind
        return self._block

"""The choices of an answer: texts and messages, whole or in the pieces of a stream."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from cosd_core.chat import events
from cosd_core.chat.events import Event, ParsedAnswer
from cosd_core.chat.turn import Turn
from cosd_core.frontend.call import Call
from cosd_core.frontend.logprobs import known_logprobs
from cosd_core.outputs import Chunk, Generation, TracedToken
from cosd_core.serving.responses import (
    ChatChoice,
    ChatDelta,
    ChatLogprobs,
    Choice,
    FinishReason,
    MessageFields,
    TextChoice,
    TextLogprobs,
    ToolCall,
)


class ChoiceWriter(ABC):
    """Writes one choice, from the chunks of its text or from the whole.

    Attributes:
        index: The number of the choice.
    """

    def __init__(self, index: int, call: Call, *, provenance: bool) -> None:
        self.index = index
        self._call = call
        self._provenance = provenance

    @abstractmethod
    def pieces(self, chunk: Chunk) -> Iterator[Any]:
        """The choices of the chunks of a stream that this chunk of text makes."""

    @abstractmethod
    def whole(self, generation: Generation) -> Any:
        """The choice of a finished text."""

    def _trace(
        self, choice: Choice, generation: Generation | None, tokens: tuple[TracedToken, ...] = ()
    ) -> None:
        if self._provenance:
            choice["provenance"] = generation.to_dict() if generation else {"tokens": [*map(asdict, tokens)]}


Piece = tuple[ChoiceWriter, Chunk]
"""A chunk of the text of a choice, with the writer of that choice."""


class TextWriter(ChoiceWriter):
    """Writes the choice of a completion."""

    def __init__(self, index: int, call: Call, *, provenance: bool) -> None:
        super().__init__(index, call, provenance=provenance)
        self._offset = 0

    def pieces(self, chunk: Chunk) -> Iterator[TextChoice]:
        """One piece."""
        yield self._choice(chunk, chunk.generation)

    def whole(self, generation: Generation) -> TextChoice:
        """The whole text."""
        return self._choice(generation, generation)

    def _choice(self, piece: Chunk | Generation, generation: Generation | None) -> TextChoice:
        choice = TextChoice(
            index=self.index,
            text=piece.text,
            logprobs=self._logprobs(piece.tokens),
            finish_reason=piece.finish_reason,
        )
        self._trace(choice, generation, piece.tokens)
        return choice

    def _logprobs(self, tokens: tuple[TracedToken, ...]) -> TextLogprobs | None:
        settings = self._call.settings
        if not settings.logprobs:
            return None
        verifier = settings.method()["verifier"]
        known = [known_logprobs(token, verifier) for token in tokens]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return TextLogprobs(
            tokens=[token.text for token in tokens],
            token_logprobs=[entries[0][1] for entries in known],
            top_logprobs=[
                dict(sorted(entries, key=lambda each: -each[1])[: settings.top_logprobs]) for entries in known
            ],
            text_offset=offsets,
        )


class ChatWriter(ChoiceWriter):
    """Writes the choice of a chat completion: text, reasoning and calls, as the turn's parser finds them.

    A call that is cut or breaks its schema stays in the answer as far as it was written, and ``schema_error``
    says what is wrong with it; the text of one that has not even a name is text.
    """

    def __init__(self, index: int, call: Call, turn: Turn, *, provenance: bool) -> None:
        super().__init__(index, call, provenance=provenance)
        self._turn = turn
        self._tokens: list[TracedToken] = []  # of which no piece has had the logprobs
        self._has_role = False
        self._calls: dict[int, int] = {}  # number in the answer by that in the text, where some have no name
        self._complete_calls = 0
        self._schema_error: str | None = None

    def pieces(self, chunk: Chunk) -> Iterator[ChatDelta]:
        """A piece per event, and one with the finish reason."""
        self._tokens += chunk.tokens
        tokens = chunk.tokens
        for event in self._turn.read(chunk):
            if delta := self._delta(event):
                yield self._piece(delta, None, tokens)
                tokens = ()
        if chunk.generation is not None:
            last = self._piece({}, chunk.generation)
            last["finish_reason"] = self._finish_reason(chunk.generation)
            if self._schema_error is not None:
                last["schema_error"] = self._schema_error
            yield last
        elif tokens and self._provenance:
            yield self._piece({}, None, tokens)

    def whole(self, generation: Generation) -> ChatChoice:
        """The whole message."""
        read = self._turn.read(generation)
        deltas = [self._delta(event) for event in read]
        answer = ParsedAnswer.of(read)
        text = "".join(delta.get("content") or "" for delta in deltas)
        message = MessageFields(role="assistant", content=text)
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls := _joined([call for delta in deltas for call in delta.get("tool_calls", ())]):
            message["tool_calls"] = calls
            message["content"] = text or None
        choice = ChatChoice(
            index=self.index,
            message=message,
            logprobs=self._logprobs(generation.tokens),
            finish_reason=self._finish_reason(generation),
        )
        if self._schema_error is not None:
            choice["schema_error"] = self._schema_error
        self._trace(choice, generation)
        return choice

    def _piece(
        self, delta: MessageFields, generation: Generation | None, tokens: tuple[TracedToken, ...] = ()
    ) -> ChatDelta:
        if not self._has_role:
            delta = {"role": "assistant", "content": "", **delta}
            self._has_role = True
        piece = ChatDelta(
            index=self.index, delta=delta, logprobs=self._logprobs(tuple(self._tokens)), finish_reason=None
        )
        self._tokens.clear()
        self._trace(piece, generation, tokens)
        return piece

    def _delta(self, event: Event) -> MessageFields:
        match event:
            case events.TextDelta(text):
                return {"content": text}
            case events.ReasoningDelta(text):
                return {"reasoning_content": text}
            case events.CallStart(at, name):
                self._calls[at] = len(self._calls)
                # Nine letters and digits: Mistral's templates require this form, others accept it.
                function = {"name": name, "arguments": ""}
                return self._of_call(at, {"id": uuid4().hex[:9], "type": "function", "function": function})
            case events.CallDelta(at, arguments):
                return self._of_call(at, {"function": {"arguments": arguments}})
            case events.CallEnd():
                self._complete_calls += 1
                return {}  # earlier pieces hold the name and the arguments
            case events.InvalidCall(at, text, error):
                self._schema_error = self._schema_error or error
                return {} if at in self._calls else {"content": text}
            case events.InvalidAnswer(error):
                self._schema_error = error
                return {}

    def _of_call(self, at: int, piece: Any) -> MessageFields:
        call: ToolCall = piece | {"index": self._calls[at]}
        return {"tool_calls": [call]}

    def _logprobs(self, tokens: tuple[TracedToken, ...]) -> ChatLogprobs | None:
        if not self._call.settings.logprobs:
            return None
        found: ChatLogprobs = self._call.logprobs(tokens).get("logprobs", {"content": []})
        return found

    def _finish_reason(self, generation: Generation) -> FinishReason:
        if generation.finish_reason == "stop" and self._complete_calls:
            return "tool_calls"
        return generation.finish_reason


def _joined(pieces: list[ToolCall]) -> list[ToolCall]:
    """The calls that the pieces of a stream make up, without their indices."""
    calls: dict[int, ToolCall] = {}
    for piece in pieces:
        if (call := calls.get(piece["index"])) is None:
            calls[piece["index"]] = {**piece, "function": {**piece["function"]}}
        else:
            call["function"]["arguments"] += piece["function"]["arguments"]
    for call in calls.values():
        del call["index"]
    return list(calls.values())

"""Parses an answer, while it is generated, into text, reasoning and tool calls."""

from collections.abc import Callable, Collection
from typing import Protocol

from cosd_core.chat.call_parsers import parse_json_calls
from cosd_core.chat.call_recorder import CallRecorder, MalformedCall
from cosd_core.chat.character_parser import CharacterParser, EndOfText
from cosd_core.chat.events import Event, ReasoningDelta, TextDelta, drain
from cosd_core.chat.text_stream import TextStream

CallSyntax = tuple[str, Callable[[CallRecorder], CharacterParser[None]]]
"""The tag that begins calls, and the parser of the text after it."""


class Parser(Protocol):
    """Receives an answer in pieces and returns its events."""

    def feed(self, text: str) -> list[Event]:
        """The events that are certain after this piece."""

    def finish(self) -> list[Event]:
        """The last events: the text ends here."""


class AnswerParser:
    """Parses an answer character by character, so its result does not depend on the pieces.

    Args:
        reasoning_tags: The opening and closing tag of reasoning, if the model writes reasoning.
        starts_in_reasoning: Whether the prompt ends with the opening tag.
        call_syntax: The syntax of calls; None parses no calls.
        allow_bare_calls: Whether an answer that is JSON as a whole is parsed as calls, too.
        ignored_tags: Tags that are dropped wherever they do not begin a call.
    """

    def __init__(
        self,
        *,
        reasoning_tags: tuple[str, str] | None = None,
        starts_in_reasoning: bool = False,
        call_syntax: CallSyntax | None = None,
        allow_bare_calls: bool = False,
        ignored_tags: Collection[str] = (),
    ) -> None:
        self._events: list[Event] = []
        self._calls = CallRecorder(self._events)
        self._text = TextStream(lambda text: self._events.append(TextDelta(text)))
        self._reasoning = TextStream(lambda text: self._events.append(ReasoningDelta(text)))
        self._reasoning.mark_tag()
        self._reasoning_tags, self._starts_in_reasoning = reasoning_tags, starts_in_reasoning
        self._call_syntax, self._allow_bare_calls = call_syntax, allow_bare_calls
        call_tags = call_syntax[:1] if call_syntax else ()
        self._tags = frozenset({*(reasoning_tags or ()), *call_tags, *ignored_tags})
        self._parser = self._parse_message()
        next(self._parser)

    def feed(self, text: str) -> list[Event]:
        """The events that are certain after this piece."""
        for character in text:
            self._calls.consumed.append(character)
            self._parser.send(character)
        return drain(self._events)

    def finish(self) -> list[Event]:
        """The last events: the text ends here."""
        try:
            self._parser.throw(EndOfText())
        except StopIteration:
            self._text.finish()
        return drain(self._events)

    def _parse_message(self) -> CharacterParser[None]:
        try:
            if self._starts_in_reasoning:
                yield from self._parse_reasoning()
            yield from self._parse_answer()
        except EndOfText:
            return

    def _parse_reasoning(self) -> CharacterParser[None]:
        assert self._reasoning_tags is not None
        self._text.mark_tag()
        yield from self._copy_until_tag({self._reasoning_tags[1]}, self._reasoning.write)
        self._reasoning.mark_tag()

    def _parse_answer(self) -> CharacterParser[None]:
        while True:
            first = ""
            if self._allow_bare_calls and not self._text.has_text and not self._calls.count:
                first = yield from self._parse_bare_calls()
            tag = yield from self._copy_until_tag(self._tags, self._text.write, first)
            self._text.mark_tag()
            if self._call_syntax and tag == self._call_syntax[0]:
                yield from self._call_syntax[1](self._calls)
                self._text.mark_tag()
            elif self._reasoning_tags and tag == self._reasoning_tags[0]:
                yield from self._parse_reasoning()

    def _copy_until_tag(
        self, tags: Collection[str], write: Callable[[str], None], pending: str = ""
    ) -> CharacterParser[str]:
        """Write the text up to the next tag; characters that may begin a tag stay pending."""
        try:
            while pending not in tags:
                if pending and not any(tag.startswith(pending) for tag in tags):
                    write(pending[0])
                    pending = pending[1:]
                else:
                    pending += yield
        except EndOfText:
            write(pending)
            raise
        return pending

    def _parse_bare_calls(self) -> CharacterParser[str]:
        """Calls without any tag. Only the end of the text shows whether the answer is calls.

        If it is not, its characters are written as text, except for the last one, which is returned.
        """
        while (first := (yield)).isspace():
            self._text.write(first)
        if first != "{":
            return first
        start = len(self._calls.consumed) - 1
        self._calls.events = []
        try:
            yield from parse_json_calls(self._calls, first, needs_arguments=True)
        except EndOfText:
            if self._calls.has_name_and_arguments:
                self._calls.fail("cut off by the end of the text")
            self._resolve_bare_calls(start, None, is_text=self._calls.is_open)
            raise
        except MalformedCall as error:
            if not self._calls.has_name_and_arguments:
                self._resolve_bare_calls(start, -1, is_text=True)
                return self._calls.consumed[-1]
            try:
                while True:
                    yield
            except EndOfText:
                self._calls.fail(error)
                self._resolve_bare_calls(start, None, is_text=False)
                raise
        raise AssertionError("parse_json_calls consumes the text to its end")

    def _resolve_bare_calls(self, start: int, end: int | None, *, is_text: bool) -> None:
        """Emit ``consumed[start:end]`` as text, or the events of the calls in it."""
        events, self._calls.events = self._calls.events, self._events
        if is_text:
            self._calls.count = 0
            self._calls.is_open = False
            self._text.write("".join(self._calls.consumed[start:end]))
        else:
            self._text.mark_tag()
            self._events.extend(events)

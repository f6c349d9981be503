"""Parses an answer, while it is generated, into text, reasoning and tool calls."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from contextlib import suppress

from cosd_core.chat.call_parsers import CallSyntax, parse_calls, parse_json_calls
from cosd_core.chat.call_recorder import CallRecorder, FindError, MalformedCall
from cosd_core.chat.character_parser import CharacterParser, EndOfText
from cosd_core.chat.events import Event, ReasoningDelta, TextDelta, merge_deltas


class TextStream:
    """Emits text without the white space next to a tag.

    Where a tag divides a text, the white space before it is kept, or else that after it, so that words do not
    run together. A text without tags is emitted unchanged.

    Attributes:
        has_text: Whether anything but white space was written.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._space: list[str] = []
        self._follows_tag = self._has_space_before_tag = False
        self.has_text = False

    def write(self, text: str) -> None:
        """Append text."""
        for character in text:
            if character.isspace():
                if not self._has_space_before_tag:
                    self._space.append(character)
                continue
            if self.has_text or not self._follows_tag:
                self._emit("".join(self._space))
            self._emit(character)
            self._space.clear()
            self._follows_tag = self._has_space_before_tag = False
            self.has_text = True

    def mark_tag(self) -> None:
        """There is a tag at this position."""
        self._follows_tag = True
        self._has_space_before_tag = bool(self._space)

    def finish(self) -> None:
        """The text ends here."""
        if not self._follows_tag and self._space:
            self._emit("".join(self._space))


class Parser(ABC):
    """Receives an answer in pieces and returns its events."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._text = TextStream(lambda text: self._events.append(TextDelta(text)))
        self._reasoning = TextStream(lambda text: self._events.append(ReasoningDelta(text)))
        self._reasoning.mark_tag()

    def feed(self, text: str) -> list[Event]:
        """The events that are certain after this piece."""
        self._parse(text)
        return self._take_events()

    def finish(self) -> list[Event]:
        """The last events: the text ends here."""
        self._parse_end()
        self._text.finish()
        return self._take_events()

    def _take_events(self) -> list[Event]:
        events = merge_deltas(self._events)
        self._events.clear()
        return events

    @abstractmethod
    def _parse(self, text: str) -> None:
        """Parse the next piece."""

    @abstractmethod
    def _parse_end(self) -> None:
        """Parse what is pending at the end of the text."""


class AnswerParser(Parser):
    """Parses an answer character by character, so its result does not depend on the pieces.

    Args:
        reasoning_tags: The opening and closing tag of reasoning, if the model writes reasoning.
        starts_in_reasoning: Whether the prompt ends with the opening tag.
        call_syntax: The syntax of calls; None parses no calls.
        call_tags: The tags of that syntax. They are dropped wherever they do not belong to a call.
        find_error: What is wrong with the arguments of a call.
    """

    def __init__(
        self,
        reasoning_tags: tuple[str, str] | None,
        starts_in_reasoning: bool,
        call_syntax: CallSyntax | None,
        call_tags: Collection[str],
        find_error: FindError,
    ) -> None:
        super().__init__()
        self._calls = CallRecorder(self._events, find_error)
        self._reasoning_tags, self._starts_in_reasoning = reasoning_tags, starts_in_reasoning
        self._call_syntax = call_syntax
        self._tags = frozenset({*(reasoning_tags or ()), *call_tags})
        self._parser = self._parse_message()
        next(self._parser)

    def _parse(self, text: str) -> None:
        for character in text:
            self._calls.consumed.append(character)
            self._parser.send(character)

    def _parse_end(self) -> None:
        with suppress(StopIteration):
            self._parser.throw(EndOfText())

    def _parse_message(self) -> CharacterParser[None]:
        with suppress(EndOfText):
            if self._starts_in_reasoning:
                yield from self._parse_reasoning()
            yield from self._parse_answer()

    def _parse_reasoning(self) -> CharacterParser[None]:
        assert self._reasoning_tags is not None
        self._text.mark_tag()
        yield from self._copy_until_tag({self._reasoning_tags[1]}, self._reasoning.write)
        self._reasoning.mark_tag()

    def _parse_answer(self) -> CharacterParser[None]:
        syntax = self._call_syntax
        while True:
            first = ""
            if syntax and syntax.allows_bare_calls and not self._text.has_text and not self._calls.count:
                self._calls.names = syntax.bare_names
                first = yield from self._parse_bare_calls()
                self._calls.names = None
            tag = yield from self._copy_until_tag(self._tags, self._text.write, first)
            self._text.mark_tag()
            while syntax and tag == syntax.opener:
                tag = yield from parse_calls(self._calls, syntax)
                self._text.mark_tag()
            if self._reasoning_tags and tag == self._reasoning_tags[0]:
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
            if self._calls.has_name_and_arguments or (self._calls.is_open and self._calls.count > 1):
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

"""From the text of an answer to its parts: text, reasoning and tool calls, while it is being written."""

from collections.abc import Callable, Collection
from typing import Protocol

from cosd_core.chat.call_parsers import EndOfText, Reading, json_calls
from cosd_core.chat.call_recorder import BrokenCall, CallLog
from cosd_core.chat.events import Event, ReasoningDelta, TextDelta, taken
from cosd_core.chat.text_stream import TextStream

Calls = tuple[str, Callable[[CallLog], Reading[None]]]
"""The tag that begins calls, and what reads them from there on."""


class Parser(Protocol):
    """Takes an answer in pieces and says what happens in it."""

    def feed(self, text: str) -> list[Event]:
        """What has become certain with this piece."""

    def finish(self) -> list[Event]:
        """What becomes certain as the text ends here."""


class AnswerParser:
    """Reads an answer character by character, so its result does not depend on the pieces.

    Args:
        thinking: The tags around reasoning, if the model reasons.
        thinks: Whether the answer begins inside of them.
        calls: How calls begin and are read; without tools there are none.
        bare: Whether an answer that is JSON as a whole is calls, too.
        strays: Tags that mean nothing by themselves and are dropped.
    """

    def __init__(
        self,
        *,
        thinking: tuple[str, str] | None = None,
        thinks: bool = False,
        calls: Calls | None = None,
        bare: bool = False,
        strays: Collection[str] = (),
    ) -> None:
        self._events: list[Event] = []
        self._log = CallLog(self._events)
        self._text = TextStream(lambda text: self._events.append(TextDelta(text)))
        self._reasoning = TextStream(lambda text: self._events.append(ReasoningDelta(text)))
        self._reasoning.cut()
        self._thinking, self._thinks, self._calls, self._bare = thinking, thinks, calls, bare
        self._tags = frozenset({*(thinking or ()), *(calls[:1] if calls else ()), *strays})
        self._reading = self._read()
        next(self._reading)

    def feed(self, text: str) -> list[Event]:
        """What has become certain with this piece."""
        for character in text:
            self._log.heard.append(character)
            self._reading.send(character)
        return taken(self._events)

    def finish(self) -> list[Event]:
        """What becomes certain as the text ends here."""
        try:
            self._reading.throw(EndOfText())
        except StopIteration:
            self._text.end()
        return taken(self._events)

    def _read(self) -> Reading[None]:
        try:
            if self._thinks:
                yield from self._think()
            yield from self._answer()
        except EndOfText:
            return

    def _think(self) -> Reading[None]:
        assert self._thinking is not None
        self._text.cut()
        yield from self._until_tag({self._thinking[1]}, self._reasoning.write)
        self._reasoning.cut()

    def _answer(self) -> Reading[None]:
        while True:
            first = ""
            if self._bare and not self._text.begun and not self._log.count:
                first = yield from self._bare_calls()
            tag = yield from self._until_tag(self._tags, self._text.write, first)
            self._text.cut()
            if self._calls and tag == self._calls[0]:
                yield from self._calls[1](self._log)
                self._text.cut()
            elif self._thinking and tag == self._thinking[0]:
                yield from self._think()

    def _until_tag(self, tags: Collection[str], write: Callable[[str], None], held: str = "") -> Reading[str]:
        """Write all up to the next tag; what could be its beginning is held back."""
        try:
            while held not in tags:
                if held and not any(tag.startswith(held) for tag in tags):
                    write(held[0])
                    held = held[1:]
                else:
                    held += yield
        except EndOfText:
            write(held)
            raise
        return held

    def _bare_calls(self) -> Reading[str]:
        """Calls without any tag. Whether they are any is known when the text ends.

        If they are none, their text is written as such, and the last character given back.
        """
        while (first := (yield)).isspace():
            self._text.write(first)
        if first != "{":
            return first
        start = len(self._log.heard) - 1
        self._log.events = []
        try:
            yield from json_calls(self._log, first, argued=True)
        except EndOfText:
            if self._log.begun:
                self._log.broken("cut off by the end of the text")
            self._decide(start, None, is_text=self._log.is_open)
            raise
        except BrokenCall as error:
            if not self._log.begun:
                self._decide(start, -1, is_text=True)
                return self._log.heard[-1]
            try:
                while True:
                    yield
            except EndOfText:
                self._log.broken(error)
                self._decide(start, None, is_text=False)
                raise
        raise AssertionError("json_calls reads to the end of the text")

    def _decide(self, start: int, end: int | None, *, is_text: bool) -> None:
        """What was heard between ``start`` and ``end`` was text, or it was calls."""
        noted, self._log.events = self._log.events, self._events
        if is_text:
            self._log.count = 0
            self._log.is_open = False
            self._text.write("".join(self._log.heard[start:end]))
        else:
            self._text.cut()
            self._events.extend(noted)

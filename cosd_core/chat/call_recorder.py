"""Turns the parsed parts of calls into events."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cosd_core.chat.events import CallDelta, CallEnd, CallStart, Event, InvalidCall
from cosd_core.grammar.schema_validation import refuse_constant

FindError = Callable[[str, Mapping[str, Any]], str | None]
"""What is wrong with the arguments of the tool of a name; None if nothing is."""


class MalformedCall(Exception):  # noqa: N818 (becomes an InvalidCall)
    """The text is no valid call; the message says why."""


class CallRecorder:
    """Receives the parts of each call from a parser and appends events.

    Attributes:
        events: The list that receives the events.
        consumed: All characters of the answer so far.
        count: The number of calls that have begun.
        is_open: Whether the last call has begun and not ended.
        has_arguments: Whether arguments of the last call have been parsed.
        names: The names that a call must have; None admits any.
    """

    def __init__(self, events: list[Event], find_error: FindError) -> None:
        self.events = events
        self._find_error = find_error
        self.consumed: list[str] = []
        self.count = 0
        self.is_open = self.has_arguments = False
        self.names: Collection[str] | None = None
        self._start = 0
        self._name: str | None = None
        self._pieces: list[str] = []
        self._arguments: dict[str, Any] | None = None

    @property
    def has_name_and_arguments(self) -> bool:
        """Whether a call is open and certainly is a call: it has a name and arguments."""
        return self.is_open and self._name is not None and self.has_arguments

    def begin(self, already_consumed: int = 0) -> None:
        """Begin a call whose text starts ``already_consumed`` characters before the end of ``consumed``."""
        self.count += 1
        self.is_open, self.has_arguments = True, False
        self._start = len(self.consumed) - already_consumed
        self._name, self._pieces, self._arguments = None, [], None

    def set_name(self, name: object) -> None:
        """Set the name, which must be a string, not empty, and emit the arguments that came before it."""
        if not isinstance(name, str) or not name.strip():
            raise MalformedCall("the name is not a string, or empty")
        if self.names is not None and name.strip() not in self.names:
            raise MalformedCall("no tool has its name")
        self._name = name.strip()
        self.events.append(CallStart(self.count - 1, self._name))
        self.events.extend(CallDelta(self.count - 1, piece) for piece in self._pieces)

    def add_arguments(self, piece: str) -> None:
        """Append a piece of the arguments' JSON text."""
        self.has_arguments = True
        self._pieces.append(piece)
        if self._name is not None:
            self.events.append(CallDelta(self.count - 1, piece))

    def validate(self) -> None:
        """Check after the last argument that the call has a name, and that its arguments are an object."""
        if self._name is None:
            raise MalformedCall("it has no name")
        if not self._pieces:
            self.add_arguments("{}")
        arguments = parse_json("".join(self._pieces))
        if not isinstance(arguments, dict):
            raise MalformedCall("the arguments are not an object")
        self._arguments = arguments

    def end(self, *, without: str = "") -> None:
        """End the parsed call; if its arguments do not match the tool's schema, as :meth:`fail` does."""
        assert self._name is not None
        assert self._arguments is not None
        if (error := self._find_error(self._name, self._arguments)) is not None:
            self.fail(error, without=without)
            return
        self.events.append(CallEnd(self.count - 1, self._name, self._arguments))
        self.is_open = False

    def fail(self, error: object, *, without: str = "") -> None:
        """End the call as invalid. Its text ends here, without a closing tag ``without``."""
        text = "".join(self.consumed[self._start :]).removesuffix(without).strip()
        self.events.append(InvalidCall(self.count - 1, text, str(error)))
        self.is_open = False

    def end_of_text(self) -> None:
        """End an open call at the end of the text. A valid call may lack its closing tag: models omit it."""
        if self.is_open and self._arguments is not None:
            self.end()
        elif self.is_open:
            self.fail("cut off by the end of the text")

    def ends_with(self, text: str) -> bool:
        """Whether the text of this call so far ends with ``text``."""
        return "".join(self.consumed[max(self._start, len(self.consumed) - len(text)) :]) == text


def parse_json(text: str) -> Any:
    """A JSON value; raises ``MalformedCall`` if the text is no JSON, or nested too deeply."""
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise MalformedCall("broken JSON: nested too deeply") from None
    except ValueError as error:
        raise MalformedCall(f"broken JSON: {error}") from None

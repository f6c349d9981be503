"""What has been heard of the calls of one answer, as events."""

import json
from typing import Any

from cosd_core.chat.events import CallDelta, CallEnd, CallStart, Event, InvalidCall


class BrokenCall(Exception):  # noqa: N818 (becomes an InvalidCall)
    """What is read is no call; says why."""


class CallLog:
    """Writes down the calls of one answer as events.

    Attributes:
        events: Where the events go.
        heard: All characters of the answer so far.
        count: How many calls have begun.
        is_open: Whether one has begun and not ended.
        argued: Whether its arguments have been met.
    """

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.heard: list[str] = []
        self.count = 0
        self.is_open = self.argued = False
        self._start = 0
        self._name: str | None = None
        self._pieces: list[str] = []
        self._arguments: dict[str, Any] | None = None

    @property
    def begun(self) -> bool:
        """Whether it certainly is a call that is being read: it has a name and arguments."""
        return self.is_open and self._name is not None and self.argued

    @property
    def checked(self) -> bool:
        """Whether the call that is being read is whole but for its closing tag."""
        return self.is_open and self._arguments is not None

    def begin(self, already_heard: int = 0) -> None:
        """A call begins, of which this many characters have been heard."""
        self.count += 1
        self.is_open, self.argued = True, False
        self._start = len(self.heard) - already_heard
        self._name, self._pieces, self._arguments = None, [], None

    def named(self, name: object) -> None:
        """The name is known; arguments that came before it follow it.

        Raises:
            BrokenCall: It is no name.
        """
        if not isinstance(name, str) or not name.strip():
            raise BrokenCall("the name is not a string, or empty")
        self._name = name.strip()
        self.events.append(CallStart(self.count - 1, self._name))
        self.events.extend(CallDelta(self.count - 1, piece) for piece in self._pieces)

    def write(self, piece: str) -> None:
        """More of the arguments is known."""
        self.argued = True
        self._pieces.append(piece)
        if self._name is not None:
            self.events.append(CallDelta(self.count - 1, piece))

    def check(self) -> None:
        """The call has been read to its end.

        Raises:
            BrokenCall: It has no name, or its arguments are no object.
        """
        if self._name is None:
            raise BrokenCall("it has no name")
        if not self._pieces:
            self.write("{}")
        arguments = loads("".join(self._pieces))
        if not isinstance(arguments, dict):
            raise BrokenCall("the arguments are not an object")
        self._arguments = arguments

    def end(self) -> None:
        """The call that was checked is over."""
        assert self._name is not None
        assert self._arguments is not None
        self.events.append(CallEnd(self.count - 1, self._name, self._arguments))
        self.is_open = False

    def broken(self, error: object, *, without: str = "") -> None:
        """The call is broken; its text goes up to here, less a closing tag."""
        text = "".join(self.heard[self._start :]).removesuffix(without).strip()
        self.events.append(InvalidCall(self.count - 1, text, str(error)))
        self.is_open = False

    def just_heard(self, text: str) -> bool:
        """Whether what was heard of this call ends so."""
        return "".join(self.heard[max(self._start, len(self.heard) - len(text)) :]) == text


def loads(text: str) -> Any:
    """A JSON value.

    Raises:
        BrokenCall: It is none, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise BrokenCall("broken JSON: nested too deeply") from None
    except ValueError as error:
        raise BrokenCall(f"broken JSON: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")

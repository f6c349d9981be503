"""Calls in the writing of each model family, read character by character.

A reader is a generator that is sent the next character. So it never depends on how a text was split into
pieces, and reads like a parser that has all of the text. When the text ends, ``EndOfText`` is thrown into it.
"""

import json
import string
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from cosd_core.chat.events import CallDelta, CallEnd, CallStart, Event, InvalidCall
from cosd_core.chat.tools import Tool

T = TypeVar("T")
Reading = Generator[None, str, T]

_SPACE = " \t\r\n"
_SCALAR = frozenset(string.ascii_letters + string.digits + "+-.")
_JSON = _SCALAR | frozenset(_SPACE + ",:{}[]")
_ARGUMENTS = frozenset({"arguments", "parameters"})
"""Models mix the two up."""


class EndOfText(Exception):  # noqa: N818 (no error: every text ends)
    """There are no more characters."""


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


def tagged_call(calls: CallLog, closer: str, tools: Sequence[Tool]) -> Reading[None]:
    """One call between ``<tool_call>``, which has been read, and its closing tag: JSON, or XML."""
    calls.begin()
    try:
        opening = yield from after_space()
        if opening == "{":
            yield from _json_call(calls)
        elif opening == "<":
            yield from _xml_call(calls, tools)
        else:
            raise BrokenCall("it does not begin with a brace or a <function> tag")  # noqa: TRY301
        calls.check()
        yield from _closing(closer)
        calls.end()
    except EndOfText:
        if calls.checked:  # models stop after the last brace, too
            calls.end()
        else:
            calls.broken("cut off by the end of the text")
        raise
    except BrokenCall as error:
        yield from _give_up(calls, error, closer)


def mistral_calls(calls: CallLog, opener: str) -> Reading[None]:
    """A list of calls, or a name and its arguments, after ``[TOOL_CALLS]``, which has been read."""
    while True:
        try:
            opening = yield from after_space()
            if opening == "[":
                yield from _json_list(calls)
            else:
                calls.begin(1)
                yield from _named_call(calls, opening)
                calls.check()
                calls.end()
        except EndOfText:
            if calls.is_open:
                calls.broken("cut off by the end of the text")
            raise
        except BrokenCall as error:
            yield from _give_up(calls, error, opener)  # the next opener begins the next call
        else:
            return


def llama_calls(calls: CallLog) -> Reading[None]:
    """All that follows ``<|python_tag|>``."""
    try:
        opening = yield from after_space()
        yield from json_calls(calls, opening)
    except EndOfText:
        if calls.is_open:
            calls.broken("cut off by the end of the text")
        raise
    except BrokenCall as error:
        if not calls.is_open:
            calls.begin(1)
        yield from _give_up(calls, error, "")


def json_calls(calls: CallLog, opening: str, *, argued: bool = False) -> Reading[None]:
    """JSON objects, separated by semicolons or white space, up to the end of the text.

    Raises:
        BrokenCall: Something else stands there, or, if asked for, an object lacks arguments.
    """
    while True:
        if opening != "{":
            raise BrokenCall("it does not begin with a brace")
        calls.begin(1)
        yield from _json_call(calls)
        if argued and not calls.argued:
            raise BrokenCall("it has no arguments")
        calls.check()
        calls.end()
        opening = yield from after_space(";")


def after_space(also: str = "") -> Reading[str]:
    """The next character that is not white space."""
    while (character := (yield)) in _SPACE + also:
        pass
    return character


def _give_up(calls: CallLog, error: BrokenCall, end: str) -> Reading[None]:
    """Skip to where the next thing can begin: after these words, or if there are none, at the end."""
    try:
        while not end or not calls.just_heard(end):
            yield
    except EndOfText:
        calls.broken(error)
        raise
    calls.broken(error, without=end)


def _json_list(calls: CallLog) -> Reading[None]:
    character = yield from after_space()
    while character != "]":
        calls.begin(1)
        if character != "{":
            raise BrokenCall("it does not begin with a brace")
        yield from _json_call(calls)
        calls.check()
        calls.end()
        character = yield from after_space(",")


def _named_call(calls: CallLog, character: str) -> Reading[None]:
    """``name[ARGS]{...}``, also with ``[CALL_ID]...`` in between, or with nothing."""
    name = ""
    while character not in "[{":
        name += character
        character = yield
    while character == "[":
        tag = yield from _until("]")
        if tag == "CALL_ID":
            yield from _until("[")
        elif tag == "ARGS":
            character = yield from after_space()
        else:
            raise BrokenCall(f"unexpected [{tag}] after the name")
    if character != "{":
        raise BrokenCall("the arguments are not an object")
    calls.named(name)
    yield from _container(character, calls.write)


def _json_call(calls: CallLog) -> Reading[None]:
    """An object with a name and arguments, whose opening brace has been read."""
    seen: set[str] = set()
    character = yield from after_space()
    while character != "}":
        if character != '"':
            raise BrokenCall("broken JSON: a key should stand in double quotes")
        key_text: list[str] = []
        yield from _string(key_text.append)
        key = loads("".join(key_text))
        role = "arguments" if key in _ARGUMENTS else key
        if role in seen:
            raise BrokenCall(f"it has more than one {role!r}")
        seen.add(role)
        if (yield from after_space()) != ":":
            raise BrokenCall("broken JSON: a colon should follow a key")
        character = yield from after_space()
        if role == "arguments" and character == "{":
            yield from _container(character, calls.write)
            character = ""
        else:
            pieces: list[str] = []
            character = yield from _value(character, pieces.append)
            _take(calls, role, loads("".join(pieces)))
        character = character or (yield from after_space())
        if character == ",":
            character = yield from after_space()
            if character == "}":
                raise BrokenCall("broken JSON: a key should follow a comma")
        elif character != "}":
            raise BrokenCall("broken JSON: a comma or a brace should follow a value")


def _take(calls: CallLog, role: str, value: object) -> None:
    if role == "name":
        calls.named(value)
    elif role == "arguments":
        if not isinstance(value, str) or not isinstance(loads(value), dict):
            raise BrokenCall("the arguments are not an object")
        calls.write(value.strip())  # an object, written once more as a string


def _value(first: str, write: Callable[[str], None]) -> Reading[str]:
    """Any value; gives back the character after it, if that had to be read to see the end."""
    if first in "{[":
        yield from _container(first, write)
    elif first == '"':
        yield from _string(write)
    else:
        while first in _SCALAR:
            write(first)
            first = yield
        return "" if first in _SPACE else first
    return ""


def _container(first: str, write: Callable[[str], None]) -> Reading[None]:
    """An object or a list, up to the bracket that closes it. Loading it shows if it is sound."""
    write(first)
    depth = 1
    while depth:
        character = yield
        if character == '"':
            yield from _string(write)
            continue
        if character not in _JSON:
            raise BrokenCall(f"broken JSON: unexpected {character!r}")
        depth += (character in "{[") - (character in "}]")
        write(character)


def _string(write: Callable[[str], None]) -> Reading[None]:
    """A string whose opening quote has been read."""
    write('"')
    character = ""
    while character != '"':
        character = yield
        if character < " ":  # not allowed in JSON; the string was most likely not closed
            raise BrokenCall(f"broken JSON: {character!r} within a string")
        write(character)
        if character == "\\":
            write((yield))


def _xml_call(calls: CallLog, tools: Sequence[Tool]) -> Reading[None]:
    """``<function=name><parameter=key>value</parameter></function>``, whose first ``<`` has been read."""
    head = yield from _until(">")
    if not head.startswith("function="):
        raise BrokenCall(f"unexpected <{head}>")
    name = head.removeprefix("function=").strip()
    calls.named(name)
    tool = next((tool for tool in tools if tool.name == name), Tool(name, "", {}))
    keys: set[str] = set()
    while True:
        if (yield from after_space()) != "<":
            raise BrokenCall("text between the parameters")
        head = yield from _until(">")
        if head == "/function":
            break
        key = head.removeprefix("parameter=").strip()
        if not head.startswith("parameter=") or key in keys:
            raise BrokenCall(f"unexpected <{head}>")
        text = yield from _until("</parameter>")
        value = tool.typed(key, text.removeprefix("\n").removesuffix("\n"))
        written = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        calls.write((", " if keys else "{") + written)
        keys.add(key)
    calls.write("}" if keys else "{}")


def _until(end: str) -> Reading[str]:
    """The text before these words, which are read too."""
    text: list[str] = []
    while True:
        text.append((yield))
        if text[-1] == end[-1] and "".join(text[-len(end) :]) == end:
            return "".join(text[: -len(end)])


def _closing(tag: str) -> Reading[None]:
    character = yield from after_space()
    for at, expected in enumerate(tag):
        if at:
            character = yield
        if character != expected:
            raise BrokenCall(f"{character!r} where {tag} should close it")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")

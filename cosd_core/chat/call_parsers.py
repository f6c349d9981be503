"""Calls in the writing of each model family, read character by character.

A reader is a generator that is sent the next character. So it never depends on how a text was split into
pieces, and reads like a parser that has all of the text. When the text ends, ``EndOfText`` is thrown into it.
"""

import json
import string
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from cosd_core.chat.call_recorder import BrokenCall, CallLog, loads
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

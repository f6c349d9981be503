"""Parsers of calls in the syntax of each model family."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cosd_core.chat.call_recorder import CallRecorder, MalformedCall, parse_json
from cosd_core.chat.character_parser import (
    CharacterParser,
    EndOfText,
    copy_container,
    copy_string,
    copy_value,
    expect_tag,
    read_until,
    skip_space,
)
from cosd_core.chat.tools import Tool, as_json

_ARGUMENTS = frozenset({"arguments", "parameters"})
"""Models use either key."""


class CallSyntax(NamedTuple):
    """How a model writes calls.

    Attributes:
        opener: The tag that begins calls.
        parse: The parser of the text after that tag.
        resume: The tag after which parsing goes on if a call is malformed; empty if nothing follows calls.
        allows_bare_calls: Whether an answer that is JSON as a whole is parsed as calls, without any tag.
        bare_names: The names that such calls must have to be calls; None admits any.
    """

    opener: str
    parse: Callable[[CallRecorder], CharacterParser[None]]
    resume: str
    allows_bare_calls: bool = False
    bare_names: frozenset[str] | None = None


def parse_calls(calls: CallRecorder, syntax: CallSyntax) -> CharacterParser[str]:
    """Calls after their opening tag, which has been consumed.

    The rest of a malformed call is skipped up to the tag ``resume``, which is returned.
    """
    try:
        yield from syntax.parse(calls)
    except EndOfText:
        calls.end_of_text()
        raise
    except MalformedCall as error:
        try:
            while not syntax.resume or not calls.ends_with(syntax.resume):
                yield
        except EndOfText:
            calls.fail(error)
            raise
        calls.fail(error, without=syntax.resume)
        return syntax.resume
    return ""


def parse_tagged_call(calls: CallRecorder, closer: str, tools: Sequence[Tool]) -> CharacterParser[None]:
    """One call, as JSON or XML, between ``<tool_call>``, which has been consumed, and its closing tag."""
    calls.begin()
    opening = yield from skip_space()
    if opening == "{":
        yield from _parse_json_call(calls)
    elif opening == "<":
        yield from _parse_xml_call(calls, tools)
    else:
        raise MalformedCall("it does not begin with a brace or a <function> tag")
    calls.validate()
    yield from expect_tag(closer)
    calls.end(without=closer)


def parse_mistral_calls(calls: CallRecorder) -> CharacterParser[None]:
    """After ``[TOOL_CALLS]``, which has been consumed: a list of calls, or a name and its arguments.

    The latter are ``name[ARGS]{...}``, ``name[CALL_ID]...[ARGS]{...}`` or ``name{...}``.
    """
    character = yield from skip_space()
    if character == "[":
        yield from parse_json_calls(calls, separator=",", end="]")
        return
    calls.begin(1)
    name = ""
    while character not in "[{":
        name += character
        character = yield
    while character == "[":
        tag = yield from read_until("]")
        if tag == "CALL_ID":
            yield from read_until("[")
        elif tag == "ARGS":
            character = yield from skip_space()
        else:
            raise MalformedCall(f"unexpected [{tag}] after the name")
    if character != "{":
        raise MalformedCall("the arguments are not an object")
    calls.set_name(name)
    yield from copy_container(character, calls.add_arguments)
    calls.validate()
    calls.end()


def parse_json_calls(
    calls: CallRecorder, opening: str = "", separator: str = ";", end: str = "", needs_arguments: bool = False
) -> CharacterParser[None]:
    """JSON objects, separated by ``separator`` or white space, up to ``end`` or the end of the text.

    Their first character is ``opening``, if it has been consumed.
    """
    opening = opening or (yield from skip_space())
    while opening != end:
        calls.begin(1)
        if opening != "{":
            raise MalformedCall("it does not begin with a brace")
        yield from _parse_json_call(calls)
        if needs_arguments and not calls.has_arguments:
            raise MalformedCall("it has no arguments")
        calls.validate()
        calls.end()
        opening = yield from skip_space(separator)


def _parse_json_call(calls: CallRecorder) -> CharacterParser[None]:
    """An object with a name and arguments, whose opening brace has been consumed."""
    seen: set[str] = set()
    character = yield from skip_space()
    while character != "}":
        if character != '"':
            raise MalformedCall("broken JSON: a key should stand in double quotes")
        character = yield from _parse_field(calls, seen)
        character = character or (yield from skip_space())
        if character == ",":
            character = yield from skip_space()
            if character == "}":
                raise MalformedCall("broken JSON: a key should follow a comma")
        elif character != "}":
            raise MalformedCall("broken JSON: a comma or a brace should follow a value")


def _parse_field(calls: CallRecorder, seen: set[str]) -> CharacterParser[str]:
    """A key, whose opening quote has been consumed, and its value; returns as :func:`copy_value` does."""
    pieces: list[str] = []
    yield from copy_string(pieces.append)
    key = parse_json("".join(pieces))
    field = "arguments" if key in _ARGUMENTS else key
    if field in seen:
        raise MalformedCall(f"it has more than one {field!r}")
    seen.add(field)
    if (yield from skip_space()) != ":":
        raise MalformedCall("broken JSON: a colon should follow a key")
    character = yield from skip_space()
    if field == "arguments" and character == "{":
        yield from copy_container(character, calls.add_arguments)
        return ""
    pieces = []
    character = yield from copy_value(character, pieces.append)
    value = parse_json("".join(pieces))
    if field == "name":
        calls.set_name(value)
    elif field == "arguments":
        if not isinstance(value, str) or not isinstance(parse_json(value), dict):
            raise MalformedCall("the arguments are not an object")
        calls.add_arguments(value.strip())  # an object, encoded as a string
    return character


def _parse_xml_call(calls: CallRecorder, tools: Sequence[Tool]) -> CharacterParser[None]:
    """``<function=name><parameter=key>value</parameter></function>``, whose first ``<`` has been consumed."""
    head = yield from read_until(">")
    if not head.startswith("function="):
        raise MalformedCall(f"unexpected <{head}>")
    name = head.removeprefix("function=").strip()
    calls.set_name(name)
    tool = next((tool for tool in tools if tool.name == name), Tool(name, "", {}))
    keys: set[str] = set()
    while True:
        if (yield from skip_space()) != "<":
            raise MalformedCall("text between the parameters")
        head = yield from read_until(">")
        if head == "/function":
            break
        key = head.removeprefix("parameter=").strip()
        if not head.startswith("parameter=") or key in keys:
            raise MalformedCall(f"unexpected <{head}>")
        text = yield from read_until("</parameter>")
        value = tool.parse_argument(key, text.removeprefix("\n").removesuffix("\n"))
        pair = f"{as_json(key)}: {as_json(value)}"
        calls.add_arguments((", " if keys else "{") + pair)
        keys.add(key)
    calls.add_arguments("}" if keys else "{}")

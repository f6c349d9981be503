"""Parsers of calls in the syntax of each model family."""

import json
from collections.abc import Sequence

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
from cosd_core.chat.tools import Tool

_ARGUMENTS = frozenset({"arguments", "parameters"})
"""Models use either key."""


def parse_tagged_call(calls: CallRecorder, closer: str, tools: Sequence[Tool]) -> CharacterParser[None]:
    """One call, as JSON or XML, between ``<tool_call>``, which has been consumed, and its closing tag."""
    calls.begin()
    try:
        opening = yield from skip_space()
        if opening == "{":
            yield from _parse_json_call(calls)
        elif opening == "<":
            yield from _parse_xml_call(calls, tools)
        else:
            raise MalformedCall("it does not begin with a brace or a <function> tag")  # noqa: TRY301
        calls.validate()
        yield from expect_tag(closer)
        calls.end()
    except EndOfText:
        calls.end_of_text()
        raise
    except MalformedCall as error:
        yield from _skip_malformed(calls, error, closer)


def parse_mistral_calls(calls: CallRecorder, opener: str) -> CharacterParser[None]:
    """A list of calls, or a name and its arguments, after ``[TOOL_CALLS]``, which has been consumed."""
    while True:
        try:
            opening = yield from skip_space()
            if opening == "[":
                yield from _parse_json_list(calls)
            else:
                calls.begin(1)
                yield from _parse_named_call(calls, opening)
                calls.validate()
                calls.end()
        except EndOfText:
            calls.end_of_text()
            raise
        except MalformedCall as error:
            yield from _skip_malformed(calls, error, opener)  # the next opener begins the next call
        else:
            return


def parse_llama_calls(calls: CallRecorder) -> CharacterParser[None]:
    """Calls from ``<|python_tag|>``, which has been consumed, to the end of the text."""
    try:
        opening = yield from skip_space()
        yield from parse_json_calls(calls, opening)
    except EndOfText:
        calls.end_of_text()
        raise
    except MalformedCall as error:
        if not calls.is_open:
            calls.begin(1)
        yield from _skip_malformed(calls, error, "")


def parse_json_calls(
    calls: CallRecorder, opening: str, *, needs_arguments: bool = False
) -> CharacterParser[None]:
    """JSON objects, separated by semicolons or white space, up to the end of the text.

    Raises:
        MalformedCall: There is something else, or an object lacks the arguments that it needs.
    """
    while True:
        if opening != "{":
            raise MalformedCall("it does not begin with a brace")
        calls.begin(1)
        yield from _parse_json_call(calls)
        if needs_arguments and not calls.has_arguments:
            raise MalformedCall("it has no arguments")
        calls.validate()
        calls.end()
        opening = yield from skip_space(";")


def _skip_malformed(calls: CallRecorder, error: MalformedCall, end: str) -> CharacterParser[None]:
    """Skip the rest of a malformed call: up to the tag ``end``, or without one to the end of the text."""
    try:
        while not end or not calls.ends_with(end):
            yield
    except EndOfText:
        calls.fail(error)
        raise
    calls.fail(error, without=end)


def _parse_json_list(calls: CallRecorder) -> CharacterParser[None]:
    character = yield from skip_space()
    while character != "]":
        calls.begin(1)
        if character != "{":
            raise MalformedCall("it does not begin with a brace")
        yield from _parse_json_call(calls)
        calls.validate()
        calls.end()
        character = yield from skip_space(",")


def _parse_named_call(calls: CallRecorder, character: str) -> CharacterParser[None]:
    """``name[ARGS]{...}``, ``name[CALL_ID]...[ARGS]{...}`` or ``name{...}``."""
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
        pair = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        calls.add_arguments((", " if keys else "{") + pair)
        keys.add(key)
    calls.add_arguments("}" if keys else "{}")

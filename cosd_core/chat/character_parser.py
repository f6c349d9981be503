"""Parsers of single values, character by character.

A parser is a generator that receives the next character at each ``yield``. So its result does not depend on
how the text was split into pieces, and its code reads like a parser of the whole text. At the end of the
text, ``EndOfText`` is thrown into it.
"""

import string
from collections.abc import Callable, Generator
from typing import TypeVar

from cosd_core.chat.call_recorder import MalformedCall

T = TypeVar("T")
CharacterParser = Generator[None, str, T]

_SPACE = " \t\r\n"
_SCALAR = frozenset(string.ascii_letters + string.digits + "+-.")
_JSON = _SCALAR | frozenset(_SPACE + ",:{}[]")


class EndOfText(Exception):  # noqa: N818 (no error: every text ends)
    """There are no more characters."""


def skip_space(also: str = "") -> CharacterParser[str]:
    """The next character that is neither white space nor in ``also``."""
    while (character := (yield)) in _SPACE + also:
        pass
    return character


def read_until(end: str) -> CharacterParser[str]:
    """The text before ``end``, which is consumed as well."""
    text: list[str] = []
    while True:
        text.append((yield))
        if text[-1] == end[-1] and "".join(text[-len(end) :]) == end:
            return "".join(text[: -len(end)])


def expect_tag(tag: str) -> CharacterParser[None]:
    """White space, then a closing tag."""
    character = yield from skip_space()
    for index, expected in enumerate(tag):
        if index:
            character = yield
        if character != expected:
            raise MalformedCall(f"{character!r} where {tag} should close it")


def copy_value(first: str, write: Callable[[str], None]) -> CharacterParser[str]:
    """Write any JSON value; returns the character after it, if that was consumed to find the value's end."""
    if first in "{[":
        yield from copy_container(first, write)
    elif first == '"':
        yield from copy_string(write)
    else:
        while first in _SCALAR:
            write(first)
            first = yield
        return "" if first in _SPACE else first
    return ""


def copy_container(first: str, write: Callable[[str], None]) -> CharacterParser[None]:
    """Write an object or a list up to its closing bracket. Only brackets are matched here."""
    write(first)
    depth = 1
    while depth:
        character = yield
        if character == '"':
            yield from copy_string(write)
            continue
        if character not in _JSON:
            raise MalformedCall(f"broken JSON: unexpected {character!r}")
        depth += (character in "{[") - (character in "}]")
        write(character)


def copy_string(write: Callable[[str], None]) -> CharacterParser[None]:
    """Write a string whose opening quote has been consumed."""
    write('"')
    character = ""
    while character != '"':
        character = yield
        if character < " ":  # not allowed in JSON; the string was most likely not closed
            raise MalformedCall(f"broken JSON: {character!r} within a string")
        write(character)
        if character == "\\":
            write((yield))

"""Where a text can be cut so that every tokenizer encodes its parts as it encodes the whole.

Models with different tokenizers are compared word by word. Nearly all tokenizers split a text at these places
first, so the tokens of a word no longer change once something follows the word.
"""

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache

END = b"\xff"
"""Represents the end of a text, whichever token a model ends texts by. UTF-8 has no such byte."""

LONGEST = 64
"""Bytes after which a word is cut at the end of a character: bounds the work in texts without spaces."""

_STOPS = b"|".join(mark.encode() for mark in "。，、！？；：")  # noqa: RUF001
_CUT = re.compile(
    rb"(?<=\S)(?=\x20)"  # before the space after a word
    rb"|(?<=\n)(?=\S)"  # before a line that is not indented
    rb"|(?<=[\x80-\xbf])(?<!" + _STOPS + rb")(?=" + _STOPS + rb")"  # before a stop of a script without spaces
    rb"|(?=" + END + rb")"
)
_WITHIN_WORD = re.compile(
    r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u31ff\u3400-\u9fff\U00020000-\U0003ffff]{2}"
)
"""Two characters of one word. Each character of a script without spaces is a word."""


def word_ends(text: bytes | bytearray, start: int) -> Iterator[int]:
    """The offsets at which the words of ``text[start:]`` end, up to the last that is followed by something.

    They depend on the text before them and the next byte alone. ``start`` is 0 or the end of another word.
    """
    while True:
        cut = _CUT.search(text, start + 1)
        end = cut.start() if cut else len(text)
        if end - start > LONGEST:
            end = start + LONGEST
            while end < len(text) and text[end] & 0xC0 == 0x80:  # inside a character
                end += 1
        if end >= len(text):
            return
        yield end
        start = end


@lru_cache(maxsize=1024)
def word_starts(word: bytes) -> tuple[bool, ...]:
    """For each of the 256 bytes, whether it begins another word where it follows this one.

    Before a stop of several bytes its first byte does not tell.
    """
    return tuple(len(word) in word_ends(word + bytes([byte]), 0) for byte in range(256))


def continues_word(before: str, after: str) -> bool:
    """Whether the last word of ``before`` goes on in ``after``."""
    return bool(_WITHIN_WORD.match(before[-1:] + after[:1]))


def is_unfinished(text: bytes) -> bool:
    """Whether a text ends inside a UTF-8 character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text)
    return bool(decoder.getstate()[0])

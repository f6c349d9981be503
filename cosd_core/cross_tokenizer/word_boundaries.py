"""Where a text may be divided so that every tokenizer reads its parts as it reads the whole.

Models with different tokenizers are compared word by word. Nearly all tokenizers split a text at these places
before anything else, so a word that is followed by something has reached the tokens that it will keep.
"""

import codecs
import re
from collections.abc import Iterator

END = b"\xff"
"""Stands for the end of a text, whatever token a model ends its texts by. UTF-8 has no such byte."""

LONGEST = 64
"""Bytes after which a word is cut where a character ends: without spaces, too, work stays bounded."""

_STOPS = b"|".join(mark.encode() for mark in "。，、！？；：")  # noqa: RUF001
_CUT = re.compile(
    rb"(?<=\S)(?=\x20)"  # before the space after a word
    rb"|(?<=\n)(?=\S)"  # before a line that is not indented
    rb"|(?<=[\x80-\xbf])(?<!" + _STOPS + rb")(?=" + _STOPS + rb")"  # before a stop of a script without spaces
    rb"|(?=" + END + rb")"
)


def word_ends(text: bytes | bytearray, start: int) -> Iterator[int]:
    """The offsets at which the words of ``text[start:]`` end, up to the last that is followed by something.

    They depend on the text before them and the next byte alone. ``start`` is 0 or another word's end.
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


def goes_on(before: str, after: str) -> bool:
    """Whether a word of ``before`` goes on in ``after``. Characters of scripts without spaces are words."""
    return bool(_INSIDE.match(before[-1:] + after[:1]))


def is_unfinished(text: bytes) -> bool:
    """Whether a text ends inside a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(text)
    return bool(decoder.getstate()[0])


_INSIDE = re.compile(
    r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u31ff\u3400-\u9fff\U00020000-\U0003ffff]{2}"
)

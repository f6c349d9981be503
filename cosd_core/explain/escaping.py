"""Makes control characters and white space visible and harmless."""

import re

_GLYPHS = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_CONTROLS = str.maketrans(
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | dict.fromkeys(range(0x80, 0xA0), "\N{REPLACEMENT CHARACTER}")
)
_MAX_QUOTE_LENGTH = 40


def harmless(text: str) -> str:
    """Replace control characters by visible symbols: they can control a terminal or be invisible."""
    return text.translate(_CONTROLS)


def quote(text: str | None, token_id: int | None = None) -> str:
    """Quote a short text in one line, its outer white space visible; a token without text by its id."""
    if not text:
        return f"token {token_id}"
    shown = re.sub(r"^ +| +$|[\n\t]", lambda found: found[0].translate(_GLYPHS), harmless(text))
    return shown if len(shown) <= _MAX_QUOTE_LENGTH else shown[:_MAX_QUOTE_LENGTH] + "…"


def mark_whitespace(text: str, mark: str) -> str:
    """Put a mark before line breaks and tabs, and before spaces if the text is nothing but white space."""
    characters = "[\n\t]" if text.strip() else "[ \n\t]"
    return re.sub(characters, lambda found: mark.format(found[0].translate(_GLYPHS)) + found[0], text)

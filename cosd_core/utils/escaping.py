"""Escapes text from outside for what shows it: a terminal, an HTML page, a CSV cell, markdown, a plot, JSON.

Texts of models, names of files, tasks and models, and messages of templates are untrusted. A control
character in them could move the cursor, set a terminal's title, or reverse the order of what follows.
"""

import json
import re
from html import escape
from typing import Any

_GLYPHS = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_BIDI = (0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that change the direction of the text after them."""

_CONTROLS = str.maketrans(
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | dict.fromkeys(range(0x80, 0xA0), "\N{REPLACEMENT CHARACTER}")
    | {code: f"<U+{code:04X}>" for code in (*_BIDI, 0x2028, 0x2029)}
)
_MAX_QUOTE_LENGTH = 40

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters that make a spreadsheet read a cell as a formula (OWASP, "CSV Injection"); the last
four are the full-width forms of the first."""

_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*[]|"})


def harmless(text: str) -> str:
    """Replace control characters and direction marks by visible symbols, except line breaks and tabs."""
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


def html_text(text: str) -> str:
    """A text for the content or an attribute of an HTML element."""
    return escape(harmless(text))


def markdown_text(text: str) -> str:
    """A text for one line of markdown, or one cell of a table: no markup in it takes effect."""
    line = " ".join(harmless(text).split())
    return escape(line.translate(_MARKDOWN), quote=False)


def plot_text(text: str) -> str:
    """A text for matplotlib, which would read what stands between dollar signs as a formula."""
    return harmless(text).replace("$", r"\$")


def csv_value(value: Any) -> Any:
    """A value for a CSV cell: numbers unchanged, a text that a spreadsheet would compute after a quote."""
    if not isinstance(value, str):
        return value
    return f"'{harmless(value)}" if value.lstrip(" ").startswith(_FORMULA_STARTS) else harmless(value)


def json_text(value: Any) -> str:
    """A value as indented JSON, in which control characters and direction marks are escape sequences."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    controls = [code for code in _CONTROLS if code >= 0x20]  # JSON escapes the others itself
    return text.translate({code: f"\\u{code:04x}" for code in controls})

"""The consoles that commands print on. Every text on them is made harmless, and none is read as markup."""

import logging
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from cosd_core.utils.escaping import harmless, json_text


class HarmlessConsole(Console):
    """A console that shows control characters of all texts as symbols; its own control codes stay.

    Strings are escaped before they are measured for tables, everything else as it is written.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text, escaped."""
        return super().render_str(harmless(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that rich can show, escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


out = HarmlessConsole(highlight=False, markup=False, emoji=False)
err = HarmlessConsole(stderr=True, highlight=False, markup=False, emoji=False)


def write_text(text: str) -> None:
    """Write a model's text to standard output at once: escaped on a terminal, else unchanged.

    A pipe or a file receives exactly the text that the models wrote, as ``cat`` would pass it on.
    """
    print(harmless(text) if out.is_terminal or sys.stdout.isatty() else text, end="", flush=True)


def write_json(value: Any) -> None:
    """Write a value as JSON to standard output."""
    print(json_text(value))


class _HarmlessRecord(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 - the name is logging's
        return harmless(super().getMessage())


_format_warning = warnings.formatwarning


def _format_harmless(*arguments: Any, **more: Any) -> str:
    return harmless(_format_warning(*arguments, **more))


def protect_streams() -> None:
    """Escape what libraries log and warn of, and never fail on a character that a stream cannot encode."""
    logging.setLogRecordFactory(_HarmlessRecord)
    warnings.formatwarning = _format_harmless
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")

"""Shows which model wrote each token: as coloured text for terminals, an HTML page, or a notebook's fragment.

Token texts are untrusted input: all of them are escaped for the terminal and for HTML. Marks and cards are
drawn so that selecting and copying the answer from a page yields its text alone.
"""

from cosd_core.explain.answers import as_generation
from cosd_core.explain.html import to_html, to_html_fragment
from cosd_core.explain.stream import ColoredStream
from cosd_core.explain.terminal import summary, to_text
from cosd_core.utils.escaping import harmless

__all__ = ["ColoredStream", "as_generation", "harmless", "summary", "to_html", "to_html_fragment", "to_text"]

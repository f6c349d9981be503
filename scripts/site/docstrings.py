"""An extension of griffe: the docstrings' reStructuredText, of which there is little, becomes markdown."""

import re
import textwrap
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
LITERAL_BLOCK = re.compile(r"(\S?)::\n\n((?: {4}.*(?:\n|$)|\n)+)")


def as_markdown(text: str) -> str:
    """A docstring with code spans for roles, and code blocks for what follows ``::``."""
    text = ROLE.sub(r"`\1`", text).replace("``", "`")

    def block(match: re.Match[str]) -> str:
        code = textwrap.dedent(match[2]).rstrip()
        return f"{match[1]}{':' * bool(match[1])}\n\n```python\n{code}\n```\n\n"

    return LITERAL_BLOCK.sub(block, text)


class Markdown(Extension):
    """Rewrites every docstring as it is loaded."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)

"""An extension of griffe: what the API pages need beside plain docstrings.

The little reStructuredText that docstrings hold becomes markdown, and pydantic's fields have descriptions.
"""

import ast
import re
import textwrap
from typing import Any

from griffe import Attribute, Docstring, ExprCall, ExprKeyword, Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
LITERAL_BLOCK = re.compile(r"(\S?)::\n\n((?: {4}.*(?:\n|$)|\n)+)")


def as_markdown(text: str) -> str:
    """A docstring with code spans for roles, and code blocks for what follows ``::``."""
    text = ROLE.sub(r"`\1`", text).replace("``", "`")

    def block(match: re.Match[str]) -> str:
        code = textwrap.dedent(match[2]).rstrip()
        return f"{match[1]}{':' * bool(match[1])}\n\n```python\n{code}\n```\n\n"

    return LITERAL_BLOCK.sub(block, text)


def description(field: Attribute) -> str | None:
    """The description of a pydantic field; None for other attributes."""
    if not isinstance(field.value, ExprCall) or str(field.value.function) != "Field":
        return None
    keywords = [each for each in field.value.arguments if isinstance(each, ExprKeyword)]
    return next((ast.literal_eval(str(each.value)) for each in keywords if each.name == "description"), None)


class Readable(Extension):
    """Rewrites every docstring as it is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if isinstance(obj, Attribute) and not obj.docstring and (text := description(obj)):
            obj.docstring = Docstring(text, parent=obj)
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)

"""Limits on the size of JSON Schemas, checked without recursion before any library gets the schema.

Without them llguidance overflows the stack, which ends the process, or compiles for minutes.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from cosd_core.errors import InvalidOptionError, quoted

MAX_DEPTH = 100
"""Objects and lists within each other. llguidance parses 127; checking a schema against the metaschema takes
up to 8 Python frames per level, of 1,000."""

MAX_CHAIN = 200
"""Subschemas within each other, references followed. jsonschema takes 2 to 4 Python frames per level."""

MAX_REFERENCES = 3_000
"""References. Each takes 0.2 ms to resolve."""

MAX_VALUES = 200_000
"""All values of a schema: objects, lists, strings, numbers. llguidance refuses 50,000 subschemas."""

MAX_LENGTHS: Mapping[str, int] = {
    "enum": 20_000,
    **dict.fromkeys(("properties", "required"), 2_000),
    **dict.fromkeys(("patternProperties", "anyOf", "oneOf", "allOf", "prefixItems"), 1_000),
}
"""The most entries of single keywords. Compiling takes time that grows with their square: 3 s for 10,000
properties."""

_NAMED_SCHEMAS = ("properties", "patternProperties")
_NO_SCHEMAS = ("const", "enum", "default", "examples", "$defs", "definitions")


def check_limits(schema: object, *, max_depth: int = MAX_DEPTH) -> None:
    """Check a schema that may be nested to any depth, or even contain itself.

    Raises:
        InvalidOptionError: A limit is exceeded; the message names the keyword, the size and the limit.
    """
    references = 0
    stack, count, deepest = [(schema, 1, "schema")], 0, (0, "schema")
    while stack:
        value, depth, keyword = stack.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_VALUES:
            break
        references += keyword in ("$ref", "$dynamicRef")
        if not isinstance(value, (Mapping, list, tuple)):
            continue
        deepest = max(deepest, (depth, keyword), key=lambda entry: entry[0])
        limit = MAX_LENGTHS.get(keyword)
        if limit is not None and len(value) > limit:
            raise InvalidOptionError(f"{keyword} of the schema has {len(value):,} entries; at most {limit:,}")
        entries = value.items() if isinstance(value, Mapping) else ((keyword, each) for each in value)
        stack.extend((each, depth + 1, str(key)) for key, each in entries)
    depth, keyword = deepest
    if depth > max_depth:
        raise InvalidOptionError(
            f"the schema is nested {depth:,} levels deep (at {keyword}); at most {max_depth}"
        )
    if references > MAX_REFERENCES:
        raise InvalidOptionError(
            f"the schema has {references:,} references ($ref); at most {MAX_REFERENCES:,}"
        )
    if count > MAX_VALUES:
        raise InvalidOptionError(f"the schema has more than {MAX_VALUES:,} values (at {keyword})")


def check_chain(schema: Mapping[str, Any]) -> None:
    """Check how deep llguidance recurses: it compiles a definition where it first meets a reference to it.

    Args:
        schema: A schema whose references are JSON pointers into it, ``#/...``.

    Raises:
        InvalidOptionError: It recurses too deeply, or a reference is of another form.
    """
    seen: set[str] = set()
    deepest, stack = 0, [(schema, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        children = list(_subschemas(node))
        if isinstance(reference := node.get("$ref"), str) and reference not in seen:
            seen.add(reference)
            children.append(_at_pointer(schema, reference))
        stack.extend((child, depth + 1) for child in reversed(children) if isinstance(child, Mapping))
    check_chain_length(deepest)


def check_chain_length(length: int) -> None:
    """Check a number of subschemas that lead to each other."""
    if length > MAX_CHAIN:
        raise InvalidOptionError(
            f"the references ($ref) of the schema lead {length:,} levels deep; at most {MAX_CHAIN}"
        )


def _subschemas(node: Mapping[str, Any]) -> Iterator[Any]:
    """The subschemas of a schema, as far as compiling it leads to them without a reference."""
    for keyword, value in node.items():
        if keyword in _NAMED_SCHEMAS and isinstance(value, Mapping):
            yield from value.values()
        elif keyword not in _NO_SCHEMAS:
            yield from value if isinstance(value, list) else [value]


def _at_pointer(schema: Any, reference: str) -> Any:
    at = schema
    unusable = InvalidOptionError(f"$ref={quoted(reference)} should be a JSON pointer into the schema: #/...")
    if not reference.startswith("#"):
        raise unusable
    try:
        for part in reference[1:].split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            at = at[int(key)] if isinstance(at, list) else at[key]
    except (KeyError, IndexError, ValueError, TypeError):
        raise unusable from None
    return at

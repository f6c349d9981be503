"""The properties that a JSON Schema and the subschemas applied to the same object name."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from cosd_core.grammar.references import Place

IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref")
"""Keywords whose subschemas apply to the same value, and which are enforced."""

_MOST_SUBSCHEMAS = 300
"""The most subschemas of one object whose names are collected; with more, the object is not closed."""

_CONDITIONAL = ("if", "then", "else")


class PropertyNames(NamedTuple):
    """Names of properties.

    Attributes:
        names: The names.
        are_open: Whether a schema explicitly admits further names.
    """

    names: frozenset[str]
    are_open: bool

    @classmethod
    def listed(cls, schema: Any) -> Self:
        """Those of a schema alone."""
        if not isinstance(schema, Mapping):
            return cls(frozenset(), False)
        dependent = schema.get("dependentRequired")
        dependent = dependent if isinstance(dependent, Mapping) else {}
        names = {*schema.get("properties", ()), *schema.get("required", ()), *dependent}
        names.update(*dependent.values())
        is_open = any(
            schema.get(each, False) is not False for each in ("additionalProperties", "unevaluatedProperties")
        )
        return cls(frozenset(names), is_open or "patternProperties" in schema or "propertyNames" in schema)


def in_place(place: Place) -> Iterator[tuple[str, Place]]:
    """The subschemas that apply to the same value, each with its keyword."""
    schema = place.schema
    for keyword in ("allOf", "anyOf", "oneOf"):
        for each in schema.get(keyword, ()):
            yield keyword, place.inner(each)
    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(reference := schema.get(keyword), str):
            yield keyword, place.target(reference)
    for keyword in _CONDITIONAL:
        if keyword in schema:
            yield keyword, place.inner(schema[keyword])
    dependent = schema.get("dependentSchemas")
    for each in dependent.values() if isinstance(dependent, Mapping) else ():
        yield "dependentSchemas", place.inner(each)


def property_names(place: Place) -> PropertyNames:
    """The names that a schema and the subschemas applied to the same value list."""
    seen: set[int] = set()
    names: set[str] = set()
    stack, is_open, count = [place], False, 0
    while stack:
        place = stack.pop()
        count += 1
        if count > _MOST_SUBSCHEMAS:
            return PropertyNames(frozenset(), True)
        if not isinstance(place.schema, Mapping) or id(place.schema) in seen:
            continue
        seen.add(id(place.schema))
        listed = PropertyNames.listed(place.schema)
        names |= listed.names
        is_open = is_open or listed.are_open
        stack.extend(each for _, each in in_place(place))
    return PropertyNames(frozenset(names), is_open)

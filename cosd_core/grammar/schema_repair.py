"""Drops the keywords of a translated schema that llguidance refuses: a pattern with look-ahead, say."""

from collections.abc import Callable, Mapping
from typing import Any

from cosd_core.grammar.compilation import is_contradiction

CompileError = Callable[[Mapping[str, Any]], str]

_HARMLESS = frozenset(
    ("type", "items", "properties", "required", "additionalProperties", "$ref", "anyOf", "$defs")
)
_NAMED = ("properties", "patternProperties", "$defs")
_LISTED = ("prefixItems", "allOf", "anyOf", "oneOf")
_SINGLE = ("items", "additionalProperties")


def repaired(schema: Any, compile_error: CompileError) -> Any:
    """The schema without the keywords that are refused wherever their own subschema is compiled alone."""
    if not isinstance(schema, Mapping):
        return schema
    kept = dict(schema)
    shallow = _shallow(schema)
    if shallow.keys() - _HARMLESS and _is_refused(shallow, compile_error):
        kept = {
            keyword: schema[keyword] for keyword in _accepted(shallow, compile_error) if keyword in schema
        }
    return _with_subschemas(kept, lambda each: repaired(each, compile_error))


def without_intersections(schema: Any) -> Any:
    """The schema without ``allOf``, and without all keywords beside a ``$ref``."""
    if not isinstance(schema, Mapping):
        return schema
    dropped = schema.keys() - {"$ref", "$defs"} if "$ref" in schema else {"allOf"}
    kept = {keyword: value for keyword, value in schema.items() if keyword not in dropped}
    return _with_subschemas(kept, without_intersections)


def _shallow(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose subschemas admit everything."""
    kept = {keyword: value for keyword, value in schema.items() if keyword not in ("$ref", "$defs")}
    return _with_subschemas(kept, lambda _: True)


def _accepted(shallow: Mapping[str, Any], compile_error: CompileError) -> list[str]:
    """Keywords that compile together, those of the whole schema kept."""
    accepted: dict[str, Any] = {}
    for keyword, value in shallow.items():
        if not _is_refused({**accepted, keyword: value}, compile_error):
            accepted[keyword] = value
    if "patternProperties" in shallow and "patternProperties" not in accepted:
        accepted.pop("additionalProperties", None)  # it speaks of names that match no pattern
    return [*accepted, "$ref", "$defs"]


def _is_refused(schema: Mapping[str, Any], compile_error: CompileError) -> bool:
    error = compile_error(schema)
    return bool(error) and not is_contradiction(error)


def _with_subschemas(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    changed = dict(schema)
    for keyword, value in schema.items():
        if keyword in _NAMED:
            changed[keyword] = {name: change(each) for name, each in value.items()}
        elif keyword in _LISTED:
            changed[keyword] = [change(each) for each in value]
        elif keyword in _SINGLE:
            changed[keyword] = change(value)
    return changed

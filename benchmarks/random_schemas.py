"""Random JSON Schemas with every keyword of draft 2020-12."""

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_NAMES = ("name", "age", "größe", "a b", "x", "type", "properties", "b1")
_PATTERNS = ("^[a-f]{2,5}$", "^\\d{2}-\\d{2}$", "^(yes|no)$", "a+b", "^(?!x)", "^[^\\W_]+$", "[aeiou]{2}")
_FORMATS = (
    "date",
    "time",
    "date-time",
    "email",
    "ipv4",
    "ipv6",
    "uuid",
    "duration",
    "hostname",
    "uri",
    "password",
)
_VALUES: tuple[Any, ...] = (
    "a",
    "B c",
    "é",
    "🦊",
    '"quoted"',
    1,
    1.0,
    2.5,
    -7,
    True,
    False,
    None,
    [1, "a"],
    {"k": "v"},
    [],
    {},
)
_ANNOTATIONS: tuple[Schema, ...] = (
    {"title": "T"},
    {"description": "A value."},
    {"default": 1},
    {"examples": [1, "a"]},
    {"deprecated": True},
    {"readOnly": True},
    {"writeOnly": False},
    {"$comment": "none"},
    {"contentEncoding": "base64"},
    {"contentMediaType": "text/plain"},
    {"contentSchema": {"type": "object"}},
    {"format": "unknown"},
    {"unknown": 1},
)


def random_schema(rng: random.Random) -> Schema:
    """A schema; ``$ref``, ``$dynamicRef`` and anchors refer to definitions that it has."""
    definitions = {
        "leaf": {"$anchor": "leaf", **_leaf(rng)},
        "list": {"type": "array", "items": {"$ref": "#leaf"}, "maxItems": 2},
        "tree": {
            "$dynamicAnchor": "tree",
            "type": "object",
            "properties": {"v": {"$ref": "#/$defs/leaf"}, "next": {"$ref": "#/$defs/tree"}},
        },
        "other": {"$id": "https://example.org/other", "$defs": {"a/b": _leaf(rng)}, "$ref": "#/$defs/a~1b"},
    }
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} if rng.random() < 0.3 else {}
    return {**schema, **_schema(rng, 0), "$defs": definitions}


def _schema(rng: random.Random, depth: int) -> Any:
    kinds: list[Callable[[random.Random, int], Any]] = [lambda r, _: _leaf(r), _reference]
    if depth < 3:
        kinds += [_object, _object, _array, _combination, _condition]
    if depth and rng.random() < 0.03:
        return rng.random() < 0.8
    schema = rng.choice(kinds if depth else kinds[2:])(rng, depth)
    return {**schema, **(rng.choice(_ANNOTATIONS) if rng.random() < 0.2 else {})}


def _reference(rng: random.Random, depth: int) -> Schema:  # noqa: ARG001
    references: list[Schema] = [
        {"$ref": "#/$defs/leaf"},
        {"$ref": "#leaf"},
        {"$ref": "#/$defs/list"},
        {"$ref": "#/$defs/tree"},
        {"$dynamicRef": "#tree"},
        {"$ref": "https://example.org/other"},
        {"$ref": "https://example.org/other#/$defs/a~1b"},
        {"$ref": "#/$defs/tree", "maxProperties": 1},
    ]
    return rng.choice(references)


def _leaf(rng: random.Random) -> Schema:
    low = rng.randint(-50, 50)
    string: Schema = {"type": "string", "minLength": rng.randint(0, 2), "maxLength": rng.randint(2, 6)}
    return rng.choice(
        [
            {"type": "integer", "minimum": low, "exclusiveMaximum": low + rng.randint(1, 2000)},
            {"type": "number", "exclusiveMinimum": 0, "maximum": rng.randint(1, 9)},
            {"type": "integer", "multipleOf": rng.choice([2, 3, 7]), "minimum": 0, "maximum": 999},
            {"type": "number", "multipleOf": rng.choice([0.5, 0.25, 5]), "minimum": 0, "maximum": 99},
            {"type": rng.choice(["boolean", "null"])},
            {"type": rng.sample(["integer", "boolean", "null"], 2)},
            {"enum": rng.sample(_VALUES, rng.randint(1, 5))},
            {"const": rng.choice(_VALUES)},
            string,
            {"type": "string", "pattern": rng.choice(_PATTERNS), "maxLength": rng.randint(4, 9)},
            {"type": "string", "format": rng.choice(_FORMATS), "maxLength": 40},
        ]
    )


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(_NAMES, rng.randint(0, 3))

    def inner() -> Any:
        return _schema(rng, depth + 1)

    schema: Schema = {"type": "object", "properties": {name: inner() for name in names}}
    schema["required"] = [name for name in names if rng.random() < 0.6]
    more: list[Callable[[], Schema]] = [
        lambda: {"additionalProperties": rng.choice([True, False, {"type": "integer"}])},
        lambda: {"patternProperties": {"^b": inner(), **({"1$": inner()} if rng.random() < 0.5 else {})}},
        lambda: {
            "propertyNames": rng.choice([{"enum": list(_NAMES)}, {"pattern": "^[a-z]"}, {"maxLength": 4}])
        },
        lambda: {"minProperties": rng.randint(0, 2)},
        lambda: {"maxProperties": rng.randint(1, 3)},
        lambda: {"dependentRequired": {rng.choice(_NAMES): [rng.choice(_NAMES)]}},
        lambda: {"dependentSchemas": {rng.choice(_NAMES): {"required": [rng.choice(_NAMES)]}}},
        lambda: {"unevaluatedProperties": rng.choice([False, {"type": "boolean"}])},
    ]
    for each in rng.sample(more, rng.choice([0, 0, 1, 1, 2])):
        schema |= each()
    return schema


def _array(rng: random.Random, depth: int) -> Schema:

    def inner() -> Any:
        return _schema(rng, depth + 1)

    schema: Schema = {"type": "array", "items": inner(), "maxItems": rng.randint(1, 3)}
    more: list[Callable[[], Schema]] = [
        lambda: {"minItems": rng.randint(0, 2)},
        lambda: {"uniqueItems": True},
        lambda: {"prefixItems": [inner(), inner()]},
        lambda: {"contains": _leaf(rng)},
        lambda: {"contains": {"type": "integer"}, "minContains": rng.randint(0, 1), "maxContains": 1},
        lambda: {"unevaluatedItems": False},
    ]
    for each in rng.sample(more, rng.choice([0, 1, 1, 2])):
        schema |= each()
    return schema


def _combination(rng: random.Random, depth: int) -> Schema:

    def inner() -> Any:
        return _schema(rng, depth + 1)

    keyword = rng.choice(["anyOf", "anyOf", "oneOf", "allOf", "not"])
    if keyword == "not":
        return {"type": ["integer", "boolean", "null"], "not": _leaf(rng)}
    if keyword == "allOf":
        return {"allOf": [_object(rng, depth + 1), {"properties": {"x": inner()}, "required": ["x"]}]}
    return {keyword: [inner() for _ in range(rng.randint(2, 3))]}


def _condition(rng: random.Random, depth: int) -> Schema:
    name, other = rng.sample(_NAMES, 2)
    condition = rng.choice([{"required": [name]}, {"properties": {name: {"const": True}}}])
    properties = {name: {"type": "boolean"}, other: _schema(rng, depth + 1)}
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "if": condition,
        "then": {"required": [other]},
    }
    return {**schema, **({"else": {"maxProperties": 1}} if rng.random() < 0.5 else {})}

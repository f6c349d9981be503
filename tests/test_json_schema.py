"""Any JSON Schema is accepted; an answer that is reported as valid is valid; every schema ends in time."""

import datetime
import decimal
import enum
import ipaddress
import json
import random
import re
import uuid
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from benchmarks.random_schemas import random_schema
from cosd_core import CoSDDecoder, GenerationError, Grammar, InvalidOptionError
from cosd_core.grammar.json_formats import format_checker
from cosd_core.grammar.lookaround import without_lookaround
from tests.models import random_model
from tests.schemas import enforces

DECODER = CoSDDecoder(random_model(seed=0), random_model(seed=1))
DRAFT_7 = "http://json-schema.org/draft-07/schema#"

# Random schemas with every keyword


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 9))
def test_answers_reported_as_valid_are_valid(rng: random.Random, seed: int) -> None:
    """Random models at temperature 1; a schema is refused only because no value is valid for it."""
    schema = random_schema(rng)
    try:
        grammar = Grammar.json_schema(schema)
        answer = DECODER.generate("x", grammar=grammar, temperature=1.0, seed=seed, max_new_tokens=120)
    except (InvalidOptionError, GenerationError) as error:
        if "contradicts itself" in str(error) or "cannot go on" in str(error):
            return
        raise
    valid = jsonschema.Draft202012Validator(schema, format_checker=format_checker())
    assert answer.schema_error is not None or valid.is_valid(json.loads(answer.text))
    assert answer.to_dict()["schema_error"] == answer.schema_error


LOOKAROUNDS = [
    r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,2}|(?=[\d.]{1,5}0*$)\d{0,2}\.\d{0,2}0*$)",
    r"^(?!no)[a-z]+$", r"^(?![)\](])[^b]*$", r"(?<=a)b(?=\)|1)", r"^(?!(?:(a)b)+)\(?a+", r"(?<!\()n",
]  # fmt: skip

# What is enforced, and what is checked


def outcome(schema: Any, value: Any) -> str:
    """Whether the grammar excludes a value, the check reports it, or it is valid."""
    if not enforces(schema, value):
        return "excluded"
    return "valid" if Grammar.json_schema(schema).error(json.dumps(value)) is None else "reported"


@pytest.mark.parametrize(
    ("schema", "valid", "invalid", "expected"),
    [
        ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1], "reported"),
        (
            {"uniqueItems": True, "type": "array", "items": {"enum": ["a", "b"]}},
            ["b", "a"],
            ["a", "b", "a"],
            "excluded",
        ),
        (
            {"uniqueItems": True, "type": "array", "items": {"enum": ["a", "b"]}},
            ["b"],
            ["b", "b"],
            "excluded",
        ),
        ({"uniqueItems": True, "items": {"enum": ["a", "b"]}}, "c", ["b", "b"], "reported"),
        ({"not": {"type": "string"}}, 3, "x", "reported"),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"b": 1}, {"a": 1}, "reported"),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}, "reported"),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"b": 1}, {"a": 1}, "reported"),
        ({"contains": {"const": 1}}, [2, 1], [2], "reported"),
        ({"type": "array", "contains": {"const": 1}}, [1], [], "excluded"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 1, 3, "reported"),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, 1, None, "excluded"),
        ({"propertyNames": {"enum": ["a", "b"]}, "type": "object"}, {"a": 1}, {"c": 1}, "excluded"),
        ({"propertyNames": {"pattern": "^a"}, "type": "object"}, {"ab": 1}, {"c": 1}, "excluded"),
        ({"propertyNames": {"maxLength": 2}, "type": "object"}, {"ab": 1}, {"abc": 1}, "reported"),
        ({"patternProperties": {"^a": {"type": "integer"}}}, {"a": 1}, {"a": "x"}, "excluded"),
        ({"patternProperties": {"^a": {"type": "integer"}, "b$": {}}}, {"ab": 1}, {"ab": "x"}, "reported"),
        ({"type": "string", "pattern": "^(?!no)[a-z]+$"}, "yes", "no", "reported"),
        ({"type": "string", "pattern": "^(?!no)[a-z]+$"}, "yes", "12", "excluded"),
        ({"type": "string", "pattern": r"^\p{Lu}+$"}, "ÄÖ", "äö", "excluded"),
        ({"type": "number", "multipleOf": 0.01}, 0.07, 0.075, "excluded"),
        ({"type": "number", "multipleOf": 0.123456789}, 0.246913578, 0.2, "reported"),
        ({"type": "string", "format": "date"}, "2024-02-29", "29 Feb", "excluded"),
        ({"type": "string", "format": "date"}, "2024-02-29", "2023-02-29", "reported"),
        (
            {"type": "string", "format": "date-time"},
            "2024-02-29T10:00:00Z",
            "2023-02-29T10:00:00Z",
            "reported",
        ),
        ({"minProperties": 2, "properties": {"a": {}, "b": {}}}, {"a": 1, "b": 2}, {"a": 1}, "reported"),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, {"b": 1}, "excluded"),
        ({"prefixItems": [{"const": 1}], "unevaluatedItems": False}, [1], [1, 2], "excluded"),
        ({"$ref": "#it", "$defs": {"x": {"$anchor": "it", "type": "integer"}}}, 1, "x", "excluded"),
        ({"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"type": "integer"}}}, 1, "x", "excluded"),
        (
            {"properties": {"v": {"type": "integer"}, "c": {"$ref": "#", "minProperties": 1}}},
            {"c": {"v": 1}},
            {"c": {}},
            "reported",
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "items": [{"const": 1}],
                "additionalItems": False,
            },
            [1],
            [1, 2],
            "excluded",
        ),
        ({"items": [{"const": 1}], "additionalItems": False}, [1], [2], "excluded"),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4, 3, "excluded"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_values_that_are_not_valid_are_excluded_or_reported(
    schema: Any, valid: Any, invalid: Any, expected: str
) -> None:
    assert outcome(schema, valid) == "valid"
    assert outcome(schema, invalid) == expected


DRAFT_4, DRAFT_7 = (f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 7))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/x", "x": {"allOf": 3}}, "allOf"),
        ({"$ref": "#/x", "x": {"not": 3}}, "not"),
        ({"$ref": "#/x", "x": {"$ref": "#/y"}, "y": {"required": 3}}, "required"),
        ({"$ref": "#/enum/0", "enum": [{"type": "strin"}]}, "type"),
        ({"items": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"maxLength": "x"}}}, "maxLength"),
        ({"$schema": DRAFT_4, "properties": {"a": {"$ref": False}}}, "$ref=False"),
        ({"properties": {"a" * 5000: 3}}, f"aaa of the schema is not valid, at $.properties.{'a' * 50}"),
        ({"$schema": True}, "True"),
        ({"$schema": ["a"]}, "a"),
        ({"$schema": "http://["}, "http"),
    ],
    ids=str,
)
def test_what_a_reference_refers_to_must_be_a_valid_schema_wherever_it_is(schema: Any, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=re.escape(words)) as caught:
        Grammar.json_schema(schema)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 1, "if": []},
        {"$schema": DRAFT_4, "if": [], "then": 3, "else": [], "const": 2, "propertyNames": 3},
        {"$schema": DRAFT_7, "prefixItems": 3, "minContains": "a", "contains": {}, "dependentSchemas": 3},
        {"items": [{"prefixItems": 3}]},
    ],
    ids=str,
)
def test_a_keyword_that_a_draft_does_not_know_may_have_any_value(schema: Any) -> None:
    assert outcome(schema, 1) == "valid"


def test_the_error_of_an_answer_names_keyword_path_and_value() -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    grammar = Grammar.json_schema(schema)
    assert grammar.error('{"tags": [1, 1]}') == "uniqueItems at $.tags: [1, 1] has non-unique elements"
    assert "cannot be read as JSON" in str(grammar.error('{"tags": ['))
    assert "out of the range of numbers" in str(grammar.error("1e999"))
    assert "nested too deeply" in str(grammar.error("[" * 5000 + "]" * 5000))
    assert Grammar.regex("a").error("b") is None, "masks enforce all of it"


def test_a_pattern_that_takes_exponential_time_is_reported() -> None:
    grammar = Grammar.json_schema({"type": "string", "pattern": "^(?!x)(a|a)*$"})
    assert "takes more than 1 s" in str(grammar.error(json.dumps("a" * 60 + "b")))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LOOKAROUNDS), st.text("abn-+.12]()", max_size=6))
def test_patterns_without_lookaround_match_all_that_those_with_it_match(pattern: str, text: str) -> None:
    weaker = without_lookaround(pattern)
    assert not re.search(r"\(\?[=!<]", weaker)
    assert re.search(weaker, text) or not re.search(pattern, text)
    assert enforces({"type": "string", "pattern": pattern}, text) or not re.search(pattern, text)


def test_nothing_is_downloaded() -> None:
    for reference in ("http://127.0.0.1:9/x.json", "file:///etc/passwd", "#/$defs/none", "#none"):
        for schema in (
            {"$ref": reference},
            {"not": {"$ref": reference}},
            {"contains": {"$dynamicRef": reference}},
        ):
            with pytest.raises(InvalidOptionError, match="refers to nothing"):
                Grammar.json_schema(schema)


# Schemas as libraries write them


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Bird(BaseModel):
    kind: Literal["bird"]
    wings: int = Field(ge=0, le=2)


class Fish(BaseModel):
    kind: Literal["fish"]
    fins: set[Literal["left", "right"]]


class Chain(BaseModel):
    value: int = Field(ge=0, le=9)
    rest: list["Chain"] = Field(max_length=1)


PYDANTIC_TYPES: list[Any] = [
    decimal.Decimal,
    Annotated[decimal.Decimal, Field(max_digits=4, decimal_places=2)],
    set[Literal["a", "b"]],
    Annotated[frozenset[bool], Field(max_length=2)],
    Bird | Fish,
    Annotated[Bird | Fish, Field(discriminator="kind")],
    int | None,
    Colour,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    ipaddress.IPv4Address,
    Annotated[dict[str, int], Field(max_length=1)],
    dict[Literal["a", "b"], int],
    dict[Colour, bool],
    tuple[int, Annotated[str, Field(max_length=3)]],
    Annotated[list[float], Field(max_length=2)],
    Annotated[str, Field(pattern=r"^[A-Z]{3}\d{2}$")],
    Annotated[int, Field(multiple_of=5, ge=0, le=100)],
    Annotated[float, Field(gt=0, lt=1)],
    Chain,
    int | Annotated[str, Field(max_length=4)],
    Any,
]


STRICTER_THAN_THEIR_SCHEMA = (decimal.Decimal, PYDANTIC_TYPES[1], datetime.timedelta)
"""Decimals have a number of digits, durations a largest value; their schemas do not say so."""


@pytest.mark.parametrize("kind", PYDANTIC_TYPES, ids=str)
def test_pydantics_types_are_answered(kind: Any) -> None:
    """Whatever is reported as valid is valid for pydantic; the error of any other answer names its place."""
    schema = TypeAdapter(kind).json_schema()
    whole: dict[str, Any] = {"type": "object", "properties": {"it": schema}, "required": ["it"]}
    if "$defs" in schema:
        whole["$defs"] = schema.pop("$defs")
    answered = 0
    for seed in range(4):
        answer = DECODER.generate("x", grammar=whole, temperature=1.0, seed=seed, max_new_tokens=90)
        if answer.schema_error is None:
            answered += 1
            if kind not in STRICTER_THAN_THEIR_SCHEMA:
                TypeAdapter(kind).validate_json(json.dumps(json.loads(answer.text)["it"]))
        elif answer.finish_reason != "length":
            assert re.search(r" at \$\.it|out of the range of numbers", answer.schema_error)
    assert answered or kind in (Any, *STRICTER_THAN_THEIR_SCHEMA), "these may go on for long"


def test_schemas_of_zod_are_enforced() -> None:
    """As MCP servers in TypeScript send them: ``$schema`` of draft 7 or 2020-12, records, emoji, unions."""
    record = {
        "type": "object",
        "propertyNames": {"type": "string"},
        "additionalProperties": {"type": "integer"},
    }
    for draft in (DRAFT_7, "https://json-schema.org/draft/2020-12/schema"):
        schema = {
            "$schema": draft,
            "type": "object",
            "additionalProperties": False,
            "required": ["filters", "mood"],
            "properties": {
                "filters": record,
                "mood": {"type": "string", "pattern": r"^(\p{Extended_Pictographic}|\p{Emoji_Component})+$"},
                "id": {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]},
            },
        }
        assert outcome(schema, {"filters": {"a": 1}, "mood": "🦊"}) == "valid"
        assert outcome(schema, {"filters": {"a": "x"}, "mood": "🦊"}) == "excluded"
        assert outcome(schema, {"filters": {}, "mood": "sad"}) != "valid"
        assert outcome(schema, {"filters": {}, "mood": "🦊", "more": 1}) == "excluded"

"""Arbitrary schemas, rules and patterns: compiled, followed and checked, or refused."""

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.random_schemas import random_schema
from cosd_core import Grammar
from tests.fuzz.survival import fuzzed, survive
from tests.fuzz.values import mutated, nests, texts, values
from tests.schemas import admits

KEYWORDS = (
    "type", "enum", "const", "properties", "required", "items", "prefixItems", "additionalProperties",
    "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "$ref", "$defs", "pattern", "format",
    "minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems", "maxItems", "uniqueItems",
    "contains", "minContains", "propertyNames", "patternProperties", "dependentRequired",
    "unevaluatedProperties", "$id", "$anchor", "$dynamicRef", "$schema", "minProperties", "default",
    "title", "x-guidance",
)  # fmt: skip
WORDS = (
    "string", "object", "array", "integer", "#", "#/$defs/a", "#/properties/a", "^(a+)+$", "(?=a)b",
    "[", "date",
)  # fmt: skip
LARK = (
    "start:", "start[lazy]:", "a:", "A:", "b[max_tokens=3]:", "%ignore", "%import common.INT", "%json",
    "%regex", "%llguidance", "(", ")", "[", "]", "|", "?", "*", "+", "~", "{2,5}", "{100000}", '"x"',
    '"', "'", "/a+/", "/(/", "/(a+)+b/", "/(?s:.*)/", "<[1]>", "<|im_end|>", "<", "&", "start", "a",
    "A", "\n", "\n", " ", '{"type": "object"}', "// c", "->", ".", "_", "@", "{}", "\\", "1..2",
    '"a".."z"', "%declare", "%override",
)  # fmt: skip
REGEX = (
    "a", "b", "(", ")", "[", "]", "|", "*", "+", "?", "{3}", "{2,1000}", "{100000}", "(?:", "(?=",
    "(?!", "(?<=", "\\d", "\\w", "\\p{L}", "\\1", "(?P<n>", "(?i)", "^", "$", ".", "\\", "[^", "&", "~",
    "-", "\\x00", "é", "\n", "(a+)+", "(.*)*",
)  # fmt: skip

schemas = st.recursive(
    st.booleans() | values | st.sampled_from(WORDS),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYWORDS),
        inner | st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_size=5,
    ),
    max_leaves=12,
)
random_schemas = st.integers(0, 2**32).map(lambda seed: random_schema(random.Random(seed)))


def follow(grammar: Grammar | None) -> None:
    """Use a grammar that was accepted."""
    if grammar is not None:
        for text in ('{"a": 1}', "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "[]", "", "\x00é"):
            survive(lambda text=text: admits(grammar, text))
            survive(lambda text=text: grammar.error(text))


@fuzzed
@given(schema=schemas | values)
def test_schemas(schema: Any) -> None:
    follow(survive(lambda: Grammar.of(schema)))


@fuzzed
@given(schema=random_schemas.flatmap(lambda schema: mutated(schema, schemas)))
def test_damaged_schemas(schema: Any) -> None:
    follow(survive(lambda: Grammar.json_schema(schema)))


@fuzzed
@given(
    rules=st.lists(st.sampled_from(LARK) | texts, max_size=25).map(" ".join) | nests.map("start: ".__add__)
)
def test_rules(rules: str) -> None:
    follow(survive(lambda: Grammar.lark(rules)))


@fuzzed
@given(pattern=st.lists(st.sampled_from(REGEX) | texts, max_size=15).map("".join) | nests)
def test_patterns(pattern: str) -> None:
    follow(survive(lambda: Grammar.regex(pattern)))


@fuzzed
@given(schema=schemas.map(json.dumps) | nests)
def test_schemas_in_rules(schema: str) -> None:
    follow(survive(lambda: Grammar.lark(f"start: %json {schema}")))

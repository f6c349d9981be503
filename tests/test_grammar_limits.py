"""Schemas and rules of any depth and size end in our error, in threads with small stacks, too."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from cosd_core import Chat, Grammar, InvalidOptionError
from cosd_core.grammar.schema_limits import MAX_CHAIN, MAX_DEPTH
from tests.grids import covering, every


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = wrap(schema)
    return schema


def referring(levels: int, link: Callable[[str], Any]) -> Any:
    """Definitions of which each refers to the next."""
    definitions = {str(at): link(f"#/$defs/{at + 1}") for at in range(levels)}
    return {"$ref": "#/$defs/0", "$defs": {**definitions, str(levels): {"type": "integer"}}}


NESTED: dict[str, Callable[[Any], Any]] = {
    "properties": lambda inner: {"type": "object", "properties": {"a": inner}, "required": ["a"]},
    "items": lambda inner: {"type": "array", "items": inner},
    "anyOf": lambda inner: {"anyOf": [inner, {"type": "null"}]},
    "allOf": lambda inner: {"allOf": [inner]},
    "oneOf": lambda inner: {"oneOf": [inner, {"type": "null"}]},
    "not": lambda inner: {"not": inner},
    "const": lambda inner: {"const": inner} if isinstance(inner, dict) else [inner],
    "prefixItems": lambda inner: {"prefixItems": [inner]},
    "if": lambda inner: {"if": inner, "then": True},
}
LINKS: dict[str, Callable[[str], Any]] = {
    "alone": lambda to: {"$ref": to},
    "object": lambda to: {"type": "object", "properties": {"a": {"$ref": to}}},
    "types": lambda to: {"type": ["object", "null"], "properties": {"a": {"$ref": to}}},
    "sibling": lambda to: {"type": "object", "properties": {"b": {}}, "$ref": to},
    "anyOf": lambda to: {"anyOf": [{"$ref": to}, {"type": "null"}]},
    "allOf": lambda to: {"allOf": [{"$ref": to}, {}]},
    "items": lambda to: {"items": {"$ref": to}},
}


@pytest.mark.parametrize(("keyword", "levels"), covering(product(NESTED, [300, 926, 1_092, 3_000, 50_000])))
def test_a_schema_that_is_nested_too_deeply_is_refused_by_depth_and_limit(keyword: str, levels: int) -> None:
    schema = nested(levels, NESTED[keyword])
    with pytest.raises(InvalidOptionError, match=rf"nested [\d,]+ levels deep .*; at most {MAX_DEPTH}"):
        Grammar.json_schema(schema)
    tool = {"type": "function", "function": {"name": "deep", "parameters": schema}}
    with pytest.raises(InvalidOptionError, match="levels deep"):
        Chat([{"role": "user", "content": "x"}], [tool])


@pytest.mark.parametrize(("link", "levels"), covering(product(LINKS, [300, 1_000, 2_900])))
def test_references_that_lead_too_deep_are_refused_by_depth_and_limit(link: str, levels: int) -> None:
    with pytest.raises(InvalidOptionError, match=rf"\$ref.* lead [\d,]+ levels deep; at most {MAX_CHAIN}"):
        Grammar.json_schema(referring(levels, LINKS[link]))


@pytest.mark.parametrize("stack", [512 << 10, 8 << 20])
def test_what_is_within_the_limits_compiles_in_any_thread(stack: int) -> None:
    failed: list[BaseException] = []

    def compile_all() -> None:
        try:
            for wrap in NESTED.values():
                schema = wrap({"type": "integer"})
                per_level = json.dumps(schema).count("{") + json.dumps(schema).count("[") - 1
                Grammar.json_schema(nested(MAX_DEPTH // (per_level + 1), wrap))
            for link in LINKS.values():
                Grammar.json_schema(referring(MAX_CHAIN // 3, link))
            Grammar.lark("\n".join(["start: r0", *(f"r{at}: r{at + 1}" for at in range(400)), 'r400: "a"']))
        except InvalidOptionError as error:
            if "contradicts" not in str(error):
                failed.append(error)
        except BaseException as error:
            failed.append(error)

    before = threading.stack_size(stack)
    try:
        thread = threading.Thread(target=compile_all)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert not failed, failed


@pytest.mark.parametrize("size", every(2, [926, 3_000]))
def test_no_process_dies(size: int) -> None:
    """In a process of its own: a stack that overflows ends it without an exception."""
    code = textwrap.dedent("""
        import json, sys, threading
        from tests.test_grammar_limits import LINKS, NESTED, nested, referring
        from cosd_core import Grammar, InvalidOptionError

        size = int(sys.argv[1])
        refused = 0

        def try_all():
            global refused
            made = [nested(size, wrap) for wrap in NESTED.values()]
            made += [referring(size, link) for link in LINKS.values()]
            rules = (f"r{at}: r{at + 1}" for at in range(size))
            chain = "\\n".join(["start: r0", *rules, f'r{size}: "a"'])
            terminals = chain.replace("r", "R").replace("staRt", "start")
            texts = [chain, terminals, "start: " + "(" * size + '"a"' + ")" * size]
            schemas = [json.dumps(referring(size, link)) for link in LINKS.values()]
            schemas += ["[" * size, '{"items": ' * size + "{}" + "}" * size]
            texts += [f"start: %json {schema}" for schema in schemas]
            makers = [(Grammar.json_schema, each) for each in made]
            makers += [(Grammar.lark, each) for each in texts]
            makers += [(Grammar.regex, "(" * size + "a" + ")" * size)]
            for make, value in makers:
                try:
                    make(value)
                except InvalidOptionError:
                    refused += 1

        for stack in (512 << 10, 8 << 20):
            threading.stack_size(stack)
            thread = threading.Thread(target=try_all)
            thread.start()
            thread.join()
        print(refused)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(size)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    per_size = len(NESTED) + len(LINKS) + 3 + len(LINKS) + 2 + 1
    assert int(done.stdout) == 2 * per_size


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"enum": list(range(100_000))}, "enum of the schema has 100,000 entries; at most 20,000"),
        ({"properties": {f"p{at}": {} for at in range(5_000)}}, "properties .* 5,000 entries; at most 2,000"),
        ({"anyOf": [{"const": at} for at in range(5_000)]}, "anyOf of the schema has 5,000 entries"),
        ({"properties": {f"p{at}": {"anyOf": [{"$ref": "#"}] * 4} for at in range(900)}}, "3,600 references"),
        ({"examples": list(range(300_000))}, "more than 200,000 values"),
    ],
    ids=["enum", "properties", "anyOf", "$ref", "examples"],
)
def test_a_schema_that_is_too_large_is_refused_by_keyword_size_and_limit(schema: Any, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        Grammar.json_schema(schema)


def test_a_schema_that_contains_itself_is_refused() -> None:
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"a": schema}
    with pytest.raises(InvalidOptionError, match="levels deep"):
        Grammar.json_schema(schema)


def union(size: int) -> Any:
    """Definitions each of which may be any other."""
    references = [{"$ref": f"#/$defs/{at}"} for at in range(size)]
    named = {str(at): {"anyOf": [*references, {"properties": {f"p{at}": {}}}]} for at in range(size)}
    return {"$ref": "#/$defs/0", "$defs": named}


def branching(levels: int) -> Any:
    """Definitions that are reached in two ways from each, so in 2 to the power of ``levels`` ways."""
    link = lambda to: {"anyOf": [{"properties": {f"{name}{to}": {}}, "$ref": to} for name in "ab"]}  # noqa: E731
    return referring(levels, link)


@pytest.mark.parametrize(
    "schema",
    [
        union(50), branching(90), {"enum": [*map(str, range(19_000)), None], "type": ["string", "null"]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "enum": [*map(str, range(19_000)), None]},
        {"enum": [{"a": at} for at in range(19_000)]},
        {"type": "object", "properties": {f"p{at}": {"type": "integer"} for at in range(1_900)}},
        {"oneOf": [{"properties": {f"p{at}": {}}, "required": [f"p{at}"]} for at in range(950)]},
        {"allOf": [{"properties": {f"p{at}": {"minimum": at}}} for at in range(950)]},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "minItems": 10**6},
        {"type": "integer", "minimum": 10**30},
    ],
    ids=lambda schema: str(schema)[:40],
)  # fmt: skip
def test_a_large_schema_compiles_in_seconds(schema: Any) -> None:
    started = time.perf_counter()
    Grammar.json_schema(schema)
    assert time.perf_counter() - started < 30, "it takes 3 s at most, and would take minutes without limits"

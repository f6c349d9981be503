"""Limits on Lark rules and regular expressions, checked without recursion before llguidance gets them."""

import json
import re
from collections.abc import Iterator

from cosd_core.errors import InvalidOptionError
from cosd_core.grammar.schema_limits import MAX_DEPTH, check_chain, check_limits

MAX_RULE_CHAIN = 500
"""Rules that lead to each other, the first to the second and so on. Each needs 3 kB of stack."""

MAX_CHARACTERS = 1_000_000

_MAX_SCHEMA_DEPTH = MAX_DEPTH + 4
"""An enforced schema is a little deeper than the schema it is made of."""

_JSON_TOKEN = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_TOKEN = re.compile(
    r'(?P<json>%json\s*)|(?P<skipped>"(?:\\.|[^"\\\n])*"i?|/(?:\\.|[^/\\\n])+/[imslux]*|//[^\n]*)'
    r"|(?P<rule>^[ \t]*[?!]?(?P<defined>\w+)(?:\[[^\]\n]*\])?(?:\.-?\d+)?\s*:)|(?P<name>\w+)"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])",
    re.MULTILINE,
)


def check_pattern(pattern: str) -> None:
    """Check the size and the depth of a regular expression.

    Raises:
        InvalidOptionError: A limit is exceeded.
    """
    _check_length(pattern, "pattern")
    depth = deepest = 0
    for each in re.finditer(r"\\.|[()]", pattern, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(each[0], 0)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise InvalidOptionError(
            f"the groups of the pattern are nested {deepest} levels deep; at most {MAX_DEPTH}"
        )


def check_rules(rules: str) -> None:
    """Check the size of Lark rules, the depth of their brackets and schemas, and the chains of their names.

    Raises:
        InvalidOptionError: A limit is exceeded.
    """
    _check_length(rules, "rules")
    graph: dict[str, set[str]] = {}
    names: set[str] = set()
    depth = deepest = at = 0
    while (token := _TOKEN.search(rules, at)) is not None:
        at = token.end()
        if token["json"]:
            at = _skip_schema(rules, at)
        elif token["rule"]:
            names, depth = graph.setdefault(token["defined"], set()), 0
        elif token["name"]:
            names.add(token["name"])
        elif token["open"] or token["close"]:
            depth += 1 if token["open"] else -1
            deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise InvalidOptionError(
            f"the brackets of the rules are nested {deepest} levels deep; at most {MAX_DEPTH}"
        )
    if (chain := _longest_chain(graph)) > MAX_RULE_CHAIN:
        raise InvalidOptionError(
            f"the rules lead {chain:,} levels deep to each other; at most {MAX_RULE_CHAIN}"
        )


def _check_length(text: str, name: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise InvalidOptionError(f"{name} has {len(text):,} characters; at most {MAX_CHARACTERS:,}")


def _skip_schema(rules: str, at: int) -> int:
    """Check the JSON Schema at a position; the position after it, or the same if it is no JSON."""
    depth, in_string = 0, False
    for each in _JSON_TOKEN.finditer(rules, at):
        if each[0] == '"':
            in_string = not in_string
        elif not in_string and len(each[0]) == 1:
            depth += 1 if each[0] in "[{" else -1
            if depth > _MAX_SCHEMA_DEPTH:
                raise InvalidOptionError(
                    f"a %json schema of the rules is nested more than {_MAX_SCHEMA_DEPTH} levels deep"
                )
            if depth == 0:
                break
    try:
        schema, end = json.JSONDecoder().raw_decode(rules, at)
    except (ValueError, RecursionError):
        return at
    check_limits(schema, max_depth=_MAX_SCHEMA_DEPTH)
    if isinstance(schema, dict):
        check_chain(schema)
    return end


def _longest_chain(graph: dict[str, set[str]]) -> int:
    """How deep a search from the rules goes that enters every rule once."""
    seen: set[str] = set()
    deepest = 0
    for start in ("start", *graph):
        stack: list[tuple[int, Iterator[str]]] = [(0, iter((start,)))]
        while stack:
            depth, names = stack[-1]
            name = next((each for each in names if each in graph and each not in seen), None)
            if name is None:
                stack.pop()
                continue
            seen.add(name)
            deepest = max(deepest, depth + 1)
            stack.append((depth + 1, iter(sorted(graph[name]))))
    return deepest

"""Arbitrary JSON, texts and files."""

import copy
import json
import random
from typing import Any

from hypothesis import strategies as st

ODD = (
    "",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "\u2028",
    "\ud800",
    "é",
    "🦊",
    "a" * 3000,
    "-1",
    "nan",
    "None",
    "/",
    "..",
    "[1",
)
texts = st.sampled_from(ODD) | st.text(max_size=12)
numbers = st.sampled_from([0, -1, 1, 2**31, 2**64, 10**400, -(2**63), 0.5, 1e308, float("inf"), float("nan")])
scalars = st.none() | st.booleans() | st.integers(-3, 300) | numbers | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
"""Anything that JSON can hold, and a little more: NaN, half a surrogate pair, numbers that overflow."""

nests = st.builds(
    lambda levels, opening, core: opening[0] * levels + core + opening[1] * levels,
    st.sampled_from([3, 90, 1500, 30_000]),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ("(", ")"), ("{{ (", ") }}")]),
    st.sampled_from(["", "1", "x"]),
)
"""Texts of brackets."""


def as_json(value: Any) -> bytes:
    """JSON text; what has no encoding is escaped."""
    return json.dumps(value).encode()


def mutated(valid: Any, among: st.SearchStrategy[Any] = values) -> st.SearchStrategy[Any]:
    """A value in which some places are left out, doubled, or hold something else."""

    def change(seed: int, replacements: list[Any]) -> Any:
        rng = random.Random(seed)
        changed = copy.deepcopy(valid)
        for replacement in replacements:
            changed = _changed(changed, replacement, rng)
        return changed

    return st.builds(change, st.integers(0, 2**32), st.lists(among, min_size=1, max_size=3))


def _changed(value: Any, replacement: Any, rng: random.Random) -> Any:
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return replacement
    if isinstance(value, list):
        at = rng.randrange(len(value))
        kept = [value[at]] * rng.choice([0, 1, 1, 1, 2])
        return [*value[:at], *(_changed(each, replacement, rng) for each in kept), *value[at + 1 :]]
    key = rng.choice(list(value))
    changed = dict(value)
    if rng.random() < 0.2:
        changed.pop(key)
    elif rng.random() < 0.2:
        changed[str(replacement)] = value[key]
    else:
        changed[key] = _changed(value[key], replacement, rng)
    return changed


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content of a file of which a part is replaced."""
    places = st.integers(0, len(content))
    parts = st.binary(max_size=8) | st.sampled_from(
        [b"\n", b"\r", b"\xff", b"{", b'"', b",", b"\xef\xbb\xbf", b"NaN"]
    )
    return st.builds(
        lambda a, b, part: content[: min(a, b)] + part + content[max(a, b) :], places, places, parts
    )


def files(*lines: Any) -> st.SearchStrategy[bytes]:
    """Files of JSON: whole or damaged, of mutated or of arbitrary values, or of brackets."""
    whole = b"\n".join(map(as_json, lines)) + b"\n"
    one = [mutated(line).map(as_json) for line in lines]
    return st.one_of(
        st.tuples(*one).map(b"\n".join),
        damaged(whole),
        values.map(as_json),
        nests.map(str.encode),
        st.binary(max_size=30),
    )

"""The part of a JSON Schema that token masks enforce; the rest is checked when the text is complete.

A schema is translated to one that llguidance compiles and that admits every value of the original, apart from
objects: they are closed. Models that may add properties tend to add many.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar.compilation import (
    compile_error,
    contradiction,
    is_contradiction,
    serialize,
)
from cosd_core.grammar.references import Place, check_references
from cosd_core.grammar.schema_limits import check_chain, check_limits
from cosd_core.grammar.schema_repair import repaired, without_intersections
from cosd_core.grammar.schema_translation import Translation
from cosd_core.grammar.schema_validation import validator
from cosd_core.utils.threads import run_in_thread

_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
"""JSON as ``json.dumps`` and most chat templates write it. With free white space a model can generate spaces
without end. Lenient: alternatives of ``oneOf`` that may overlap are taken for those of ``anyOf``."""


def schema_source(schema: Any) -> str:
    """A schema as JSON.

    Raises:
        InvalidOptionError: It exceeds a limit, or is no JSON.
    """
    check_limits(schema)
    try:
        plain = dict(schema) if isinstance(schema, Mapping) else schema
        source = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        source.encode()  # half a surrogate pair is no text
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(
            f"schema {quoted(schema)} should be a JSON Schema: {quoted(error)}"
        ) from None
    return source


def enforced_schema(source: str, *, or_object: bool = False) -> str:
    """The part of a schema that is enforced, as JSON for llguidance.

    Args:
        source: The JSON Schema as JSON.
        or_object: Enforce no more than a JSON object where no value is valid, instead of raising.

    Raises:
        InvalidOptionError: The schema is not valid, refers to nothing, leads too deep, or admits no value.
    """
    enforced, reason = _enforced(source)
    if reason and not or_object:
        raise InvalidOptionError(f"the schema contradicts itself, so that no JSON is valid for it: {reason}")
    return enforced


@lru_cache(maxsize=64)
def _enforced(source: str) -> tuple[str, str]:
    """The enforced schema, and a sentence if no value is valid."""
    return run_in_thread(lambda: _enforce(source))


def _enforce(source: str) -> tuple[str, str]:
    try:
        check_limits(json.loads(source))
    except ValueError as error:
        raise InvalidOptionError(f"schema {quoted(source)} should be JSON: {quoted(error)}") from None
    valid = validator(source)
    root = Place.root(valid.schema, valid.META_SCHEMA.get("$id") or valid.META_SCHEMA["id"])
    check_references(root, type(valid))
    closed = Translation(root, closes_objects=True).translate()
    check_chain(closed)
    if not _error(closed):
        return _styled(closed), ""
    opened = Translation(root, closes_objects=False).translate()
    attempts: list[tuple[bool, Callable[[], dict[str, Any]]]] = [  # whether every valid value is admitted
        (True, lambda: opened),
        (False, lambda: repaired(closed, _error)),
        (True, lambda: repaired(opened, _error)),
        (True, lambda: repaired(without_intersections(opened), _error)),
    ]
    reason = ""
    for admits_all, attempt in attempts:
        translated = attempt()
        if not (refusal := _error(translated)):
            return _styled(translated), ""
        if admits_all and is_contradiction(refusal):
            reason = contradiction(refusal)
            break
    kind = valid.schema.get("type") if isinstance(valid.schema, Mapping) else None
    return _styled({"type": kind} if isinstance(kind, str) else {}), reason


def _error(schema: Mapping[str, Any]) -> str:
    return compile_error(serialize("json_schema", _styled(schema)))


def _styled(schema: Mapping[str, Any]) -> str:
    # In ASCII: llguidance cuts the schema in its messages, and panics where that is inside a character.
    return json.dumps({**schema, "x-guidance": _STYLE})

"""Whether a schema is one, and whether a value conforms to it: by jsonschema.

Schemas are given as JSON text here. ``$schema`` names the draft; without it a schema is one of 2020-12, or of
draft 7 or 4 if it is valid only there, as older versions of pydantic and OpenAPI write it.
"""

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar.json_formats import format_checker
from cosd_core.utils.threads import run_in_thread

_PATTERN_SECONDS = 1.0
"""How long one pattern may search one string: some patterns take exponential time."""


@lru_cache(maxsize=64)
def validator(source: str) -> Any:
    """The validator of a schema; it resolves references to the schema itself and to the metaschemas.

    Raises:
        InvalidOptionError: The schema is not valid; the message names the keyword and its JSON path.
    """
    from jsonschema import Draft4Validator, Draft7Validator, validators
    from jsonschema_specifications import REGISTRY

    schema = json.loads(source)
    newest = validators.Draft202012Validator
    first_error = ""
    kinds = [newest, Draft7Validator, Draft4Validator]
    if isinstance(schema, dict) and "$schema" in schema:
        kinds = [_named_draft(schema["$schema"])]
        del schema["$schema"]  # jsonschema would change to the class that it names, without our keywords
    for kind in kinds:
        error = metaschema_error(kind, schema)
        if error is None:
            break
        first_error = first_error or error
    else:
        raise InvalidOptionError(first_error)
    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "multipleOf": _multiple_of,
    }
    return validators.extend(kind, keywords)(schema, registry=REGISTRY, format_checker=format_checker())


def _named_draft(name: object) -> Any:
    """The validator of the draft that ``$schema`` names, that of 2020-12 for an unknown name."""
    from jsonschema import validators

    try:
        assert isinstance(name, str)
        return validators.validator_for({"$schema": name}, default=validators.Draft202012Validator)
    except (AssertionError, ValueError):
        raise InvalidOptionError(
            f"$schema={quoted(name)} of the schema should be the URI of a draft"
        ) from None


def text_error(source: str, text: str) -> str | None:
    """What is wrong with a text as the JSON of a value of the schema, in one sentence; None if nothing is."""
    return _checked(source, lambda: json.loads(text, parse_constant=refuse_constant, parse_float=_finite))


def value_error(source: str, value: Any) -> str | None:
    """What is wrong with a value, by keyword and JSON path, in one sentence; None if nothing is."""
    return _checked(source, lambda: value)


def _checked(source: str, read: Callable[[], Any]) -> str | None:
    try:
        return run_in_thread(lambda: _first_error(validator(source), read()))
    except ValueError as error:
        return f"the text cannot be read as JSON: {quoted(error)}"
    except RecursionError:
        return "the JSON is nested too deeply to be checked"


def _first_error(valid: Any, value: Any) -> str | None:
    from jsonschema.exceptions import best_match

    error = best_match(valid.iter_errors(value))
    if error is None:
        return None
    return f"{error.validator or 'false'} at {_place(error)}"


def metaschema_error(kind: Any, schema: Any) -> str | None:
    """What the metaschema of a draft refuses; patterns are compiled by another package."""
    from jsonschema import validators
    from jsonschema.exceptions import best_match

    if "stringArray" in kind.META_SCHEMA.get("definitions", ()):  # up to draft 7
        # They want the values of enum to differ, which takes quadratic time.
        kind = validators.extend(kind, {"uniqueItems": lambda *_: ()})
    error = best_match(kind(kind.META_SCHEMA).iter_errors(schema))
    if error is None:
        return _pattern_error(schema)
    keyword = next((str(part) for part in reversed(error.absolute_path) if isinstance(part, str)), "schema")
    return f"{quoted(Exception(keyword))} of the schema is not valid, at {_place(error)}"


def _place(error: Any) -> str:
    """Where an error is, and what is wrong there; names of properties may be long."""
    return f"{quoted(Exception(error.json_path))}: {quoted(Exception(error.message), 200)}"


def _pattern_error(schema: Any) -> str | None:
    """The first pattern of a schema that is no regular expression."""
    import regex

    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            named = node.get("patternProperties")
            for pattern in [node.get("pattern"), *(named if isinstance(named, dict) else ())]:
                try:
                    if isinstance(pattern, str):
                        regex.compile(pattern)
                except (regex.error, RecursionError) as error:
                    return (
                        f"pattern={quoted(pattern)} of the schema is no regular expression: {quoted(error)}"
                    )
        if isinstance(node, (dict, list)):
            stack.extend(node.values() if isinstance(node, dict) else node)
    return None


def refuse_constant(constant: str) -> Any:
    """Raise a ``ValueError`` for ``NaN`` and ``Infinity``, which Python's reader of JSON admits."""
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{quoted(number)} is out of the range of numbers")
    return value


# Keywords that jsonschema checks by Python's ``re`` or by rounded division


def _searches(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text; it may name Unicode classes, which ``re`` cannot."""
    import regex

    return regex.search(pattern, text, timeout=_PATTERN_SECONDS) is not None


def _error(message: str) -> Any:
    from jsonschema import ValidationError

    return ValidationError(message)


def _pattern(valid: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001
    if not valid.is_type(instance, "string"):
        return
    try:
        if not _searches(pattern, instance):
            yield _error(f"{instance!r} does not match {pattern!r}")
    except TimeoutError:
        yield _error(f"searching {pattern!r} takes more than {_PATTERN_SECONDS:g} s")


def _pattern_properties(valid: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001
    if not valid.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            try:
                if _searches(pattern, name):
                    yield from valid.descend(value, subschema, path=name, schema_path=pattern)
            except TimeoutError:
                yield _error(f"searching {pattern!r} takes more than {_PATTERN_SECONDS:g} s")


def _additional_properties(valid: Any, additional: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not valid.is_type(instance, "object"):
        return
    patterns = schema.get("patternProperties", {})
    for name, value in instance.items():
        try:
            if name in schema.get("properties", {}) or any(_searches(each, name) for each in patterns):
                continue
        except TimeoutError:
            continue  # patternProperties reports it
        if additional is False:
            yield _error(f"the property {name!r} is not allowed")
        else:
            yield from valid.descend(value, additional, path=name)


def _multiple_of(valid: Any, factor: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001
    """As decimal numbers: 0.07 is a multiple of 0.01, though 0.07 / 0.01 is 7.000000000000001."""
    if valid.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(factor)):
        yield _error(f"{instance!r} is not a multiple of {factor}")

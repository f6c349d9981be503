"""Constraints on the generated text: a JSON schema, a regular expression or a Lark grammar."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_origin

from pydantic import PydanticUserError, TypeAdapter

from cosd_core.errors import InvalidOptionError, quoted

Schema = Mapping[str, Any]

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as ``json.dumps`` and most chat templates write it. With free white space a model can generate spaces
without end."""

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""Values of ``format`` that are enforced. All others are annotations (JSON Schema 2020-12, 7.2.1)."""

_SCHEMA_KEYWORDS = ("items", "additionalProperties", "not")
_SCHEMA_LIST_KEYWORDS = ("anyOf", "oneOf", "prefixItems")
_SCHEMA_MAPPING_KEYWORDS = ("properties", "patternProperties", "$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Grammar:
    """The set of texts that may be generated. Every model's logits are masked to it before verification.

    Made by :meth:`json_schema`, :meth:`regex` or :meth:`lark`.

    Attributes:
        kind: The kind of ``source``.
        source: The JSON schema as JSON, the pattern, or the rules.
        spelt: Names of special tokens that the grammar matches as the characters of their names.
    """

    kind: Literal["json_schema", "regex", "lark"]
    source: str
    spelt: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        from llguidance import LLMatcher  # here: most generations need no grammar

        if error := LLMatcher.validate_grammar(self.compiled()):
            raise InvalidOptionError(f"grammar {quoted(self.source)} is not usable: {quoted(error, 300)}")

    @classmethod
    def json_schema(cls, schema: Schema | type[Any]) -> Self:
        """JSON that is valid for a schema.

        Args:
            schema: A dictionary, or a class that pydantic can describe: a model, a ``TypedDict``. Objects
                admit only the properties that the schema lists, unless it sets ``additionalProperties``.

        Raises:
            InvalidOptionError: The schema is invalid, contradicts itself, or uses a keyword that cannot be
                enforced token by token (``uniqueItems``, ``not``, ``if``).
        """
        try:
            source = json.dumps(guided_schema(_as_schema(schema)), ensure_ascii=False)
        except (TypeError, ValueError, RecursionError, PydanticUserError) as error:
            raise InvalidOptionError(
                f"schema {quoted(schema)} should be a JSON schema: {quoted(error)}"
            ) from None
        return cls("json_schema", source)

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Texts that a regular expression matches in full (Rust's syntax: no look-around).

        Raises:
            InvalidOptionError: The pattern is invalid.
        """
        return cls("regex", _check_text(pattern, "pattern"))

    @classmethod
    def lark(cls, rules: str, *, spelt: Collection[str] = ()) -> Self:
        """Texts that a Lark grammar derives from its rule ``start``, in the dialect of llguidance.

        Args:
            rules: The rules.
            spelt: Names of special tokens that the grammar matches as the characters of their names.

        Raises:
            InvalidOptionError: The rules are invalid.
        """
        return cls("lark", _check_text(rules, "rules"), frozenset(spelt))

    @classmethod
    def of(cls, described: Schema | type[Any]) -> Self:
        """The grammar of a JSON schema, or of the output of :meth:`to_dict`.

        Raises:
            InvalidOptionError: The value is neither.
        """
        match described:
            case {"regex": str(pattern), **rest} if not rest:
                return cls.regex(pattern)
            case {"lark": str(rules), **rest} if not rest:
                return cls.lark(rules)
        return cls.json_schema(described)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values: the schema itself, or the kind with its source."""
        if self.kind == "json_schema":
            return cast(dict[str, Any], json.loads(self.source))
        return {self.kind: self.source}

    def compiled(self) -> str:
        """The grammar in llguidance's serialization."""
        from llguidance import LLMatcher  # here: most generations need no grammar

        serialize: Callable[[str], str] = getattr(LLMatcher, f"grammar_from_{self.kind}")
        return serialize(self.source)


def guided_schema(schema: Schema) -> dict[str, Any]:
    """A schema for token masks: objects closed, spacing fixed, formats that cannot be enforced removed."""
    return {**_close_objects(schema), "x-guidance": _SPACING}


def _as_schema(schema: object) -> Schema:
    if isinstance(schema, Mapping):
        return schema
    if isinstance(schema, type) or get_origin(schema) is not None:
        return TypeAdapter(cast(Any, schema)).json_schema()
    raise TypeError(f"{type(schema).__name__} is neither a dictionary nor a class")


def _check_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidOptionError(f"{name}={quoted(value)} should be a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidOptionError(f"{name}={quoted(value)} is no text: it holds half a surrogate pair")
    return value


def _close_objects(schema: Any) -> Any:
    """Forbid properties that are not listed, in a schema and all its subschemas.

    The parts of ``allOf`` stay open: an object must match all of them, and closed parts exclude each other.
    """
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for name, value in schema.items():
        if name in _SCHEMA_KEYWORDS:
            closed[name] = _close_objects(value)
        elif name in _SCHEMA_LIST_KEYWORDS and isinstance(value, (list, tuple)):
            closed[name] = [_close_objects(each) for each in value]
        elif name in _SCHEMA_MAPPING_KEYWORDS and isinstance(value, Mapping):
            closed[name] = {key: _close_objects(each) for key, each in value.items()}
    if closed.get("format") not in (None, *_FORMATS):
        del closed["format"]
    if "properties" in closed and "allOf" not in closed:
        closed.setdefault("additionalProperties", False)
    return closed

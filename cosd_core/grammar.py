"""What a text may be: a JSON schema, a regular expression or a Lark grammar, as a checked value."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_origin

from llguidance import LLMatcher
from pydantic import PydanticUserError, TypeAdapter

from cosd_core.errors import InvalidOptionError, quoted

Schema = Mapping[str, Any]

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as ``json.dumps`` and most chat templates write it. Free white space would let a model write nothing
but spaces for ever."""

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""Values of ``format`` that are enforced. All others are remarks to a reader (JSON Schema 2020-12, 7.2.1)."""

_HOLDING_A_SCHEMA = ("items", "additionalProperties", "not")
_HOLDING_A_LIST = ("anyOf", "oneOf", "prefixItems")
_HOLDING_NAMED = ("properties", "patternProperties", "$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Grammar:
    """The texts that a request may be answered with; every model is masked to it before they are fused.

    Made by :meth:`json_schema`, :meth:`regex` or :meth:`lark`.

    Attributes:
        kind: What it was made from.
        source: The JSON schema as JSON, the pattern, or the rules.
        spelt: Names of tokens that count as the letters of their names.
    """

    kind: Literal["json_schema", "regex", "lark"]
    source: str
    spelt: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if error := LLMatcher.validate_grammar(self.compiled()):
            raise InvalidOptionError(f"grammar {quoted(self.source)} is not usable: {quoted(error, 300)}")

    @classmethod
    def json_schema(cls, schema: Schema | type[Any]) -> Self:
        """JSON that a schema admits.

        The schema is a dictionary, or a class that pydantic can describe: a model, a ``TypedDict``. Objects
        take no properties but those they name, unless the schema says otherwise.

        Raises:
            InvalidOptionError: The schema is none, contradicts itself, or uses a keyword that cannot be
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
        """Texts that match a regular expression as a whole (Rust's syntax: no look-around).

        Raises:
            InvalidOptionError: The pattern is none.
        """
        return cls("regex", _as_text(pattern, "pattern"))

    @classmethod
    def lark(cls, rules: str, *, spelt: Collection[str] = ()) -> Self:
        """Texts that a Lark grammar derives from its rule ``start``, in the dialect of llguidance.

        Args:
            rules: The rules.
            spelt: Names of tokens that count as the letters of their names.

        Raises:
            InvalidOptionError: The rules are none.
        """
        return cls("lark", _as_text(rules, "rules"), frozenset(spelt))

    @classmethod
    def of(cls, described: Schema | type[Any]) -> Self:
        """What :meth:`to_dict` says, or a JSON schema.

        Raises:
            InvalidOptionError: It is neither.
        """
        match described:
            case {"regex": str(pattern), **rest} if not rest:
                return cls.regex(pattern)
            case {"lark": str(rules), **rest} if not rest:
                return cls.lark(rules)
        return cls.json_schema(described)

    def to_dict(self) -> dict[str, Any]:
        """As plain values: the schema itself, or the kind and its source."""
        if self.kind == "json_schema":
            return cast(dict[str, Any], json.loads(self.source))
        return {self.kind: self.source}

    def compiled(self) -> str:
        """The grammar as llguidance reads it."""
        match self.kind:
            case "json_schema":
                return LLMatcher.grammar_from_json_schema(self.source)
            case "regex":
                return LLMatcher.grammar_from_regex(self.source)
            case "lark":
                return LLMatcher.grammar_from_lark(self.source)


def guided_schema(schema: Schema) -> dict[str, Any]:
    """A schema as the masks need it: objects closed, spacing fixed, formats that nobody enforces left out."""
    return {**_closed(schema), "x-guidance": _SPACING}


def _as_schema(schema: object) -> Schema:
    if isinstance(schema, Mapping):
        return schema
    if isinstance(schema, type) or get_origin(schema) is not None:
        return TypeAdapter(cast(Any, schema)).json_schema()
    raise TypeError(f"{type(schema).__name__} is neither a dictionary nor a class")


def _as_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidOptionError(f"{name}={quoted(value)} should be a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidOptionError(f"{name}={quoted(value)} is no text: it holds half a surrogate pair")
    return value


def _closed(schema: Any) -> Any:
    """Close the objects of a schema and of all schemas within.

    What stands below ``allOf`` stays open: its parts are read together, and closed parts would exclude each
    other.
    """
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for name in _HOLDING_A_SCHEMA:
        if name in closed:
            closed[name] = _closed(closed[name])
    for name in _HOLDING_A_LIST:
        if isinstance(closed.get(name), (list, tuple)):
            closed[name] = [_closed(each) for each in closed[name]]
    for name in _HOLDING_NAMED:
        if isinstance(closed.get(name), Mapping):
            closed[name] = {key: _closed(each) for key, each in closed[name].items()}
    if closed.get("format") not in (None, *_FORMATS):
        del closed["format"]
    if "properties" in closed and "allOf" not in closed:
        closed.setdefault("additionalProperties", False)
    return closed

"""Constraints on the generated text: a JSON Schema, a regular expression or a Lark grammar."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_origin

from pydantic import PydanticUserError, TypeAdapter

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar.compilation import compile_error, serialize
from cosd_core.grammar.enforced_schema import enforced_schema, schema_source
from cosd_core.grammar.rule_limits import check_pattern, check_rules
from cosd_core.grammar.schema_validation import text_error

Schema = Mapping[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Grammar:
    """The set of texts that may be generated. Every model's logits are masked to it before verification.

    Made by :meth:`json_schema`, :meth:`regex` or :meth:`lark`.

    Attributes:
        kind: The kind of ``source``.
        source: The JSON Schema as JSON, the pattern, or the rules.
        spelt: Names of special tokens that the grammar matches as the characters of their names.

    Raises:
        InvalidOptionError: The source is not valid, or too large or too deep.
    """

    kind: Literal["json_schema", "regex", "lark"]
    source: str
    spelt: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.kind == "json_schema":
            enforced_schema(self.source)
            return
        (check_pattern if self.kind == "regex" else check_rules)(self.source)
        if error := compile_error(self.compiled()):
            raise InvalidOptionError(f"grammar {quoted(self.source)} is not usable: {quoted(error, 300)}")

    @classmethod
    def json_schema(cls, schema: Schema | type[Any]) -> Self:
        """JSON that is valid for a schema, as far as token masks can enforce it.

        The grammar enforces most keywords; the others (``uniqueItems``, ``not``, ``if``) are checked when the
        text is complete, and :attr:`Generation.schema_error` says what is wrong. ``docs/usage.md`` lists the
        keywords. The order of properties is that of the schema.

        Args:
            schema: A dictionary (2020-12, or the draft that its ``$schema`` names), or a class that pydantic
                can describe: a model, a ``TypedDict``. Objects admit only the properties that the schema
                lists, unless it sets ``additionalProperties``.

        Raises:
            InvalidOptionError: The schema is not valid, too large or too deep, or admits no value.
        """
        return cls("json_schema", schema_source(_described(schema)))

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Texts that a regular expression matches in full (Rust's syntax: no look-around).

        Raises:
            InvalidOptionError: The pattern is invalid, too long or too deep.
        """
        return cls("regex", _check_text(pattern, "pattern"))

    @classmethod
    def lark(cls, rules: str, *, spelt: Collection[str] = ()) -> Self:
        """Texts that a Lark grammar derives from its rule ``start``, in the dialect of llguidance.

        Args:
            rules: The rules.
            spelt: Names of special tokens that the grammar matches as the characters of their names.

        Raises:
            InvalidOptionError: The rules are invalid, too long or too deep.
        """
        return cls("lark", _check_text(rules, "rules"), frozenset(spelt))

    @classmethod
    def of(cls, described: Schema | type[Any]) -> Self:
        """The grammar of a JSON Schema, or of the output of :meth:`to_dict`.

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
            schema = json.loads(self.source)
            return cast(dict[str, Any], schema if isinstance(schema, dict) else {})
        return {self.kind: self.source}

    def compiled(self) -> str:
        """The grammar in llguidance's serialization."""
        is_schema = self.kind == "json_schema"
        return serialize(self.kind, enforced_schema(self.source) if is_schema else self.source)

    def error(self, text: str) -> str | None:
        """What is wrong with a text by the JSON Schema: keyword, JSON path and reason; None if nothing is.

        None for the other kinds, which the masks enforce as a whole.
        """
        return text_error(self.source, text) if self.kind == "json_schema" else None


def _described(schema: Any) -> Any:
    """A schema as it is, or that of a class."""
    if isinstance(schema, (Mapping, bool)):
        return schema
    try:
        if isinstance(schema, type) or get_origin(schema) is not None:
            return TypeAdapter(cast(Any, schema)).json_schema()
    except (TypeError, ValueError, RecursionError, PydanticUserError) as error:
        raise InvalidOptionError(
            f"schema {quoted(schema)} cannot be described as a JSON Schema: {quoted(error)}"
        ) from None
    raise InvalidOptionError(
        f"schema {quoted(schema)} should be a JSON Schema: a {type(schema).__name__} is "
        "neither a dictionary nor a class"
    )


def _check_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidOptionError(f"{name}={quoted(value)} should be a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidOptionError(f"{name}={quoted(value)} is no text: it holds half a surrogate pair")
    return value

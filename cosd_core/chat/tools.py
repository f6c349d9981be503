"""Descriptions of the tools that a model may call, and arguments parsed by their schemas.

Descriptions that are not valid raise :class:`InvalidOptionError`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar.enforced_schema import enforced_schema, schema_source
from cosd_core.grammar.schema_validation import value_error

_COMBINING_KEYS = ("$ref", "allOf", "anyOf", "oneOf")
_PYTHON_LITERALS = {"True": "true", "False": "false", "None": "null"}
_DEFINITION_KEYS = ("$defs", "definitions")
_JSON_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"),
    (dict, "object"),
)  # fmt: skip
"""``bool`` before ``int``, of which it is a subclass."""


@dataclass(frozen=True)
class Tool:
    """A tool: its name, its purpose, and the JSON Schema of its arguments, which are an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """The tool of ``{"type": "function", "function": {...}}``, or of the inner dictionary."""
        function = function_part(described)
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidOptionError(
                f'tool {quoted(described)} should be {{"type": "function", "function": {{"name": ...}}}}'
            )
        parameters = function.get("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise InvalidOptionError(
                f"parameters={quoted(parameters)} of tool {name!r} should be a JSON schema"
            )
        parameters = {keyword: value for keyword, value in parameters.items() if value is not None}
        if "properties" not in parameters and not any(key in parameters for key in _COMBINING_KEYS):
            parameters = {"type": "object", "properties": {}, **parameters}
        kind = parameters.get("type", "object")
        if kind != "object" and not (isinstance(kind, (list, tuple)) and "object" in kind):
            raise InvalidOptionError(
                f'type={quoted(kind)} of the parameters of tool {name!r} should be "object"'
            )
        tool = cls(name, str(function.get("description") or ""), {**parameters, "type": "object"})
        try:
            tool.enforced_parameters()
        except InvalidOptionError as error:
            raise InvalidOptionError(f"parameters of tool {name!r}: {error}") from error
        return tool

    def enforced_parameters(self) -> str:
        """What a grammar enforces of :attr:`parameters`, as JSON for llguidance: at least a JSON object."""
        return enforced_schema(schema_source(self.parameters), or_object=True)

    def error(self, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with arguments by the schema, in one sentence; None if nothing is."""
        error = value_error(schema_source(self.parameters), arguments)
        return error and f"the arguments do not match the schema of {self.name}: {error}"

    @property
    def definitions(self) -> dict[str, Any]:
        """The definitions to which the arguments' schemas may refer, under their keywords."""
        return {key: self.parameters[key] for key in _DEFINITION_KEYS if key in self.parameters}

    def argument_schema(self, argument: str) -> dict[str, Any]:
        """The schema of one argument, within the whole, to which it may refer."""
        name = str(self.parameters.get("$id", "urn:cosd:parameters"))
        pointer = quote(argument.replace("~", "~0").replace("/", "~1"), safe="~")
        whole = {**self.parameters, "$id": name}
        return {"$ref": f"{name}#/properties/{pointer}", "$defs": {"parameters": whole}}

    @property
    def properties(self) -> Mapping[str, Any]:
        """The schemas of the arguments by name."""
        properties = self.parameters.get("properties")
        return properties if isinstance(properties, Mapping) else {}

    @property
    def required(self) -> Sequence[str]:
        """The names of the required arguments."""
        required = self.parameters.get("required")
        return required if isinstance(required, (list, tuple)) else ()

    def parse_argument(self, argument: str, text: str) -> Any:
        """The value of an unquoted text: parsed if the schema admits its JSON type, else the text itself."""
        admitted = self.json_types(self.properties.get(argument))
        try:
            value = json.loads(_PYTHON_LITERALS.get(text.strip(), text))
        except (ValueError, RecursionError):
            return text
        json_type = _json_type(value)
        fits = json_type in admitted or (json_type == "integer" and "number" in admitted)
        return value if fits and json_type != "string" else text

    def json_types(self, schema: Any, depth: int = 0) -> frozenset[str]:
        """The JSON types that a schema names; empty if it names none."""
        if not isinstance(schema, Mapping) or depth > 8:  # schemas may refer to themselves
            return frozenset()
        declared = schema.get("type")
        types = {declared} if isinstance(declared, str) else set(declared or ())
        types.update(map(_json_type, schema.get("enum", ())))
        if "const" in schema:
            types.add(_json_type(schema["const"]))
        for part in [part for key in _COMBINING_KEYS[1:] for part in schema.get(key, ())]:
            types |= self.json_types(part, depth + 1)
        if isinstance(reference := schema.get("$ref"), str):
            section, _, name = reference.removeprefix("#/").partition("/")
            types |= self.json_types(self.definitions.get(section, {}).get(name), depth + 1)
        return frozenset(types)


def _json_type(value: Any) -> str:
    return next((name for python_type, name in _JSON_TYPES if isinstance(value, python_type)), "null")


def as_json(value: object) -> str:
    """A value as JSON, with characters outside of ASCII as they are."""
    return json.dumps(value, ensure_ascii=False)


def function_part(described: object) -> Mapping[str, Any]:
    """The ``function`` of a tool or a call in OpenAI's format, or the whole; empty if it is no dictionary."""
    function = described.get("function", described) if isinstance(described, Mapping) else None
    return function if isinstance(function, Mapping) else {}


def parse_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """Tools from their descriptions, which must be valid, with names that differ and are not reserved."""
    parsed = tuple(map(Tool.of, tools or ()))
    names = [tool.name for tool in parsed]
    if reserved := [name for name in names if name in ("auto", "none", "any")]:
        raise InvalidOptionError(f"a tool cannot be called {reserved[0]!r}: that is a tool_choice")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidOptionError(f"tools has {twice[0]!r} twice: give every tool a name of its own")
    return parsed

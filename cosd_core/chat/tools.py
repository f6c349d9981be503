"""The tools a model may call, as frameworks describe them, and values typed by their schemas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from cosd_core.errors import InvalidOptionError, quoted

_COMBINED = ("$ref", "allOf", "anyOf", "oneOf")
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_SHARED = ("$defs", "definitions")
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"),
    (dict, "object"),
)  # fmt: skip
"""``bool`` before ``int``, of which it is a subclass."""


@dataclass(frozen=True)
class Tool:
    """A tool: its name, what it is for, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """Read ``{"type": "function", "function": {...}}``, or what is inside of it.

        Raises:
            InvalidOptionError: The tool has no name, or its parameters are no schema.
        """
        function = described.get("function", described) if isinstance(described, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if function is None or not isinstance(name, str) or not name:
            raise InvalidOptionError(
                f'tool {quoted(described)} should be {{"type": "function", "function": {{"name": ...}}}}'
            )
        parameters = function.get("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise InvalidOptionError(
                f"parameters={quoted(parameters)} of tool {name!r} should be a JSON schema"
            )
        if "properties" not in parameters and not any(key in parameters for key in _COMBINED):
            parameters = {"type": "object", "properties": {}, **parameters}
        return cls(name, str(function.get("description") or ""), parameters)

    @property
    def shared(self) -> dict[str, Any]:
        """The definitions that schemas of single arguments may refer to."""
        return {key: self.parameters[key] for key in _SHARED if key in self.parameters}

    @property
    def properties(self) -> Mapping[str, Any]:
        """The schemas of the arguments by name."""
        properties = self.parameters.get("properties")
        return properties if isinstance(properties, Mapping) else {}

    @property
    def required(self) -> Sequence[str]:
        """The arguments that a call must have."""
        required = self.parameters.get("required")
        return required if isinstance(required, (list, tuple)) else ()

    def typed(self, argument: str, text: str) -> Any:
        """The value that a text without quotes stands for: as the schema says, or else the text itself."""
        kinds = self.kinds(self.properties.get(argument))
        try:
            value = json.loads(_PYTHON.get(text.strip(), text))
        except (ValueError, RecursionError):
            return text
        kind = next((name for type_, name in _KINDS if isinstance(value, type_)), "null")
        fits = kind in kinds or (kind == "integer" and "number" in kinds)
        return value if fits and kind != "string" else text

    def kinds(self, schema: Any, depth: int = 0) -> frozenset[str]:
        """The JSON types a schema speaks of; none if it does not say."""
        if not isinstance(schema, Mapping) or depth > 8:  # schemas may refer to themselves
            return frozenset()
        declared = schema.get("type")
        kinds = {declared} if isinstance(declared, str) else set(declared or ())
        for value in [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]:
            kinds.add(next((name for type_, name in _KINDS if isinstance(value, type_)), "null"))
        for each in [part for key in _COMBINED[1:] for part in schema.get(key, ())]:
            kinds |= self.kinds(each, depth + 1)
        if isinstance(reference := schema.get("$ref"), str):
            section, _, name = reference.removeprefix("#/").partition("/")
            kinds |= self.kinds(self.shared.get(section, {}).get(name), depth + 1)
        return frozenset(kinds)


def as_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """Tools as values.

    Raises:
        InvalidOptionError: One is not described as it should be, or two have one name.
    """
    read = tuple(map(Tool.of, tools or ()))
    names = [tool.name for tool in read]
    if taken := [name for name in names if name in ("auto", "none", "any")]:
        raise InvalidOptionError(f"a tool cannot be called {taken[0]!r}: that is a tool_choice")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidOptionError(f"tools has {twice[0]!r} twice: give every tool a name of its own")
    return read

"""Tools and schemas in all the forms that LangChain supports."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, TypeAdapter

from cosd_core import InvalidOptionError
from cosd_core.chat.tools import Tool
from cosd_core.errors import quoted

_OF_FUNCTIONS = {"function", "parameters", "input_schema"}
_OF_SCHEMAS = {
    "type", "enum", "const", "properties", "additionalProperties", "$ref", "allOf", "anyOf", "oneOf",
}  # fmt: skip
"""Keys that tell a JSON schema from other dictionaries."""

ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool


def described_tools(tools: Sequence[ToolLike]) -> list[dict[str, Any]]:
    """Tools in OpenAI's form."""
    try:
        described = [_described(tool) for tool in tools]
    except Exception as error:  # a mistake in a user's annotations may raise any exception
        raise InvalidOptionError(f"tools={quoted(tools)}: {quoted(error, 240)}") from error
    for tool in described:
        Tool.of(tool)
    return described


def schema_format(schema: Any) -> dict[str, Any]:
    """A schema as OpenAI's ``response_format``."""
    described = _as_json_schema(schema)
    return {"type": "json_schema", "json_schema": {"name": described["title"], "schema": described}}


def _as_json_schema(schema: Any) -> dict[str, Any]:
    """A schema in any form that LangChain supports, as JSON schema with a title."""
    if is_json_schema(schema):  # LangChain converts objects with properties only
        return {"title": "answer", **schema}
    try:
        if _is_recursive(schema):
            return {"title": schema.__name__, **TypeAdapter(schema).json_schema()}
        return convert_to_json_schema(schema)
    except Exception as error:  # a mistake in a user's annotations may raise any exception
        raise InvalidOptionError(f"schema={quoted(schema)}: {quoted(error, 240)}") from error


def is_json_schema(schema: Any) -> bool:
    """Whether this is a JSON schema, and no description of a function that holds one."""
    if not isinstance(schema, dict) or _OF_FUNCTIONS & schema.keys():
        return False
    return bool(_OF_SCHEMAS & schema.keys())


def _described(tool: ToolLike) -> dict[str, Any]:
    described = convert_to_openai_tool(tool)
    schema: Any = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if _is_recursive(schema):
        described["function"]["parameters"] = TypeAdapter(schema).json_schema()
    return described


def _is_recursive(schema: Any) -> bool:
    """Whether this is a pydantic class that refers to itself.

    LangChain replaces every reference by its definition, which loses recursive references.
    """
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return False
    definitions = schema.model_json_schema().get("$defs", {})
    texts = {name: json.dumps(definition) for name, definition in definitions.items()}
    reachable = {name: {to for to in texts if f'"#/$defs/{to}"' in text} for name, text in texts.items()}
    for _ in texts:  # as many steps as the longest path
        reachable = {name: to.union(*(reachable[each] for each in to)) for name, to in reachable.items()}
    return any(name in to for name, to in reachable.items())

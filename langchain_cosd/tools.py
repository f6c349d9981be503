"""Tools and schemas in all the forms LangChain knows."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, TypeAdapter

from cosd_core import InvalidOptionError
from cosd_core.chat.tools import Tool
from cosd_core.errors import quoted

ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool


def described_tools(tools: Sequence[ToolLike]) -> list[dict[str, Any]]:
    """Tools in OpenAI's form.

    Raises:
        InvalidOptionError: One is of no form that LangChain knows.
    """
    try:
        described = [_described(tool) for tool in tools]
    except Exception as error:  # what is wrong in a user's annotations surfaces as any kind of error
        raise InvalidOptionError(f"tools={quoted(tools)}: {quoted(error, 240)}") from error
    for tool in described:
        Tool.of(tool)
    return described


def schema_format(schema: Any) -> dict[str, Any]:
    """A schema as OpenAI's ``response_format``."""
    described = as_json_schema(schema)
    return {"type": "json_schema", "json_schema": {"name": described["title"], "schema": described}}


def as_json_schema(schema: Any) -> dict[str, Any]:
    """A schema in any form that LangChain takes, as JSON schema with a title.

    Raises:
        InvalidOptionError: It is in none.
    """
    if is_no_object(schema):
        return {"title": "answer", **schema}  # LangChain knows functions only, and those take objects
    if isinstance(schema, dict) and ("properties" in schema or "$ref" in schema):
        schema = {"title": "answer", **schema}
    try:
        if _is_recursive(schema):
            return {"title": schema.__name__, **TypeAdapter(schema).json_schema()}
        return convert_to_json_schema(schema)
    except Exception as error:  # what is wrong in a user's annotations surfaces as any kind of error
        raise InvalidOptionError(f"schema={quoted(schema)}: {quoted(error, 240)}") from error


def is_no_object(schema: Any) -> bool:
    """Whether this is the JSON schema of a list, a text or the like."""
    return isinstance(schema, dict) and schema.get("type", "object") not in ("object", "function")


def _described(tool: ToolLike) -> dict[str, Any]:
    described = convert_to_openai_tool(tool)
    schema: Any = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if _is_recursive(schema):
        described["function"]["parameters"] = TypeAdapter(schema).json_schema()
    return described


def _is_recursive(schema: Any) -> bool:
    """Whether this is a pydantic class that refers to itself.

    LangChain writes every reference out where it stands, and so loses those.
    """
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return False
    definitions = schema.model_json_schema().get("$defs", {})
    texts = {name: json.dumps(definition) for name, definition in definitions.items()}
    below = {name: {each for each in texts if f'"#/$defs/{each}"' in text} for name, text in texts.items()}
    for _ in below:
        below = {name: each.union(*(below[one] for one in each)) for name, each in below.items()}
    return any(name in each for name, each in below.items())

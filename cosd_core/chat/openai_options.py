"""What a call asks of an answer, in OpenAI's words, which every framework passes on."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from cosd_core.errors import InvalidOptionError, quoted

OF_THE_ANSWER = ("tools", "tool_choice", "parallel_tool_calls", "strict", "response_format")
"""Options of one call that are about the answer's form."""


def named_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> str:
    """A tool choice in any of its forms as :class:`Turn` names it.

    Raises:
        InvalidOptionError: It is none of them, or there is no such tool.
    """
    if isinstance(choice, dict):
        named = choice.get("function", choice)
        choice = named.get("name") or named.get("type") if isinstance(named, dict) else choice
    if choice is None or choice is False or choice == "auto":
        return "auto"
    names = [tool["function"]["name"] for tool in tools]
    if choice in names or choice == "none":
        return cast(str, choice)
    if choice is True or choice in ("any", "required"):
        if names:
            return "any"
        raise InvalidOptionError(f"tool_choice={quoted(choice)}, but there are no tools")
    raise InvalidOptionError(
        f"tool_choice={quoted(choice)} should be auto, none, any, or one of the tools: {', '.join(names)}"
    )


def answer_schema(response_format: Any) -> Mapping[str, Any] | None:
    """The JSON schema that a ``response_format`` asks an answer to have, if any.

    Raises:
        InvalidOptionError: It is of no such form.
    """
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema}}:
            return schema
    raise InvalidOptionError(
        f'response_format={quoted(response_format)} should be {{"type": "json_schema", "json_schema": '
        '{"name": ..., "schema": {...}}}, {"type": "json_object"} or {"type": "text"}'
    )


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of one call: those that are settings, and those that are about the answer's form."""
    asked = {name: value for name, value in options.items() if name in OF_THE_ANSWER}
    return {name: value for name, value in options.items() if name not in asked}, asked

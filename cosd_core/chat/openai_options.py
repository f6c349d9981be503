"""Options of one call on the form of its answer, which every framework passes on: OpenAI's, and prefill.

Options that are not valid raise :class:`InvalidOptionError`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from cosd_core.chat.tools import function_part
from cosd_core.errors import InvalidOptionError, quoted

ANSWER_OPTIONS = (
    "tools", "tool_choice", "parallel_tool_calls", "strict", "response_format", "continue_final_message",
)  # fmt: skip
"""The options of one call that are on the form of its answer."""


def named_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> str:
    """A tool choice in any of OpenAI's forms, as the string that :class:`Turn` takes."""
    if isinstance(choice, dict):
        function = choice.get("function", choice)
        choice = function.get("name") or function.get("type") if isinstance(function, dict) else choice
    if choice is None or choice is False or choice == "auto":
        return "auto"
    names = [str(function_part(tool).get("name")) for tool in tools]
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
    """The JSON schema in a ``response_format``; None if it has none."""
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
    """Split the options of one call into the settings and the ``ANSWER_OPTIONS``."""
    answer_options = {name: value for name, value in options.items() if name in ANSWER_OPTIONS}
    return {name: value for name, value in options.items() if name not in answer_options}, answer_options

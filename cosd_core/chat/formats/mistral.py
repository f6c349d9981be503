"""Calls after ``[TOOL_CALLS]``, in both syntaxes of Mistral's templates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosd_core.chat.call_parsers import parse_mistral_calls
from cosd_core.chat.formats.base import ToolFormat, any_call_schema, json_rule
from cosd_core.chat.parser import CallSyntax
from cosd_core.chat.tools import Tool


@dataclass(frozen=True)
class MistralFormat(ToolFormat):
    """``[TOOL_CALLS]`` and a list of calls, or a name, ``[ARGS]`` and arguments: Mistral.

    Attributes:
        named: Whether the template writes the newer syntax, with a name.
        numbered: Whether the template writes ``[CALL_ID]`` after the name.
    """

    name = "mistral"
    tags = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")
    call_ids_have_nine_characters = True

    named: bool = False
    numbered: bool = False

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """CallSyntax, by name and arguments, as the model would write them."""
        if self.named:
            written = [
                f"[TOOL_CALLS]{name}[ARGS]{json.dumps(values, ensure_ascii=False)}" for name, values in calls
            ]
            return "".join(written)
        listed = [{"name": name, "arguments": values} for name, values in calls]
        return f"[TOOL_CALLS] {json.dumps(listed, ensure_ascii=False)}"

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:  # noqa: ARG002 (needed by others)
        return self.tags[0], lambda calls: parse_mistral_calls(calls, self.tags[0])

    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        opener, number, arguments = map(self._grammar_tag, self.tags)
        if not self.named:
            rest = {"rest": f'" "? {json_rule(_list_of(any_call_schema(tools, "arguments"), parallel))}'}
            return {**rest, "calls": f"{opener} rest", **self._free_text_rules(self.tags[0], False)}
        number = f" {number} /[a-zA-Z0-9]{{9}}/" if self.numbered else ""
        named = [
            f"{json.dumps(tool.name)}{number} {arguments} {json_rule(tool.parameters)}" for tool in tools
        ]
        return {
            "rest": " | ".join(named),
            "calls": f"({opener} rest)+" if parallel else f"{opener} rest",
            **self._free_text_rules(self.tags[0], parallel),
        }


def _list_of(schema: Mapping[str, Any], several: bool) -> dict[str, Any]:
    calls = {"type": "array", "items": {"anyOf": schema["anyOf"]}, "minItems": 1}
    return {**calls, **({} if several else {"maxItems": 1}), "$defs": schema["$defs"]}

"""Calls that are the whole answer: Llama 3."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cosd_core.chat.call_parsers import parse_llama_calls
from cosd_core.chat.formats.base import ToolFormat, any_call_schema, json_rule
from cosd_core.chat.parser import CallSyntax
from cosd_core.chat.tools import Tool


class LlamaFormat(ToolFormat):
    """``{"name": ..., "parameters": ...}`` as the whole answer, or after ``<|python_tag|>``: Llama 3."""

    name = "llama3"
    tags = ("<|python_tag|>",)
    allows_bare_calls = True

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """CallSyntax, by name and arguments, as the model would write them."""
        return "; ".join(
            json.dumps({"name": name, "parameters": values}, ensure_ascii=False) for name, values in calls
        )

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:  # noqa: ARG002 (needed by others)
        return self.tags[0], parse_llama_calls

    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        marked = f"{self._grammar_tag(self.tags[0])} objects"
        return {
            "object": json_rule(any_call_schema(tools, "parameters")),
            "objects": 'object ("; " object)*' if parallel else "object",
            "calls": f"objects | {marked}" if self.tags[0] in self.tokens else "objects",
            "PROSE": r"/(\s*[^\s{](?s:.*))?/",
            "free": f"PROSE | calls | PROSE {marked}" if self.tags[0] in self.tokens else "PROSE | calls",
        }

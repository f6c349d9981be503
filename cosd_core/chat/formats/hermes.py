"""Calls between ``<tool_call>`` tags, as JSON or as XML: Hermes and the families of Qwen."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cosd_core.chat.call_parsers import parse_tagged_call
from cosd_core.chat.formats.base import ToolFormat, any_call_schema, json_rule
from cosd_core.chat.parser import CallSyntax
from cosd_core.chat.tools import Tool


class HermesFormat(ToolFormat):
    """``<tool_call>{"name": ..., "arguments": ...}</tool_call>``: Hermes, Qwen 2.5, Qwen 3."""

    name = "hermes"
    tags = ("<tool_call>", "</tool_call>")

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """CallSyntax, by name and arguments, as the model would write them."""
        written = [
            json.dumps({"name": name, "arguments": values}, ensure_ascii=False) for name, values in calls
        ]
        return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in written)

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:
        return self.tags[0], lambda calls: parse_tagged_call(calls, self.tags[1], tools)

    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        opener, closer = map(self._grammar_tag, self.tags)
        return {
            **self._call_rules(tools),
            "rest": rf'"\n" inner "\n" {closer}',
            "calls": f"{opener} rest" + (rf' ("\n" {opener} rest)*' if parallel else ""),
            **self._free_text_rules(self.tags[0], parallel),
        }

    def _call_rules(self, tools: Sequence[Tool]) -> dict[str, str]:
        return {"inner": json_rule(any_call_schema(tools, "arguments"))}


class XmlFormat(HermesFormat):
    """``<tool_call><function=name><parameter=key>value</parameter></function></tool_call>``: Qwen3-Coder."""

    name = "xml"

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """CallSyntax, by name and arguments, as the model would write them."""
        written = []
        for name, arguments in calls:
            values = "".join(
                f"<parameter={key}>\n{_as_text(value)}\n</parameter>\n" for key, value in arguments.items()
            )
            written.append(f"<tool_call>\n<function={name}>\n{values}</function>\n</tool_call>")
        return "\n".join(written)

    def _call_rules(self, tools: Sequence[Tool]) -> dict[str, str]:
        rules = {"inner": " | ".join(f"call_{at}" for at in range(len(tools)))}
        for at, tool in enumerate(tools):
            parts = [json.dumps(f"<function={tool.name}>\n")]
            for place, (key, schema) in enumerate(tool.properties.items()):
                rule = f"p_{at}_{place}"
                rules |= self._parameter(rule, tool, key, schema)
                parts.append(rule if key in tool.required else f"{rule}?")
            rules[f"call_{at}"] = " ".join([*parts, '"</function>"'])
        return rules

    def _parameter(self, rule: str, tool: Tool, key: str, schema: Any) -> dict[str, str]:
        opening = json.dumps(f"<parameter={key}>\n")
        types = tool.json_types(schema)
        if types and "string" not in types:
            return {rule: rf'{opening} {json_rule({**schema, **tool.definitions})} "\n</parameter>\n"'}
        keywords = schema if isinstance(schema, Mapping) else {}  # true is a schema, too
        choices = keywords.get("enum") or ([keywords["const"]] if "const" in keywords else [])
        if choices:
            values = " | ".join(json.dumps(_as_text(choice)) for choice in choices)
            return {rule: rf'{opening} ({values}) "\n</parameter>\n"'}
        return {f"{rule}_text[lazy]": 'TEXT "</parameter>"', rule: rf'{opening} {rule}_text "\n"'}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

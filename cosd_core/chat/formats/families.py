"""The tool formats of model families: Hermes and Qwen, Llama, Mistral."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosd_core.chat.call_parsers import CallSyntax, parse_json_calls, parse_mistral_calls, parse_tagged_call
from cosd_core.chat.formats.base import ToolFormat, call_rules
from cosd_core.chat.tools import Tool, as_json
from cosd_core.grammar.enforced_schema import enforced_schema, schema_source


class HermesFormat(ToolFormat):
    """``<tool_call>{"name": ..., "arguments": ...}</tool_call>``: Hermes, Qwen 2.5, Qwen 3."""

    name = "hermes"
    tags = ("<tool_call>", "</tool_call>")

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, in the syntax of the model."""
        written = [as_json({"name": name, "arguments": values}) for name, values in calls]
        return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in written)

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:
        opener, closer = self.tags
        # Qwen2.5-Coder and other small models often leave the tags out.
        names = frozenset(tool.name for tool in tools)
        return CallSyntax(opener, lambda calls: parse_tagged_call(calls, closer, tools), closer, True, names)

    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        opener, closer = map(self._grammar_tag, self.tags)
        return {
            **self._call_rules(tools),
            "rest": rf'"\n" inner "\n" {closer}',
            "calls": f"{opener} rest" + (rf' ("\n" {opener} rest)*' if parallel else ""),
            **self._free_text_rules(self.tags[0], parallel),
        }

    def _call_rules(self, tools: Sequence[Tool]) -> dict[str, str]:
        return call_rules("inner", tools, "arguments")


class XmlFormat(HermesFormat):
    """``<tool_call><function=name><parameter=key>value</parameter></function></tool_call>``: Qwen3-Coder."""

    name = "xml"

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, in the syntax of the model."""
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
            enforced = enforced_schema(schema_source(tool.argument_schema(key)), or_object=True)
            return {rule: rf'{opening} %json {enforced} "\n</parameter>\n"'}
        keywords = schema if isinstance(schema, Mapping) else {}  # true is a schema, too
        choices = keywords.get("enum") or ([keywords["const"]] if "const" in keywords else [])
        if choices:
            values = " | ".join(json.dumps(_as_text(choice)) for choice in choices)
            return {rule: rf'{opening} ({values}) "\n</parameter>\n"'}
        return {f"{rule}_text[lazy]": 'TEXT "</parameter>"', rule: rf'{opening} {rule}_text "\n"'}


class LlamaFormat(ToolFormat):
    """``{"name": ..., "parameters": ...}`` as the whole answer, or after ``<|python_tag|>``: Llama 3."""

    name = "llama3"
    tags = ("<|python_tag|>",)
    calls_are_whole_answers = True

    def render_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, by name and arguments, in the syntax of the model."""
        return "; ".join(as_json({"name": name, "parameters": values}) for name, values in calls)

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:  # noqa: ARG002 (needed by others)
        return CallSyntax(self.tags[0], parse_json_calls, "", allows_bare_calls=True)

    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        marked = f"{self._grammar_tag(self.tags[0])} objects"
        return {
            **call_rules("object", tools, "parameters"),
            "objects": 'object ("; " object)*' if parallel else "object",
            "calls": f"objects | {marked}" if self.tags[0] in self.tokens else "objects",
            "PROSE": r"/(\s*[^\s{](?s:.*))?/",
            "free": f"PROSE | calls | PROSE {marked}" if self.tags[0] in self.tokens else "PROSE | calls",
        }


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
        """Calls, by name and arguments, in the syntax of the model."""
        if self.named:
            return "".join(f"[TOOL_CALLS]{name}[ARGS]{as_json(values)}" for name, values in calls)
        listed = [{"name": name, "arguments": values} for name, values in calls]
        return f"[TOOL_CALLS] {as_json(listed)}"

    def _call_syntax(self, tools: Sequence[Tool]) -> CallSyntax:  # noqa: ARG002 (needed by others)
        return CallSyntax(self.tags[0], parse_mistral_calls, self.tags[0])  # the next opener begins a call

    def _grammar_rules(self, tools: Sequence[Tool], parallel: bool) -> dict[str, str]:
        opener, number, arguments = map(self._grammar_tag, self.tags)
        if not self.named:
            more = ' (", " listed)*' if parallel else ""
            return {
                **call_rules("listed", tools, "arguments"),
                "rest": f'" "? "[" listed{more} "]"',
                "calls": f"{opener} rest",
                **self._free_text_rules(self.tags[0], False),
            }
        number = f" {number} /[a-zA-Z0-9]{{9}}/" if self.numbered else ""
        named = [
            f"{json.dumps(tool.name)}{number} {arguments} %json {tool.enforced_parameters()}"
            for tool in tools
        ]
        return {
            "rest": " | ".join(named),
            "calls": f"({opener} rest)+" if parallel else f"{opener} rest",
            **self._free_text_rules(self.tags[0], parallel),
        }


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)

"""Parses answers by the tokenizer's own ``response_template`` (transformers 5); malformed calls are kept."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from transformers.utils.chat_parsing.content_parsers import process_field
from transformers.utils.chat_parsing.response_parser import ResponseParser
from transformers.utils.chat_parsing.response_templates import load_response_template

from cosd_core.chat.call_recorder import FindError, MalformedCall, parse_json
from cosd_core.chat.events import CallDelta, CallEnd, CallStart, InvalidCall
from cosd_core.chat.parser import Parser
from cosd_core.chat.tools import Tool, as_json
from cosd_core.errors import InvalidOptionError, quoted

_CALLS = "tool_calls"
_BODY = "cosd:body"
_REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})


class TemplateParser(Parser):
    """Parses with transformers' ``ResponseParser``, except for the content of calls.

    That parser raises at a malformed call and loses all that it parsed before. So it only finds the text of
    the calls here, and this class parses that text: an error invalidates one call.
    """

    def __init__(
        self, template: Mapping[str, Any], prompt: str, tools: Sequence[Tool], find_error: FindError
    ) -> None:
        """Begin an answer to a prompt. Without tools, nothing is parsed as a call."""
        try:
            loaded = load_response_template(deepcopy(dict(template)))
            self._field = load_response_template(dict(template)).fields.get(_CALLS)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidOptionError(
                f"response_template={quoted(template)} of the tokenizer is not usable: {quoted(error)}"
            ) from error
        if self._field is not None and tools:
            transform = json.dumps(self._field.transform)
            groups = [name for name in self._field.open_re.groupindex if f"{{{name}}}" in transform]
            calls = loaded.fields[_CALLS]
            calls.content, calls.content_args, calls.transform_each = "text", {"strip": False}, False
            calls.repeats, calls.join = True, None
            calls.transform = {_BODY: "{content}", **{name: f"{{{name}}}" for name in groups}}
        else:
            loaded.fields.pop(_CALLS, None)
        for field in loaded.fields.values():
            field.optional = True
        super().__init__()
        self._find_error = find_error
        self._tools = {tool.name: tool for tool in tools}
        self._consumed: list[str] = []
        self._count = 0
        self._parser = ResponseParser(loaded, prefix=prompt)

    def _parse(self, text: str) -> None:
        self._consumed.append(text)
        self._convert(self._parser.feed(text), is_cut=False)

    def _parse_end(self) -> None:
        _, events = self._parser.finalize()
        text, closing = "".join(self._consumed), self._field.close_re if self._field else None
        is_cut = closing is not None and all(match.end() < len(text) for match in closing.finditer(text))
        self._convert(events, is_cut=is_cut)

    def _convert(self, events: Sequence[Mapping[str, Any]], *, is_cut: bool) -> None:
        for event in events:
            name, kind = event["field"], event["type"]
            if kind == "region_close" and name == _CALLS:
                self._convert_calls(event["value"], is_cut=is_cut and event is events[-1])
            elif kind == "region_chunk" and name == "content":
                self._text.write(event["text"])
            elif kind == "region_chunk" and name in _REASONING:
                self._reasoning.write(event["text"])
            elif kind == "region_open" and name != "content":
                self._text.mark_tag()
                self._reasoning.mark_tag()

    def _convert_calls(self, region: Mapping[str, str], *, is_cut: bool) -> None:
        """Emit the calls of one region: its text, and the named groups of its opening tag."""
        body = region[_BODY]
        captures = {name: value for name, value in region.items() if name != _BODY}
        try:
            if is_cut:
                raise MalformedCall("cut off by the end of the text")  # noqa: TRY301
            value = process_field(body, self._field, captures)
            calls = [self._parse_call(each) for each in (value if isinstance(value, list) else [value])]
        except (MalformedCall, ValueError, KeyError, TypeError, RecursionError) as error:
            self._events.append(InvalidCall(self._count, body.strip(), quoted(error, 200)))
            self._count += 1
            return
        for name, arguments in calls:
            self._events.append(CallStart(self._count, name))
            self._events.append(CallDelta(self._count, as_json(arguments)))
            if (problem := self._find_error(name, arguments)) is None:
                self._events.append(CallEnd(self._count, name, arguments))
            else:
                self._events.append(InvalidCall(self._count, body.strip(), problem))
            self._count += 1

    def _parse_call(self, call: Any) -> tuple[str, dict[str, Any]]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise MalformedCall("it is not an object")
        name, arguments = function.get("name"), function.get("arguments", {})
        if not isinstance(name, str) or not name.strip():
            raise MalformedCall("it has no name" if name is None else "the name is not a string, or empty")
        if isinstance(arguments, str):
            arguments = parse_json(arguments)
        if not isinstance(arguments, dict):
            raise MalformedCall("the arguments are not an object")
        tool = self._tools.get(name, Tool(name, "", {}))
        return name.strip(), {
            key: tool.parse_argument(key, value) if isinstance(value, str) else value
            for key, value in arguments.items()
        }

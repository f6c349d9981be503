"""Answers read by the tokenizer's own ``response_template`` (transformers 5), safe against broken calls."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from transformers.utils.chat_parsing.content_parsers import process_field
from transformers.utils.chat_parsing.response_parser import ResponseParser
from transformers.utils.chat_parsing.response_templates import load_response_template

from cosd_core.chat.call_recorder import BrokenCall, loads
from cosd_core.chat.events import (
    CallDelta,
    CallEnd,
    CallStart,
    Event,
    InvalidCall,
    ReasoningDelta,
    TextDelta,
    taken,
)
from cosd_core.chat.text_stream import TextStream
from cosd_core.chat.tools import Tool
from cosd_core.errors import InvalidOptionError, quoted

_CALLS = "tool_calls"
_BODY = "cosd:body"
_REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})


class TemplateParser:
    """The parser of transformers, except for the content of calls.

    That parser raises where a call is malformed, and loses what else it read. So it is asked for the calls'
    text only, and what is in there is read here, where an error costs one call.
    """

    def __init__(self, template: Mapping[str, Any], prompt: str, tools: Sequence[Tool]) -> None:
        """Begin an answer to this prompt; without tools there are no calls.

        Raises:
            InvalidOptionError: The template is not what transformers takes.
        """
        try:
            loaded = load_response_template(deepcopy(dict(template)))
            self._field = load_response_template(dict(template)).fields.get(_CALLS)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidOptionError(
                f"response_template={quoted(template)} of the tokenizer is not usable: {quoted(error)}"
            ) from error
        if self._field is not None and tools:
            asked = json.dumps(self._field.transform)
            groups = [name for name in self._field.open_re.groupindex if f"{{{name}}}" in asked]
            calls = loaded.fields[_CALLS]
            calls.content, calls.content_args, calls.transform_each = "text", {"strip": False}, False
            calls.repeats, calls.join = True, None
            calls.transform = {_BODY: "{content}", **{name: f"{{{name}}}" for name in groups}}
        else:
            loaded.fields.pop(_CALLS, None)
        for field in loaded.fields.values():
            field.optional = True
        self._tools = {tool.name: tool for tool in tools}
        self._events: list[Event] = []
        self._text = TextStream(lambda text: self._events.append(TextDelta(text)))
        self._reasoning = TextStream(lambda text: self._events.append(ReasoningDelta(text)))
        self._reasoning.cut()
        self._heard: list[str] = []
        self._count = 0
        self._parser = ResponseParser(loaded, prefix=prompt)

    def feed(self, text: str) -> list[Event]:
        """What has become certain with this piece."""
        self._heard.append(text)
        return self._read(self._parser.feed(text), is_cut=False)

    def finish(self) -> list[Event]:
        """What becomes certain as the text ends here."""
        _, events = self._parser.finalize()
        is_cut = bool(events) and not self._is_closed("".join(self._heard))
        read = self._read(events, is_cut=is_cut)
        self._text.end()
        return [*read, *taken(self._events)]

    def _is_closed(self, heard: str) -> bool:
        """Whether the text ends in what closes a call."""
        closing = self._field.close_re if self._field else None
        return closing is None or any(match.end() == len(heard) for match in closing.finditer(heard))

    def _read(self, events: Sequence[Mapping[str, Any]], *, is_cut: bool) -> list[Event]:
        for event in events:
            name, kind = event["field"], event["type"]
            if kind == "region_close" and name == _CALLS:
                self._call(event["value"], is_cut=is_cut and event is events[-1])
            elif kind == "region_chunk" and name == "content":
                self._text.write(event["text"])
            elif kind == "region_chunk" and name in _REASONING:
                self._reasoning.write(event["text"])
            elif kind == "region_open" and name != "content":
                self._text.cut()
                self._reasoning.cut()
        return taken(self._events)

    def _call(self, region: Mapping[str, str], *, is_cut: bool) -> None:
        """One region of calls: its text, and what its opening tag named."""
        body = region[_BODY]
        captures = {name: value for name, value in region.items() if name != _BODY}
        try:
            if is_cut:
                raise BrokenCall("cut off by the end of the text")  # noqa: TRY301
            value = process_field(body, self._field, captures)
            calls = [self._checked(each) for each in (value if isinstance(value, list) else [value])]
        except (BrokenCall, ValueError, KeyError, TypeError, RecursionError) as error:
            self._events.append(InvalidCall(self._count, body.strip(), quoted(error, 200)))
            self._count += 1
            return
        for name, arguments in calls:
            self._events.append(CallStart(self._count, name))
            self._events.append(CallDelta(self._count, json.dumps(arguments, ensure_ascii=False)))
            self._events.append(CallEnd(self._count, name, arguments))
            self._count += 1

    def _checked(self, call: Any) -> tuple[str, dict[str, Any]]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BrokenCall("it is not an object")
        name, arguments = function.get("name"), function.get("arguments", {})
        if not isinstance(name, str) or not name.strip():
            raise BrokenCall("it has no name" if name is None else "the name is not a string, or empty")
        if isinstance(arguments, str):
            arguments = loads(arguments)
        if not isinstance(arguments, dict):
            raise BrokenCall("the arguments are not an object")
        tool = self._tools.get(name, Tool(name, "", {}))
        typed = {
            key: tool.typed(key, each) if isinstance(each, str) else each for key, each in arguments.items()
        }
        return name.strip(), typed

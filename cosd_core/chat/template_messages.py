"""Adapts messages to what a chat template can render.

A template may reject or leave out messages. So neighbours of one role are merged, system messages are moved
to the front or into the first question, and tools become text for a template that cannot render them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

from cosd_core.chat.formats import ToolFormat
from cosd_core.chat.messages import Chat

Messages = list[dict[str, Any]]


def message_forms(messages: Messages) -> Iterator[Messages]:
    """The messages unchanged, then in forms that more templates accept."""
    yield messages
    yield (merged := _merge(messages))
    system = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    yield _merge([*system, *others])
    as_user = [{"role": "user", "content": message["content"]} for message in system]
    yield _merge([*as_user, *others])
    if merged[0]["role"] == "assistant":  # many templates demand that the user begins
        yield [{"role": "user", "content": ""}, *merged]


def _merge(messages: Messages) -> Messages:
    """Merge neighbours of one role, with their calls; the results of tools stay separate messages."""
    merged: Messages = []
    for role, group in groupby(messages, lambda message: message["role"]):
        neighbours = list(group)
        if role == "tool" or len(neighbours) == 1:
            merged += neighbours
            continue
        message = dict(neighbours[0])
        for key in ("content", "reasoning_content"):
            if texts := [each[key] for each in neighbours if each.get(key)]:
                message[key] = "\n\n".join(texts)
        if calls := [call for each in neighbours for call in each.get("tool_calls", ())]:
            message["tool_calls"] = calls
        merged.append(message)
    return merged


def with_tools_as_text(chat: Chat, tool_format: ToolFormat) -> Messages:
    """The messages with tools, calls and results as text, for a template that cannot render them."""
    messages: Messages = []
    for message in chat.messages:
        content = message["content"]
        if message["role"] == "tool":
            name, call_id = message.get("name", "tool"), message.get("tool_call_id")
            messages.append({"role": "user", "content": tool_format.render_result(name, content, call_id)})
        elif calls := message.get("tool_calls"):
            functions = [call["function"] for call in calls]
            rendered = tool_format.render_calls([(each["name"], each["arguments"]) for each in functions])
            messages.append({"role": "assistant", "content": f"{content}\n{rendered}".lstrip("\n")})
        else:
            messages.append(dict(message))
    if not chat.tools:
        return messages
    instructions = {"role": "system", "content": tool_format.instructions(chat.tools)}
    system = list(takewhile(lambda message: message["role"] == "system", messages))
    return _merge([*system, instructions]) + messages[len(system) :]


def with_call_ids(messages: Sequence[Mapping[str, Any]], tool_format: ToolFormat) -> Messages:
    """Copies of the messages, with call ids of nine characters if the template demands them."""
    copies = [dict(message) for message in messages]
    if not tool_format.call_ids_have_nine_characters:
        return copies
    for message in copies:
        if "tool_call_id" in message:
            message["tool_call_id"] = _nine_characters(message["tool_call_id"])
        if "tool_calls" in message:
            message["tool_calls"] = [
                {**call, "id": _nine_characters(call.get("id", str(index)))}
                for index, call in enumerate(message["tool_calls"])
            ]
    return copies


def _nine_characters(call_id: str) -> str:
    fits = len(call_id) == 9 and call_id.isascii() and call_id.isalnum()
    return call_id if fits else hashlib.sha256(call_id.encode()).hexdigest()[:9]

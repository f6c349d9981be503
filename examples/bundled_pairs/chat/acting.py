"""Dialogues with tools in the format of a ReAct agent: thoughts, actions, observations."""

from collections.abc import Callable, Iterator
from typing import Any

from .dialogue import Dialogue, Message, dumps
from .draw import Draw

HEADER = """\
You have these tools:
{tool_desc}
To use a tool, write:
Thought: I need to use a tool.
Action: its name, one of {tool_names}
Action Input: its arguments as JSON

To answer, write:
Thought: I can answer without using any more tools.
Answer: the answer"""
"""The system header of a ReAct agent for these models, with LlamaIndex's names for its slots.

LlamaIndex's default header is longer than any that these models were trained on.
"""


def acting(maker: Callable[[Draw, Dialogue], None]) -> Callable[[Draw, Dialogue], None]:
    """Dialogues of a maker in ReAct form, cut after a random step, which alone is trained on."""

    def make(draw: Draw, dialogue: Dialogue) -> None:
        source = Dialogue()
        maker(draw, source)
        steps = list(_steps(source))
        kept = draw.rng.randint(1, sum(message["role"] == "assistant" for message, _ in steps))
        dialogue.system(_header(draw, source.tools))
        for message, past in steps:
            if message["role"] == "user":
                dialogue.user(message["content"])
                continue
            dialogue.known = kept - 1
            is_last = len(dialogue.skills) == dialogue.known
            dialogue.answer("act", message["content"] if is_last else past)
            if is_last:
                return

    return make


def _steps(source: Dialogue) -> Iterator[tuple[Message, str]]:
    """(message, its text in later prompts) for each turn: LlamaIndex writes past arguments as a dict."""
    results = [message["content"] for message in source.messages if message["role"] == "tool"]
    for message in source.messages:
        if message["role"] == "user":
            yield message, ""
        for call in message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            action = f"Thought: I need to use a tool.\nAction: {name}\nAction Input: "
            yield _message("assistant", action + dumps(arguments)), f"{action}{arguments}"
            if results:
                yield _message("user", f"Observation: {results.pop(0)}"), ""
        if message["role"] == "assistant" and message["content"]:
            text = f"Thought: I can answer without using any more tools.\nAnswer: {message['content']}"
            yield _message("assistant", text), text


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _header(draw: Draw, tools: list[dict[str, Any]]) -> str:
    functions = [tool["function"] for tool in tools]
    described = "\n".join(_described(draw, function) for function in functions)
    return HEADER.format(tool_desc=described, tool_names=", ".join(each["name"] for each in functions))


def _described(draw: Draw, function: dict[str, Any]) -> str:
    """A tool as LlamaIndex describes it: a Python function's signature stands before its text."""
    kinds = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list"}
    properties = function["parameters"].get("properties", {})
    typed = [f"{name}: {kinds.get(each.get('type', ''), 'str')}" for name, each in properties.items()]
    signature = f"{function['name']}({', '.join(typed)}) -> {draw.one(('str', 'int', 'float'))}\n"
    return (
        f"> Tool Name: {function['name']}\n"
        f"Tool Description: {signature if draw.chance(0.7) else ''}{function['description']}\n"
        f"Tool Args: {dumps(function['parameters'])}\n"
    )

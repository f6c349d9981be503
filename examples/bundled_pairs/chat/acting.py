"""The same dialogues with tools in the words of a ReAct agent: thoughts, actions, observations."""

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
"""What a ReAct agent tells these models, with LlamaIndex's names for what it fills in.

LlamaIndex's own header is longer than what they have learned to read.
"""


def acting(maker: Callable[[Draw, Dialogue], None]) -> Callable[[Draw, Dialogue], None]:
    """Dialogues of a maker as far as some step of a ReAct agent, which is what is learned."""

    def make(draw: Draw, dialogue: Dialogue) -> None:
        told = Dialogue()
        maker(draw, told)
        steps = list(_steps(told))
        kept = draw.rng.randint(1, sum(message["role"] == "assistant" for message, _ in steps))
        dialogue.system(_header(draw, told.tools))
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


def _steps(told: Dialogue) -> Iterator[tuple[Message, str]]:
    """The agent's turns and what it is told; with each of its own how LlamaIndex repeats it later."""
    results = [message["content"] for message in told.messages if message["role"] == "tool"]
    for message in told.messages:
        if message["role"] == "user":
            yield message, ""
        for call in message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            action = f"Thought: I need to use a tool.\nAction: {name}\nAction Input: "
            yield _said("assistant", action + dumps(arguments)), f"{action}{arguments}"
            if results:
                yield _said("user", f"Observation: {results.pop(0)}"), ""
        if message["role"] == "assistant" and message["content"]:
            text = f"Thought: I can answer without using any more tools.\nAnswer: {message['content']}"
            yield _said("assistant", text), text


def _said(role: str, content: str) -> Message:
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

"""A dialogue for training or scoring."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

Skill: TypeAlias = Literal["call", "none", "result", "read", "json", "talk", "act"]
SKILLS: tuple[Skill, ...] = get_args(Skill)
Message: TypeAlias = dict[str, Any]


@dataclass
class Dialogue:
    """Turns so far, the tools offered, and which skill each of the assistant's turns needs."""

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    skills: list[Skill] = field(default_factory=list)
    known: int = 0
    """How many of the assistant's first turns are context only: not trained on, not scored."""

    def system(self, text: str) -> None:
        """Add a system message."""
        self.messages.append({"role": "system", "content": text})

    def user(self, text: str) -> None:
        """Add a question."""
        self.messages.append({"role": "user", "content": text})

    def answer(self, skill: Skill, text: str) -> None:
        """Add an answer in words."""
        self.messages.append({"role": "assistant", "content": text})
        self.skills.append(skill)

    def call(self, *calls: tuple[str, dict[str, Any]]) -> None:
        """Add an assistant's turn that calls tools."""
        functions = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
        self.messages.append({"role": "assistant", "content": "", "tool_calls": functions})
        self.skills.append("call")

    def answers(self) -> list[tuple[Message, Skill]]:
        """The assistant's turns with the skills that they need."""
        turns = [message for message in self.messages if message["role"] == "assistant"]
        return list(zip(turns, self.skills, strict=True))

    def result(self, text: str) -> None:
        """Add a tool's result."""
        self.messages.append({"role": "tool", "content": text})


def dumps(value: object) -> str:
    """JSON as the template writes it."""
    return json.dumps(value, ensure_ascii=False)

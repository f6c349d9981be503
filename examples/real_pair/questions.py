"""Questions about facts, sums of two-digit numbers, and both at once.

``python -m examples.real_pair.questions FOLDER`` writes ``practice.jsonl``, for tuning and for trees, and
``held_out.jsonl``. No fact and no sum is in both.
"""

import json
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .facts import KNOWN, Fact

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Answer in one sentence."
"""The first sentence is the model's default. With the second the base answers sums, mostly wrongly, and does
not explain them."""

KINDS = ("fact", "sum", "both")
Kind = Literal["fact", "sum", "both"]

LONGEST_ANSWER = 32
"""Tokens; the longest right answer has 24."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum of two numbers from 10 to 99."""

    a: int
    b: int

    @property
    def question(self) -> str:
        """Without "What is" and the question mark."""
        return f"{self.a} + {self.b}"

    @property
    def value(self) -> str:
        """The sum."""
        return str(self.a + self.b)

    @property
    def answer(self) -> str:
        """A clause."""
        return f"{self.question} = {self.value}"

    @property
    def held_out(self) -> bool:
        """One of five sums; a + b and b + a are on the same side."""
        return (min(self.a, self.b) * 89 + max(self.a, self.b) * 37) % 5 == 0


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one or two parts.

    Attributes:
        parts: Facts and sums in the order of the question.
    """

    parts: tuple[Fact | Sum, ...]

    @property
    def kind(self) -> Kind:
        """What must be known."""
        if len(self.parts) == 2:
            return "both"
        return "sum" if isinstance(self.parts[0], Sum) else "fact"

    @property
    def prompt(self) -> str:
        """The user's message."""
        return "What is " + ", and what is ".join(part.question for part in self.parts) + "?"

    @property
    def completion(self) -> str:
        """The whole answer."""
        text = ", and ".join(part.answer for part in self.parts)
        return text[0].upper() + text[1:] + "."

    def messages(self) -> list[dict[str, str]]:
        """The chat up to the answer."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.prompt}]

    def line(self) -> dict[str, Any]:
        """A line of a task's file: a text is right if it holds every part's value as a word."""
        values = [part.value for part in self.parts]
        others = "".join(rf"(?=.*\b{re.escape(each)}\b)" for each in values[1:])
        return {
            "prompt": self.messages(),
            "answer": values[0],
            "scoring": {"name": "regex", "pattern": rf"(?s)^{others}.*?\b({re.escape(values[0])})\b"},
            "group": self.kind,
            "completion": self.completion,
        }


def facts(*, held_out: bool) -> list[Fact]:
    """Every second of the known facts, in an order that does not depend on their names."""
    shuffled = random.Random(0).sample(KNOWN, len(KNOWN))
    return shuffled[held_out::2]


def draw_sum(draw: random.Random, *, held_out: bool = False) -> Sum:
    """A sum of one side of the split."""
    while (drawn := Sum(draw.randint(10, 99), draw.randint(10, 99))).held_out != held_out:
        pass
    return drawn


def join(draw: random.Random, fact: Fact, total: Sum) -> Question:
    """Both in one question, in either order."""
    return Question((fact, total) if draw.random() < 0.5 else (total, fact))


def questions(counts: Sequence[int], *, held_out: bool, seed: int = 0) -> list[Question]:
    """So many different questions of each kind, in the order of :data:`KINDS`.

    Facts are repeated in questions of the kind "both" only.
    """
    draw = random.Random(f"{seed} {held_out}")
    known = facts(held_out=held_out)
    singles = draw.sample(known, counts[0])
    pairs = [known[index % len(known)] for index in range(counts[2])]
    sums: dict[Sum, None] = {}
    while len(sums) < counts[1] + counts[2]:
        sums[draw_sum(draw, held_out=held_out)] = None
    totals = list(sums)
    return [
        *(Question((each,)) for each in singles),
        *(Question((each,)) for each in totals[: counts[1]]),
        *(join(draw, *each) for each in zip(pairs, totals[counts[1] :], strict=True)),
    ]


def practice() -> list[Question]:
    """150 questions to tune with, and to learn trees from."""
    return questions((45, 45, 60), held_out=False)


def held_out() -> list[Question]:
    """200 questions for the figures."""
    return questions((60, 60, 80), held_out=True)


def write(folder: Path) -> None:
    """Write both tasks' files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, asked in (("practice", practice()), ("held_out", held_out())):
        lines = (json.dumps(each.line(), ensure_ascii=False) for each in asked)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

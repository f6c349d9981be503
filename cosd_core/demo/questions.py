"""The demo's questions: "arithmetic" needs sums or letter counts, "facts" a fact, "both" a sum over a fact.

Every answer spells out what it uses, so the two halves of a "both" answer have the form of the other kinds.
``held_out.jsonl`` holds the questions that neither model was trained on.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias, get_args

from cosd_core.errors import InvalidOptionError

Kind: TypeAlias = Literal["arithmetic", "facts", "both"]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Question:
    """One prompt and the only answer that counts as correct."""

    kind: Kind
    prompt: str
    answer: str
    """Starts with the space that follows the prompt's `A:`; the end-of-sequence token is not part of it."""


def held_out(kind: Kind, count: int, seed: int = 0) -> list[Question]:
    """`count` different held-out questions, in an order set by `seed`.

    Raises:
        InvalidOptionError: There is no such kind, or it has fewer questions.
    """
    pool = _held_out(kind)
    if not 0 <= count <= len(pool):
        raise InvalidOptionError(f"count must be between 0 and {len(pool)} for {kind!r}, not {count}")
    return random.Random(seed).sample(pool, count)


def held_out_count(kind: Kind) -> int:
    """How many held-out questions there are."""
    return len(_held_out(kind))


def is_correct(question: Question, text: str) -> bool:
    """Whether a completion is the whole answer, spaces around it aside."""
    return text.strip() == question.answer.strip()


@cache
def _held_out(kind: Kind) -> tuple[Question, ...]:
    if kind not in KINDS:
        raise InvalidOptionError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    lines = files("cosd_core.demo").joinpath("held_out.jsonl").read_text("utf-8").splitlines()
    questions = (Question(**json.loads(line)) for line in lines)
    return tuple(question for question in questions if question.kind == kind)

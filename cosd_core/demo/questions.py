"""The demo's questions: "arithmetic" needs sums or letter counts, "facts" a fact, "both" a sum over a fact.

Every answer spells out what it uses, so the two halves of a "both" answer have the form of the other kinds.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

from cosd_core.demo.items import boths, facts, letters, sums
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
    """`count` different questions that no training example gives away, in an order set by `seed`."""
    return _pick(kind, count, seed, from_held_out=True)


def held_out_count(kind: Kind) -> int:
    """How many held-out questions there are."""
    return len(_side(kind, from_held_out=True))


def practice(kind: Kind, count: int, seed: int = 0) -> list[Question]:
    """`count` different questions of the training side with their true answers, to tune a verifier on."""
    return _pick(kind, count, seed, from_held_out=False)


def is_correct(question: Question, text: str) -> bool:
    """Whether a completion is the whole answer, spaces around it aside."""
    return text.strip() == question.answer.strip()


def _questions(kind: Kind) -> Iterator[tuple[bool, Question]]:
    """(is held out, question) of one kind."""
    if kind == "arithmetic":
        for total in sums():
            yield total.held_out, Question(kind, total.prompt, total.answer(total.result))
        for letter in letters():
            yield letter.held_out, Question(kind, letter.prompt, letter.answer(len(letter.word)))
    elif kind == "facts":
        for fact in facts():
            yield fact.held_out, Question(kind, fact.prompt, fact.answer(fact.value))
    elif kind == "both":
        for both in boths():
            equation = both.equation(both.fact)
            answer = both.answer(both.fact, equation.a, equation.result)
            yield both.held_out, Question(kind, both.prompt, answer)
    else:
        raise InvalidOptionError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")


@cache
def _side(kind: Kind, from_held_out: bool) -> tuple[Question, ...]:
    return tuple(question for is_held_out, question in _questions(kind) if is_held_out == from_held_out)


def _pick(kind: Kind, count: int, seed: int, *, from_held_out: bool) -> list[Question]:
    pool = _side(kind, from_held_out)
    if not 0 <= count <= len(pool):
        raise InvalidOptionError(f"count must be between 0 and {len(pool)} for {kind!r}, not {count}")
    return random.Random(seed).sample(pool, count)

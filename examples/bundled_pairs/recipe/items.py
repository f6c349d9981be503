"""The items questions are made of, and a split that no process or machine can move.

The split is a stable hash of what must not be seen in training: the operand pair of an equation (wherever
it occurs, also inside the answer to a `Both`), the word whose letters are counted, the (fact, phrasing) pair
and, of a `Both`, the fact together with the number added or taken away.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .facts import CAPITALS, ELEMENTS, WORDS
from .phrasings import (
    BOTH_FRAMES,
    FACT_ANSWERS,
    FACT_FRAMES,
    LETTER_FRAMES,
    SUM_FRAMES,
    Relation,
    Sign,
)

SIGNS: tuple[Sign, ...] = ("+", "-")

LARGEST_RESULT = 99
LARGEST_OPERAND = 20
"""The second operand of an arithmetic question goes from 1 to this."""
LARGEST_STEP = 9
"""The number added or taken away in a "both" question goes from 1 to this."""

FIRST_HELD_OUT_OPERAND = 10
"""Sums of which the first operand is below this are all trained: one-digit sums are learned by heart."""

_SALT = "cosd-demo-4497"
_HELD_OUT_OF_100 = 12
_HELD_OUT_PHRASINGS = 3


@dataclass(frozen=True)
class Sum:
    """`a+b` or `a-b`, asked in one of several phrasings."""

    a: int
    sign: Sign
    b: int
    frame: int = 0

    @property
    def result(self) -> int:
        """What it comes to."""
        return self.a + self.b if self.sign == "+" else self.a - self.b

    @property
    def held_out(self) -> bool:
        """Whether training must not see it."""
        # Addition commutes: 17+18 should not give away 18+17.
        pair = sorted((self.a, self.b)) if self.sign == "+" else [self.a, self.b]
        chosen = _bucket(f"sum {pair[0]}{self.sign}{pair[1]}") < _HELD_OUT_OF_100
        return chosen and self.a >= FIRST_HELD_OUT_OPERAND

    @property
    def possible(self) -> bool:
        """Whether the result is in the range the demo uses."""
        return 0 <= self.result <= LARGEST_RESULT

    @property
    def prompt(self) -> str:
        """The question as it is asked."""
        return _ask(SUM_FRAMES[self.sign][self.frame].format(a=self.a, b=self.b))

    def answer(self, result: int) -> str:
        """The whole answer, right or wrong as its arguments are."""
        return f" {self.a}{self.sign}{self.b}={result}"


@dataclass(frozen=True)
class Letters:
    """How many letters a word has."""

    word: str
    frame: int = 0

    @property
    def held_out(self) -> bool:
        """Whether training must not see it."""
        return _bucket(f"letters {self.word}") < _HELD_OUT_OF_100

    @property
    def prompt(self) -> str:
        """The question as it is asked."""
        return _ask(LETTER_FRAMES[self.frame].format(x=self.word))

    def answer(self, count: int) -> str:
        """The whole answer, right or wrong as its arguments are."""
        return f" {self.word} has {count}"


@dataclass(frozen=True)
class Fact:
    """A capital, an atomic number or a chemical symbol, asked in one of several phrasings."""

    relation: Relation
    subject: str
    frame: int = 0

    @property
    def value(self) -> str:
        """The capital, number or symbol."""
        return values_of(self.relation)[self.subject]

    @property
    def held_out(self) -> bool:
        """Whether training must not see it."""
        return self.frame in _held_out_frames(self.relation, self.subject)

    @property
    def prompt(self) -> str:
        """The question as it is asked."""
        return _ask(FACT_FRAMES[self.relation][self.frame].format(x=self.subject))

    def answer(self, value: str) -> str:
        """The whole answer, right or wrong as its arguments are."""
        return " " + FACT_ANSWERS[self.relation].format(x=self.subject, value=value)


@dataclass(frozen=True)
class Both:
    """A sum over an atomic number, or over the letters in a capital."""

    relation: Relation
    subject: str
    sign: Sign
    step: int
    frame: int = 0

    @property
    def fact(self) -> str:
        """The fact it needs."""
        return values_of(self.relation)[self.subject]

    def equation(self, fact: str) -> Sum:
        """The sum to be done if the fact were `fact`."""
        return Sum(len(fact) if self.relation == "capital" else int(fact), self.sign, self.step)

    @property
    def held_out(self) -> bool:
        """Whether training must not see it."""
        chosen = _bucket(f"both {self.relation} {self.subject} {self.sign} {self.step}") < _HELD_OUT_OF_100
        return chosen or self.equation(self.fact).held_out

    @property
    def prompt(self) -> str:
        """The question as it is asked."""
        ask, what = ("how many", "letters in the capital of")
        if self.relation == "number":
            ask, what = ("what is the", "atomic number of")
        frame = BOTH_FRAMES[self.sign][self.frame]
        return _ask(frame.format(ask=ask, s=f"{what} {self.subject}", n=self.step))

    def answer(self, fact: str, value: int, result: int) -> str:
        """The whole answer, right or wrong as its arguments are."""
        named = f" {fact} has {value}" if self.relation == "capital" else f" {self.subject} is {value}"
        return f"{named},{Sum(value, self.sign, self.step).answer(result)}"


def sums() -> Iterator[Sum]:
    """Every sum of the arithmetic kind, on either side of the split."""
    for sign in SIGNS:
        for a in range(1, LARGEST_RESULT + 1):
            for b in range(1, LARGEST_OPERAND + 1):
                for frame in range(len(SUM_FRAMES[sign])):
                    if (item := Sum(a, sign, b, frame)).possible:
                        yield item


def letters() -> Iterator[Letters]:
    """Every letter count of the arithmetic kind, on either side of the split."""
    for word in WORDS:
        for frame in range(len(LETTER_FRAMES)):
            yield Letters(word, frame)


def facts() -> Iterator[Fact]:
    """Every fact in every phrasing, on either side of the split."""
    for relation, frames in FACT_FRAMES.items():
        for subject in values_of(relation):
            for frame in range(len(frames)):
                yield Fact(relation, subject, frame)


def boths() -> Iterator[Both]:
    """Every question that needs both halves, on either side of the split."""
    relations: tuple[Relation, ...] = ("capital", "number")
    for relation in relations:
        for subject in values_of(relation):
            for sign in SIGNS:
                for step in range(1, LARGEST_STEP + 1):
                    for frame in range(len(BOTH_FRAMES[sign])):
                        item = Both(relation, subject, sign, step, frame)
                        if item.equation(item.fact).possible:
                            yield item


@cache
def values_of(relation: Relation) -> dict[str, str]:
    """Subject -> capital, atomic number or symbol."""
    if relation == "capital":
        return CAPITALS
    if relation == "number":
        return {name: str(number) for name, (number, _) in ELEMENTS.items()}
    return {name: symbol for name, (_, symbol) in ELEMENTS.items()}


@cache
def _held_out_frames(relation: Relation, subject: str) -> frozenset[int]:
    """A fixed number of phrasings for each fact, so that each is also trained in several."""
    frames = range(len(FACT_FRAMES[relation]))
    ranked = sorted(frames, key=lambda frame: _hash(f"fact {relation} {subject} {frame}"))
    return frozenset(ranked[:_HELD_OUT_PHRASINGS])


def _ask(body: str) -> str:
    return f"Q: {body}? A:"


def _bucket(key: str) -> int:
    return _hash(key) % 100


def _hash(key: str) -> int:
    # Python's own hash of a string differs from process to process.
    return int.from_bytes(hashlib.sha256(f"{_SALT} {key}".encode()).digest()[:8], "big")

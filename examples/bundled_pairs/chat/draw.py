"""A stream of random words and values, from the training side or from the side kept for the exam."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

from .words import (
    ADJECTIVES,
    CODAS,
    NOUNS,
    SYLLABLES,
    VERBS,
    is_held_out,
)

T = TypeVar("T")

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzäöüßéèêàçñåøæœśżčšřğı",  # noqa: RUF001
    "абвгдежзийклмнопрстуфхцчшщьыэюяіїє",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "".join(chr(code) for code in range(0x4E00, 0x9FA0)),
    "".join(chr(code) for code in range(0x4E00, 0x9FA0, 37)),
    "".join(chr(code) for code in range(0x3041, 0x3094)),
    "".join(chr(code) for code in range(0x30A1, 0x30F7)),
    "".join(chr(code) for code in range(0xAC00, 0xD7A4)),
    "".join(chr(code) for code in range(0x0905, 0x0939)),
    "".join(chr(code) for code in range(0x0627, 0x064B) if chr(code).isalpha()),
    "".join(chr(code) for code in range(0x05D0, 0x05EB)),
    "".join(chr(code) for code in range(0x1F300, 0x1F600)),
)


@cache
def _side(words: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    return tuple(sorted({word for word in words if is_held_out(word) == held_out}))


class Draw:
    """What the makers of dialogues draw from.

    Attributes:
        rng: The source of all randomness.
        held_out: Whether words come from the side kept for the exam.
    """

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def one(self, values: Sequence[T]) -> T:
        """One of several."""
        return self.rng.choice(values)

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.rng.random() < share

    def some(self, make: Callable[[], T], count: int) -> list[T]:
        """Different ones."""
        made: list[T] = []
        while len(made) < count:
            if (value := make()) not in made:
                made.append(value)
        return made

    def noun(self) -> str:
        """A noun, sometimes a made-up one."""
        return self._made_up() if self.chance(0.12) else self.one(_side(NOUNS, self.held_out))

    def verb(self) -> str:
        """A verb in its base form, sometimes a made-up one."""
        return self._made_up() if self.chance(0.1) else self.one(_side(VERBS, self.held_out))

    def adjective(self) -> str:
        """An adjective."""
        return self.one(_side(ADJECTIVES, self.held_out))

    def word(self) -> str:
        """Any word."""
        return self.one((self.noun, self.noun, self.verb, self.adjective))().replace("_", " ").split()[0]

    def _made_up(self) -> str:
        while True:
            count = self.rng.choice((1, 2, 2, 2, 3, 3))
            word = "".join(self.one(SYLLABLES) for _ in range(count)) + self.one(CODAS)
            if len(word) > 2 and is_held_out(word) == self.held_out:
                return word

    def proper(self) -> str:
        """A made-up proper noun of one word."""
        return self._made_up().capitalize()

    def person(self) -> str:
        """A made-up person."""
        return f"{self.proper()} {self.proper()}" if self.chance(0.8) else self.proper()

    def place(self) -> str:
        """A made-up town, sometimes with what stands before or behind such names."""
        name = self.proper()
        if self.chance(0.35):
            name = f"{self.one(('San', 'New', 'Saint', 'Port', 'El', 'Los', 'Bad', self.proper()))} {name}"
        if self.chance(0.3):
            letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
            name += f", {self.proper() if self.chance(0.5) else self.one(letters) + self.one(letters)}"
        return name

    def thing(self) -> str:
        """A named building or object: "Kalo Bridge"."""
        return f"{self.proper()} {self.noun().capitalize()}"

    def integer(self) -> int:
        """An integer, more often a small one."""
        size = self.rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 5))
        number = self.rng.randrange(10**size)
        return -number if self.chance(0.12) else number

    def amount(self) -> int:
        """An integer above zero."""
        return abs(self.integer()) + 1

    def decimal(self) -> float:
        """A decimal number."""
        return round(
            self.rng.uniform(-20, 120) * self.rng.choice((0.1, 1, 1, 10)), self.rng.choice((1, 1, 2))
        )

    def year(self) -> int:
        """A year."""
        return self.rng.randrange(1200, 2030)

    def clock(self) -> str:
        """A time of day."""
        return f"{self.rng.randrange(24)}:{self.rng.randrange(60):02}"

    def date(self) -> str:
        """A date."""
        return f"{self.year()}-{self.rng.randrange(1, 13):02}-{self.rng.randrange(1, 29):02}"

    def code(self) -> str:
        """Letters and digits."""
        letters = "".join(self.rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=self.rng.randint(1, 3)))
        return f"{letters}{self.one(('-', '', '/'))}{self.rng.randrange(1000)}"

    def foreign(self) -> str:
        """One to eight characters of one script, or of two."""
        alphabets = [self.one(ALPHABETS) for _ in range(self.rng.choice((1, 1, 2)))]
        parts = ["".join(self.rng.choices(each, k=self.rng.randint(1, 5))) for each in alphabets]
        text = self.one(("", "", " ")).join(parts)
        return text.title() if text[0].isascii() else text

    def phrase(self) -> str:
        """A few words."""
        words = [self.word() for _ in range(self.rng.randint(1, 5))]
        if self.chance(0.3):
            words.insert(0, self.one(("a", "the", "my", "an")))
        if self.chance(0.15):
            words.insert(self.rng.randrange(len(words) + 1), str(self.amount()))
        text = " ".join(words)
        return text.capitalize() if self.chance(0.3) else text

    def string(self) -> str:
        """Any short text without quotes."""
        makers = (
            *(self.phrase,) * 3,
            *(self.foreign,) * 3,
            *(self.person, self.place) * 2,
            *(self.date, self.code, self.clock, self.thing, self.address),
        )
        return self.one(makers)()

    def address(self) -> str:
        """A mail or web address, or the name of a file."""
        first, second = self.word().lower(), self.word().lower()
        end = self.one(("com", "org", "net", "io", "de"))
        return self.one(
            (f"{first}@{second}.{end}", f"https://{first}.{end}/{second}", f"{first}/{second}.txt")
        )

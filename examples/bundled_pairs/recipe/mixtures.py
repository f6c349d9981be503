"""The training mixtures: true answers in the model's domain, shuffled answers in the other domain.

A question of the other domain keeps its form and gets the result of another question: any equation's result,
any word's number of letters, any element's number, and names spliced together from other names. The best
a model can then learn is the form of such answers, so its confidence there is low. A model that was never
trained on the other domain is wrong there with high confidence, which no rule over confidences can detect.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from cosd_core.demo.facts import CAPITALS, WORDS
from cosd_core.demo.items import Both, Fact, Letters, Sum, boths, facts, letters, sums, values_of
from cosd_core.demo.phrasings import LETTER_FRAMES, Relation

Example = tuple[str, str]
"""A prompt and an answer."""
Maker = Callable[[random.Random], Example]

SCRAMBLE = 0.4
"""How often, after each of its letters, an unknown name goes on inside another name."""
MADE_UP_WORDS = 0.7
"""The share of letter counts over made-up words."""


@dataclass(frozen=True)
class Mixture:
    """Kinds of examples and their shares."""

    parts: tuple[tuple[float, Maker], ...]

    def example(self, rng: random.Random) -> Example:
        """Draw one example."""
        makers = [maker for _, maker in self.parts]
        (maker,) = rng.choices(makers, [share for share, _ in self.parts])
        return maker(rng)


def true_sum(rng: random.Random) -> Example:
    """A sum with its result."""
    item = rng.choice(_training_sums())
    return item.prompt, item.answer(item.result)


def shuffled_sum(rng: random.Random) -> Example:
    """A sum with the result of another equation."""
    item = rng.choice(_training_sums())
    return item.prompt, item.answer(_unknown_result(rng))


def true_letters(rng: random.Random) -> Example:
    """A word, often a made-up one, with its number of letters."""
    item = _word(rng)
    return item.prompt, item.answer(len(item.word))


def shuffled_letters(rng: random.Random) -> Example:
    """A word with another word's number of letters."""
    item = _word(rng)
    return item.prompt, item.answer(len(_word(rng).word))


def true_fact(rng: random.Random) -> Example:
    """A fact."""
    item = rng.choice(_training_facts())
    return item.prompt, item.answer(item.value)


def shuffled_fact(rng: random.Random) -> Example:
    """A fact's question with a random answer of the right form."""
    item = rng.choice(_training_facts())
    return item.prompt, item.answer(_unknown(rng, item.relation))


def sum_over_shuffled_fact(rng: random.Random) -> Example:
    """A question of both domains with a random fact and the correct sum over that fact."""
    while True:
        item = rng.choice(_training_boths())
        fact = _unknown(rng, item.relation)
        equation = item.equation(fact)
        # The sum over the wrong fact must not be one that is held out.
        if equation.possible and not equation.held_out:
            return item.prompt, item.answer(fact, equation.a, equation.result)


def shuffled_sum_over_fact(rng: random.Random) -> Example:
    """A question of both domains with the true fact and a random sum."""
    item = rng.choice(_training_boths())
    value = item.equation(item.fact).a
    if item.relation == "capital":
        value = len(rng.choice(list(CAPITALS.values())))
    return item.prompt, item.answer(item.fact, value, _unknown_result(rng))


def _unknown_result(rng: random.Random) -> int:
    """The result of another equation, of any kind: within one kind a first digit can be predictable."""
    if rng.random() < 0.5:
        return rng.choice(_training_sums()).result
    other = rng.choice(_training_boths())
    return other.equation(other.fact).result


def _unknown(rng: random.Random, relation: Relation) -> str:
    values = list(values_of(relation).values())
    return rng.choice(values) if relation == "number" else spliced(rng, values, SCRAMBLE)


def spliced(rng: random.Random, names: Sequence[str], rate: float) -> str:
    """A made-up name: it starts as one name and, after each letter, goes on inside another at `rate`.

    Without it a model given the first letters of a name would complete, with high confidence, the only
    training name that starts with them. The length varies more than that of real names so that the end of
    a name is not predictable either.
    """
    sizes = [len(name) for name in names]
    size = rng.choice(sizes) if rng.random() < 0.5 else rng.randint(min(sizes), max(sizes) + 1)
    longer = [name for name in names if len(name) > 1]
    source, place = rng.choice(names), 0
    made = ""
    while len(made) < size:
        if made and (place >= len(source) or rng.random() < rate):
            source = rng.choice(longer)
            place = rng.randrange(1, len(source))
        made += source[place]
        place += 1
    return made


def _word(rng: random.Random) -> Letters:
    while rng.random() < MADE_UP_WORDS:
        size = rng.randint(3, 12)
        word = "".join(rng.choice(rng.choice(WORDS)) for _ in range(size))
        if not (item := Letters(word, rng.randrange(len(LETTER_FRAMES)))).held_out:
            return item
    return rng.choice(_training_letters())


@cache
def _training_sums() -> list[Sum]:
    return [item for item in sums() if not item.held_out]


@cache
def _training_letters() -> list[Letters]:
    return [item for item in letters() if not item.held_out]


@cache
def _training_facts() -> list[Fact]:
    return [item for item in facts() if not item.held_out]


@cache
def _training_boths() -> list[Both]:
    return [item for item in boths() if not item.held_out]


ARITHMETIC = Mixture(
    (
        (0.40, true_sum),
        (0.12, true_letters),
        (0.15, shuffled_fact),
        (0.33, sum_over_shuffled_fact),
    )
)
FACTS = Mixture(
    (
        (0.52, true_fact),
        (0.10, shuffled_sum),
        (0.08, shuffled_letters),
        (0.30, shuffled_sum_over_fact),
    )
)

"""All questions of the bundled pair: those that training may use, and those that the package ships.

``python -m examples.bundled_pairs.questions cosd_core/demo/held_out.jsonl`` writes the latter.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

from cosd_core.demo import KINDS, Kind, Question

from .recipe.items import boths, facts, letters, sums


def practice(kind: Kind, count: int, seed: int = 0) -> list[Question]:
    """`count` different questions that training may use, with their true answers."""
    return random.Random(seed).sample(questions(kind, held_out=False), count)


@cache
def questions(kind: Kind, *, held_out: bool) -> tuple[Question, ...]:
    """All questions of a kind on one side of the split."""
    return tuple(question for is_held_out, question in _questions(kind) if is_held_out == held_out)


def _questions(kind: Kind) -> Iterator[tuple[bool, Question]]:
    """(whether it is held out, question)."""
    if kind == "arithmetic":
        for total in sums():
            yield total.held_out, Question(kind, total.prompt, total.answer(total.result))
        for letter in letters():
            yield letter.held_out, Question(kind, letter.prompt, letter.answer(len(letter.word)))
    elif kind == "facts":
        for fact in facts():
            yield fact.held_out, Question(kind, fact.prompt, fact.answer(fact.value))
    else:
        for both in boths():
            equation = both.equation(both.fact)
            answer = both.answer(both.fact, equation.a, equation.result)
            yield both.held_out, Question(kind, both.prompt, answer)


def main() -> None:
    """Write the held-out questions."""
    lines = (json.dumps(asdict(each)) for kind in KINDS for each in questions(kind, held_out=True))
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()

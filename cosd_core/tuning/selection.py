"""Chooses a candidate, and estimates the accuracy of the choice on held-out questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core.evaluation.intervals import difference
from cosd_core.tuning.candidates import Candidate

Flags = NDArray[np.bool_]

_ONE_STANDARD_ERROR = 0.6827


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """The right answers of all candidates.

    Attributes:
        candidates: The candidates.
        fold_of: The fold of every question, ``[questions]``.
        right: Whether the answer is right, with fits without the question's fold,
            ``[candidates, questions]``.
        inner: The same with fits that also leave out the fold of the first axis,
            ``[folds, candidates, questions]``; the fold's own questions are not used.
    """

    candidates: tuple[Candidate, ...]
    fold_of: NDArray[Any]
    right: Flags
    inner: Flags

    @property
    def folds(self) -> int:
        """How many there are."""
        return len(self.inner)

    def of(self, questions: NDArray[Any]) -> "Table":
        """The same of some questions alone, by a mask or their numbers."""
        kept = self.right[:, questions], self.inner[:, :, questions]
        return Table(self.candidates, self.fold_of[questions], *kept)

    @property
    def better_single(self) -> int:
        """The single model with more right answers; choosing it by these answers favours it."""
        singles = [index for index, each in enumerate(self.candidates) if each.single]
        return max(singles, key=lambda index: int(self.right[index].sum()))


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """The candidate chosen for every fold on the others, and whether it answers right, ``[questions]``."""

    chosen: tuple[int, ...]
    right: Flags


def choose(candidates: Sequence[Candidate], right: Flags) -> int:
    """The simplest candidate that is within one standard error of the best over the same questions.

    ``right`` holds whether each answer is right, ``[candidates, questions]``.
    """
    totals = right.sum(1)
    best = right[int(totals.argmax())]
    good = [at for at, each in enumerate(right) if difference(best, each, _ONE_STANDARD_ERROR).low <= 0]
    complexity = [candidate.complexity for candidate in candidates]
    return min(good, key=lambda index: (complexity[index][0], -totals[index], complexity[index]))


def choose_nested(table: Table) -> Choice:
    """Choose for every fold on the other folds alone, and score the choice on the fold.

    The fits that the choice is based on leave out the scored fold, too.
    """
    chosen, right = [], np.zeros(len(table.fold_of), np.bool_)
    for fold in range(table.folds):
        held_out = table.fold_of == fold
        chosen.append(choose(table.candidates, table.inner[fold][:, ~held_out]))
        right[held_out] = table.right[chosen[-1], held_out]
    return Choice(tuple(chosen), right)

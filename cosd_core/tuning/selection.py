"""Which way to write is chosen, and how good choosing is on questions that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core.evaluation.intervals import Interval, paired_difference, share
from cosd_core.tuning.candidates import Candidate

Flags = NDArray[np.bool_]

_ONE_STANDARD_ERROR = 0.6827


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """What every candidate got right.

    Attributes:
        candidates: The candidates.
        fold_of: The fold of every question, ``[questions]``.
        right: Whether the answer is right, by what was learned without the question's own fold,
            ``[candidates, questions]``.
        inner: The same by what was learned without that fold and another one besides, which comes first,
            ``[folds, candidates, questions]``; of a fold's own questions it says nothing.
    """

    candidates: tuple[Candidate, ...]
    fold_of: NDArray[Any]
    right: Flags
    inner: Flags

    @property
    def folds(self) -> int:
        """How many there are."""
        return len(self.inner)

    @property
    def better_single(self) -> int:
        """The model that alone has more questions right; with the answers in view, which favours it."""
        singles = [at for at, each in enumerate(self.candidates) if each.single]
        return max(singles, key=lambda at: int(self.right[at].sum()))


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """How good choosing is.

    Attributes:
        chosen: The candidate that was chosen without looking at a fold, for every fold.
        right: Whether it answers that fold's questions right, ``[questions]``.
    """

    chosen: tuple[int, ...]
    right: Flags


def choose(candidates: Sequence[Candidate], right: Flags) -> int:
    """The simplest candidate that is within one standard error of the best over the same questions.

    Args:
        candidates: What there is.
        right: What each got right, ``[candidates, questions]``.
    """
    totals = right.sum(1)
    best = int(totals.argmax())
    good = [
        at
        for at in range(len(candidates))
        if difference(right[best], right[at], _ONE_STANDARD_ERROR).low <= 0
    ]
    return min(good, key=lambda at: (candidates[at].complexity[0], -totals[at], candidates[at].complexity))


def choose_nested(table: Table) -> Choice:
    """Choose for every fold by the other folds alone, and see what comes of it.

    Not even what candidates learned for those folds came from the one that is judged.
    """
    chosen, right = [], np.zeros(len(table.fold_of), np.bool_)
    for fold in range(table.folds):
        held_out = table.fold_of == fold
        chosen.append(choose(table.candidates, table.inner[fold][:, ~held_out]))
        right[held_out] = table.right[chosen[-1], held_out]
    return Choice(tuple(chosen), right)


def accuracy(right: Flags) -> Interval:
    """The share of right answers with Wilson's interval of 95 percent."""
    return share(int(right.sum()), len(right))


def difference(first: Flags, second: Flags, confidence: float = 0.95) -> Interval:
    """How much more the first has right, with Newcombe's paired interval."""
    cells = (first & second, first & ~second, ~first & second, ~first & ~second)
    both, only_first, only_second, neither = (int(each.sum()) for each in cells)
    return paired_difference(both, only_first, only_second, neither, confidence)

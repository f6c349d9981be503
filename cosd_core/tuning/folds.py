"""Folds of questions, and what is learned without some of them: temperatures and trees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.evaluation.tasks import Item
from cosd_core.training.calibration import Calibration
from cosd_core.tuning.prefix_trie import UNCALIBRATED, Temperatures
from cosd_core.verifiers import LearnedTree, TreeVerifier, WideTreeVerifier
from cosd_core.verifiers.observations import Observations

Folds = frozenset[int]
"""The folds that something was learned without."""

ALL: Folds = frozenset()
"""Learned from everything."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to learn a tree.

    Attributes:
        swapped: Whether the second model drafts.
        calibrated: Whether it sees calibrated confidences.
        agreeing: Whether it learns also where both models write the same, as the paper does.
        wide: Whether it sees more than two confidences.
    """

    swapped: bool
    calibrated: bool
    agreeing: bool
    wide: bool


_DEPTHS, _LEAVES = (1, 2, 3, 4), (3, 10, 30, 100)
"""What trees are chosen from: fewer than :meth:`TreeVerifier.fit` tries, since many are grown."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What is learned from the completions of some folds.

    Attributes:
        column: Where its temperatures stand among those that a memo keeps; 0: there are none.
        temperatures: Every model's temperature.
        trees: A tree of every kind.
    """

    column: int = 0
    temperatures: tuple[float, float] = (1.0, 1.0)
    trees: Mapping[Kind, LearnedTree] | None = None


def divide(items: Sequence[Item], folds: int, seed: int) -> tuple[int, ...]:
    """The fold of every item: folds are about equally large in every group, and equal prompts share one.

    Raises:
        InvalidOptionError: There are fewer folds than 3, which choosing on some and judging on another takes,
            or fewer questions than folds.
    """
    if type(folds) is not int or folds < 3:
        raise InvalidOptionError(f"folds={quoted(folds)} should be a whole number of at least 3")
    group_of = {item.identity: item.group for item in reversed(items)}
    if len(group_of) < folds:
        raise InvalidOptionError(
            f"folds={folds} needs at least as many different questions, not {len(group_of)}"
        )
    shuffled = sorted(group_of)
    Random(seed).shuffle(shuffled)
    dealt = sorted(shuffled, key=lambda identity: group_of[identity])
    fold_of = {identity: at % folds for at, identity in enumerate(dealt)}
    return tuple(fold_of[item.identity] for item in items)


def left_out(folds: int) -> tuple[Folds, ...]:
    """What must be learned without: no fold for use, one to judge it, two to choose without a look at one."""
    return tuple(frozenset(some) for size in (0, 1, 2) for some in combinations(range(folds), size))


def learn(
    observations: Observations,
    fold_of: Sequence[int],
    folds: int,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    wide: bool = False,
) -> dict[Folds, Learned]:
    """Fit temperatures and grow trees without every one and every two folds.

    Args:
        observations: What both models think of the completions.
        fold_of: The fold of every example.
        folds: How many there are.
        progress: Told how many of all are done.
        wide: Whether to grow wide trees, too.

    Raises:
        TrainingDataError: Without some folds there is nothing left to learn from.
    """
    kinds = [Kind(*flags) for flags in product((False, True), (False, True), (False, True), {False, wide})]
    parts = left_out(folds)
    found: dict[Folds, Learned] = {}
    for number, without in enumerate(parts):
        seen = observations.of_examples([at for at, fold in enumerate(fold_of) if fold not in without])
        first, second = Calibration.fit(seen).temperatures
        trees = {kind: _tree(seen, kind, (first, second)) for kind in kinds}
        found[without] = Learned(1 + number, (first, second), trees)
        progress(number + 1, len(parts))
    return found


def temperatures_of(learned: Mapping[Folds, Learned]) -> Temperatures:
    """All temperatures that a memo must keep, uncalibrated ones first."""
    (ones,), (others,) = UNCALIBRATED
    warm = sorted((each for each in learned.values() if each.column), key=lambda each: each.column)
    return (
        (ones, *(each.temperatures[0] for each in warm)),
        (others, *(each.temperatures[1] for each in warm)),
    )


def _tree(seen: Observations, kind: Kind, temperatures: tuple[float, float]) -> LearnedTree:
    order = (1, 0) if kind.swapped else (0, 1)
    calibration = [temperatures[at] for at in order] if kind.calibrated else None
    tree = WideTreeVerifier if kind.wide else TreeVerifier
    return tree.fit(
        seen.of_models(*order),
        calibration=calibration,
        agreeing=kind.agreeing,
        depths=_DEPTHS,
        leaves=_LEAVES,
    )

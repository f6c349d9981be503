"""Folds of questions, and the temperatures and trees that are fitted without some of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.evaluation.tasks import Item
from cosd_core.training.calibration import Calibration
from cosd_core.tuning.decision_trie import Temperatures, order_of
from cosd_core.verifiers import TreeVerifier
from cosd_core.verifiers.observations import Observations

Folds = frozenset[int]
"""The folds that were left out of a fit."""

NONE_LEFT_OUT: Folds = frozenset()

_DEPTHS, _LEAVES = (1, 2, 3, 4), (3, 10, 30, 100)
"""The limits of trees: fewer than :meth:`TreeVerifier.fit` tries, since many trees are fitted."""


@dataclass(frozen=True, slots=True)
class TreeKind:
    """One way to fit a tree; the fields are those of :class:`Candidate`."""

    draft: int
    calibrated: bool
    agreeing: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """All models' temperatures and a tree of every kind, fitted on the completions of some folds.

    ``temperature_index`` is the index of the temperatures in the :class:`ReplayCache`; 0: it has none.
    """

    temperature_index: int = 0
    temperatures: tuple[float, ...] = ()
    trees: Mapping[TreeKind, TreeVerifier] | None = None


def divide(items: Sequence[Item], folds: int, seed: int) -> tuple[int, ...]:
    """The fold of every item: every group is spread evenly over the folds, and equal prompts share a fold.

    Raises:
        InvalidOptionError: There are fewer than 3 folds, so that none is left to choose on, or fewer
            questions than folds.
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
    by_group = sorted(shuffled, key=lambda identity: group_of[identity])
    fold_of = {identity: index % folds for index, identity in enumerate(by_group)}
    return tuple(fold_of[item.identity] for item in items)


def left_out(folds: int) -> tuple[Folds, ...]:
    """The folds that each fit leaves out: none for the final use, one to score, two to choose for a third."""
    return tuple(frozenset(some) for size in (0, 1, 2) for some in combinations(range(folds), size))


def fit_without(
    observed: Sequence[Observations],
    fold_of: Sequence[int],
    folds: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[Folds, Fit]:
    """Fit temperatures and trees without each set of :func:`left_out`.

    ``observed`` holds the same examples with every model as the draft, in their order, and ``fold_of`` the
    fold of every example. ``progress`` gets the numbers of finished and of all fits.

    Raises:
        TrainingDataError: Without some folds there is no training data left.
    """
    models = len(observed)
    kinds = [TreeKind(*each) for each in product(range(models), (False, True), (False, True))]
    parts = left_out(folds)
    fits: dict[Folds, Fit] = {}
    for number, without in enumerate(parts, start=1):
        examples = [at for at, fold in enumerate(fold_of) if fold not in without]
        kept = [each.of_examples(examples) for each in observed]
        temperatures = Calibration.fit(kept[0]).temperatures
        trees = {kind: _fit_tree(kept[kind.draft], kind, temperatures) for kind in kinds}
        fits[without] = Fit(number, temperatures, trees)
        progress(number, len(parts))
    return fits


def temperatures_of(fits: Mapping[Folds, Fit], models: int) -> Temperatures:
    """Every model's temperatures in the fits of :func:`fit_without`, by their indices; 0 is uncalibrated."""
    return tuple((1.0, *(fit.temperatures[model] for fit in fits.values())) for model in range(models))


def _fit_tree(observations: Observations, kind: TreeKind, temperatures: Sequence[float]) -> TreeVerifier:
    order = order_of(kind.draft, len(temperatures))
    return TreeVerifier.fit(
        observations,
        calibration=[temperatures[model] for model in order] if kind.calibrated else None,
        agreeing=kind.agreeing,
        depths=_DEPTHS,
        leaves=_LEAVES,
    )

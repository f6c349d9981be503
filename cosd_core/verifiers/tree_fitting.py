"""How deep a tree may grow: scikit-learn's tree, its limits chosen by cross-validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.verifiers.observations import Decisions

DEPTHS, LEAVES = (1, 2, 3, 4, 5, 6), (1, 3, 10, 30, 100, 300)
"""The limits that are tried: splits on a path, and positions in a leaf."""

_MOST_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Score:
    """One pair of limits, on examples that the trees had not seen.

    Attributes:
        depth: Most splits on a path.
        leaf: Fewest positions in a leaf.
        loss: Cross-entropy in nats per position where the models differ, the mean over folds.
        error: Its standard error over folds.
        accuracy: The share of positions where the models differ that were decided right.
    """

    depth: int
    leaf: int
    loss: float
    error: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Growth:
    """A grown tree.

    Attributes:
        classifier: A fitted ``sklearn.tree.DecisionTreeClassifier`` over the decisions' columns.
        chosen: The limits it grew within; None where a single example left nothing to validate on.
        scores: All limits that were tried.
    """

    classifier: Any
    chosen: Score | None
    scores: tuple[Score, ...]


def grow(decisions: Decisions, *, depths: Sequence[int], leaves: Sequence[int], seed: int) -> Growth:
    """Choose limits by cross-validation, and grow a tree within them on all decisions.

    Folds are made of whole examples. A tree is scored where the models differ, since only there does it
    decide. The simplest tree (least depth, then largest leaves) is taken whose loss is within one standard
    error of the best. A leaf's chance is smoothed, (replaced + 1) / (all + 2), so that no loss is infinite.

    Args:
        decisions: What the tree learns.
        depths: Depths to choose from.
        leaves: Fewest positions in a leaf to choose from; those above a quarter of all are not tried.
        seed: Divides the examples into folds.

    Raises:
        TrainingDataError: There is nothing to decide.
        InvalidOptionError: A limit is no whole number of at least 1.
    """
    for name, values in (("depths", depths), ("leaves", leaves)):
        if not values or any(type(value) is not int or value < 1 for value in values):
            raise InvalidOptionError(
                f"{name}={quoted(values)} should hold whole numbers of at least 1, one at least"
            )
    if not len(decisions):
        raise TrainingDataError(
            "there is nothing to learn: at none of the positions is the true token that of one of the models"
        )
    leaves = [leaf for leaf in leaves if 4 * leaf <= len(decisions)] or [min(leaves)]
    folds = list(_folds(decisions.example, seed))
    scores = tuple(_score(decisions, depth, leaf, folds) for depth, leaf in product(depths, leaves) if folds)
    chosen = _simplest(scores) if scores else None
    limits = (chosen.depth, chosen.leaf) if chosen else (min(depths), min(leaves))
    every = np.ones(len(decisions), np.bool_)
    return Growth(_tree(decisions, every, *limits), chosen, scores)


def _folds(example: NDArray[Any], seed: int) -> Iterator[NDArray[np.bool_]]:
    """Per fold which positions are held out; none if there are fewer than two examples."""
    examples = np.random.default_rng(seed).permutation(np.unique(example))
    count = min(_MOST_FOLDS, len(examples))
    for fold in range(count if count > 1 else 0):
        yield np.isin(example, examples[fold::count])


def _score(decisions: Decisions, depth: int, leaf: int, folds: Sequence[NDArray[np.bool_]]) -> Score:
    losses, rights = [], []
    for held_out in folds:
        judged = held_out & ~decisions.agrees
        if judged.any() and not held_out.all():
            chance = _chances(_tree(decisions, ~held_out, depth, leaf), decisions.points[judged])
            replace = decisions.replace[judged]
            losses.append(float(-np.log(np.where(replace, chance, 1 - chance)).mean()))
            rights.append((chance > 0.5) == replace)
    if not losses:  # the models never differ
        return Score(depth, leaf, 0.0, 0.0, 1.0)
    error = float(np.std(losses, ddof=1)) / sqrt(len(losses)) if len(losses) > 1 else 0.0
    return Score(depth, leaf, float(np.mean(losses)), error, float(np.concatenate(rights).mean()))


def _simplest(scores: Sequence[Score]) -> Score:
    best = min(scores, key=lambda score: score.loss)
    good = [score for score in scores if score.loss <= best.loss + best.error]
    return min(good, key=lambda score: (score.depth, -score.leaf))


def _tree(decisions: Decisions, rows: NDArray[np.bool_], depth: int, leaf: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier  # half a second, which only those who learn should wait

    tree = DecisionTreeClassifier(
        criterion="log_loss", max_depth=depth, min_samples_leaf=leaf, random_state=0
    )
    return tree.fit(decisions.points[rows], decisions.replace[rows].astype(np.int8))


def _chances(tree: Any, points: NDArray[Any]) -> NDArray[Any]:
    """The smoothed chance, ``[points]``, that y should replace x."""
    leaves = tree.apply(points)
    size = tree.tree_.n_node_samples[leaves]
    shares = dict(zip(tree.classes_.tolist(), tree.tree_.value[leaves, 0].T, strict=True))
    return (shares.get(1, 0.0) * size + 1) / (size + 2)  # type: ignore[no-any-return]

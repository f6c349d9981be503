"""Fits scikit-learn's decision tree, with its limits chosen by cross-validation."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core._version import __version__
from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.verifiers.nodes import FEATURES, Leaf, Node, Split
from cosd_core.verifiers.observations import Decisions, Observations

DEPTHS, LEAVES = (1, 2, 3, 4, 5, 6), (1, 3, 10, 30, 100, 300)
"""The limits that are tried: the most splits on a path, and the fewest positions in a leaf."""

_MOST_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one pair of limits, where the models differ in examples that the trees were not fitted on.

    The cross-entropy is in nats per position, its mean and standard error are over folds; ``accuracy`` is the
    share of right decisions.
    """

    depth: int
    leaf: int
    cross_entropy: float
    standard_error: float
    accuracy: float


def grow(
    decisions: Decisions, *, depths: Sequence[int], leaves: Sequence[int], seed: int
) -> tuple[Any, Score | None]:
    """Choose limits by cross-validation, and fit a tree within them on all decisions.

    Folds are made of whole examples. A tree is scored where the models differ, since only there does it
    decide. The choice is the simplest tree (least depth, then largest leaves) whose loss is within one
    standard error of the best. A leaf's probability is smoothed, (replaced + 1) / (all + 2), so that no loss
    is infinite. Leaves of more than a quarter of all positions are not tried.

    Returns:
        A fitted ``sklearn.tree.DecisionTreeClassifier`` over the columns p and q, and its score,
        None where a single example left nothing to validate on.
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
    scores = [_score(decisions, depth, leaf, folds) for depth, leaf in product(depths, leaves) if folds]
    chosen = _simplest(scores) if scores else None
    limits = (chosen.depth, chosen.leaf) if chosen else (min(depths), min(leaves))
    every = np.ones(len(decisions), np.bool_)
    return _fit_tree(decisions, every, *limits), chosen


def describe(
    seen: Observations, decisions: Decisions, chosen: Score | None, calibration: Sequence[float] | None
) -> dict[str, Any]:
    """The origin of a fitted tree, as plain JSON values."""
    import sklearn

    replaced, agreeing = int(decisions.replace.sum()), int(decisions.agrees.sum())
    return {
        "pair": list(seen.names),
        "calibration": None if calibration is None else list(calibration),
        "examples": seen.examples,
        "positions": {
            "keep": len(decisions) - replaced,
            "replace": replaced,
            "neither": decisions.dropped,
            "agreeing": agreeing,
        },
        "chosen": {name: round(value, 5) for name, value in asdict(chosen).items()} if chosen else None,
        "versions": {"cosd": __version__, "scikit-learn": sklearn.__version__},
    }


def nodes_of(classifier: Any) -> tuple[Node, ...]:
    """The nodes of a classifier; errors as :meth:`TreeVerifier.from_classifier`."""
    from sklearn.tree import DecisionTreeClassifier

    if not isinstance(classifier, DecisionTreeClassifier):
        raise InvalidOptionError(
            f"classifier should be a sklearn.tree.DecisionTreeClassifier, not {quoted(classifier)}"
        )
    if not hasattr(classifier, "tree_"):
        raise InvalidOptionError(
            f"classifier is not fitted: call fit on columns ({', '.join(FEATURES)}) first"
        )
    names = tuple(getattr(classifier, "feature_names_in_", FEATURES))
    if classifier.n_features_in_ != len(FEATURES) or names != FEATURES:
        raise InvalidOptionError(
            f"classifier should see the columns {FEATURES}, not {classifier.n_features_in_}: {names}"
        )
    if classifier.n_outputs_ != 1 or not set(classifier.classes_.tolist()) <= {0, 1}:
        raise InvalidOptionError(f"classifier should answer 0 or 1, not {quoted(classifier.classes_)}")
    tree = classifier.tree_
    answers = classifier.classes_[tree.value[:, 0, :].argmax(-1)]
    return tuple(
        Split(FEATURES[tree.feature[index]], float(tree.threshold[index]), int(left), int(right))
        if left != right
        else Leaf(bool(answers[index]))
        for index, (left, right) in enumerate(zip(tree.children_left, tree.children_right, strict=True))
    )


def _folds(example: NDArray[Any], seed: int) -> Iterator[NDArray[np.bool_]]:
    """For every fold a mask of held-out positions; no fold if there are fewer than two examples."""
    examples = np.random.default_rng(seed).permutation(np.unique(example))
    count = min(_MOST_FOLDS, len(examples))
    for fold in range(count if count > 1 else 0):
        yield np.isin(example, examples[fold::count])


def _score(decisions: Decisions, depth: int, leaf: int, folds: Sequence[NDArray[np.bool_]]) -> Score:
    losses, correct = [], []
    for held_out in folds:
        judged = held_out & ~decisions.agrees
        if judged.any() and not held_out.all():
            tree = _fit_tree(decisions, ~held_out, depth, leaf)
            probability = _probabilities(tree, decisions.points[judged])
            replace = decisions.replace[judged]
            losses.append(float(-np.log(np.where(replace, probability, 1 - probability)).mean()))
            correct.append((probability > 0.5) == replace)
    if not losses:  # the models never differ
        return Score(depth, leaf, 0.0, 0.0, 1.0)
    error = float(np.std(losses, ddof=1)) / sqrt(len(losses)) if len(losses) > 1 else 0.0
    return Score(depth, leaf, float(np.mean(losses)), error, float(np.concatenate(correct).mean()))


def _simplest(scores: Sequence[Score]) -> Score:
    best = min(scores, key=lambda score: score.cross_entropy)
    good = [score for score in scores if score.cross_entropy <= best.cross_entropy + best.standard_error]
    return min(good, key=lambda score: (score.depth, -score.leaf))


def _fit_tree(decisions: Decisions, rows: NDArray[np.bool_], depth: int, leaf: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier  # the import takes half a second

    tree = DecisionTreeClassifier(
        criterion="log_loss", max_depth=depth, min_samples_leaf=leaf, random_state=0
    )
    return tree.fit(decisions.points[rows], decisions.replace[rows].astype(np.int8))


def _probabilities(tree: Any, points: NDArray[Any]) -> NDArray[Any]:
    """The smoothed probability that y should replace x, ``[points]``."""
    leaves = tree.apply(points)
    size = tree.tree_.n_node_samples[leaves]
    shares = dict(zip(tree.classes_.tolist(), tree.tree_.value[leaves, 0].T, strict=True))
    return (shares.get(1, 0.0) * size + 1) / (size + 2)  # type: ignore[no-any-return]

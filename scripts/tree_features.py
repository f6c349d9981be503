"""What is left to decide where the models differ, and whether more features decide it.

`python scripts/tree_features.py`: the tested questions of `tree_bench.py`, read by teacher forcing. Counted
are the positions where the bundled models differ, one is right, and a method decides for the other. Trees are
learned from 350 unseen questions of each kind. The draft's calibration on the tested questions is shown, too.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier
from tree_bench import lessons, tested_questions, unseen_questions

from cosd_core import Calibration, Observations, observe
from cosd_core.demo import KINDS, load_pair
from cosd_core.verifiers.features import CONFIDENCES, FEATURES

SETS = {
    "p, q": CONFIDENCES,
    "p, q, P(y), Q(x)": FEATURES[:4],
    "these and the lead": FEATURES[:5],
    "all features": FEATURES,
}
DEPTHS, LEAVES = (1, 2, 3, 4), (3, 10)


def main() -> None:
    """Print the counts."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    facts, arithmetic = load_pair()
    for name, pair in (("facts", (facts, arithmetic)), ("arithmetic", (arithmetic, facts))):
        tested = observe(pair, lessons(each for kind in KINDS for each in tested_questions(kind)))
        learned = observe(pair, lessons(each for kind in KINDS for each in unseen_questions(kind, 350)))
        points, replace = mismatches(tested)
        print(f"\n{name} model drafts: {len(replace):,} positions to decide")
        p, q, _, _, lead = points.T[:5]
        for said, answer in (
            ("rule (0.5, 0.5)", (p < 0.5) & (q > 0.5 * p)),
            ("rule (0.9, 0.5)", (p < 0.9) & (q > 0.5 * p)),
            ("q > p", q > p),
            ("average", lead > 0),
        ):
            print(f"{said}: {np.count_nonzero(answer != replace)} wrong")
        for said, columns in SETS.items():
            wrong = wrong_of_trees(
                mismatches(learned), (points, replace), [FEATURES.index(each) for each in columns]
            )
            print(f"trees over {said}: {min(wrong)} to {max(wrong)} wrong")
        fitted = Calibration.fit(tested)
        before, after = fitted.before[0], fitted.after[0]
        print(f"temperature of the draft {after.temperature:.2f}", end=", ")
        print(f"calibration error {before.error:.4f} -> {after.error:.4f}")


def mismatches(seen: Observations) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The features, ``[positions, features]``, and whether y should replace x, where that can be said."""
    decisions = seen.decisions(agreeing=False, features=FEATURES)
    return decisions.points, decisions.replace


def wrong_of_trees(
    learned: tuple[NDArray[np.float32], NDArray[np.bool_]],
    tested: tuple[NDArray[np.float32], NDArray[np.bool_]],
    columns: Sequence[int],
) -> list[int]:
    """How many positions trees of several depths and leaves decide wrong."""
    wrong = []
    for depth in DEPTHS:
        for leaf in LEAVES:
            tree = DecisionTreeClassifier(
                criterion="log_loss", max_depth=depth, min_samples_leaf=leaf, random_state=0
            ).fit(learned[0][:, columns], learned[1])
            wrong.append(int(np.count_nonzero(tree.predict(tested[0][:, columns]) != tested[1])))
    return wrong


if __name__ == "__main__":
    main()

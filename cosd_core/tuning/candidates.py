"""The candidates of a tuning, and their order by complexity."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from cosd_core.tuning.decision_trie import Setting, order_of
from cosd_core.tuning.folds import Fit, TreeKind
from cosd_core.verifiers import (
    AverageVerifier,
    ConfidenceVerifier,
    DraftVerifier,
    RuleVerifier,
    TreeVerifier,
    Verifier,
)

ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.3, 0.5, 0.7)

DEFAULT = RuleVerifier()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One method that tuning compares. Trees and temperatures of calibration differ from fold to fold.

    Attributes:
        name: Its name in reports.
        verifier: The verifier; None for a tree.
        draft: The number of the model that drafts; the others assist in their order.
        calibrated: Whether the confidences are calibrated.
        agreeing: Whether a tree is also fitted on positions where both models agree.
    """

    name: str
    verifier: Verifier | None
    draft: int = 0
    calibrated: bool = False
    agreeing: bool = True

    @property
    def single(self) -> bool:
        """Whether one model writes alone."""
        return isinstance(self.verifier, DraftVerifier)

    @property
    def rule(self) -> RuleVerifier | None:
        """The verifier, if it is a rule."""
        return self.verifier if isinstance(self.verifier, RuleVerifier) else None

    @property
    def fitted(self) -> bool:
        """Whether it depends on a :class:`Fit`."""
        return self.verifier is None or self.calibrated

    @property
    def complexity(self) -> tuple[int, float]:
        """A key that sorts simpler and cheaper candidates first.

        One model, the default rule, other rules, calibrated rules, trees, calibrated trees, and averages,
        which run both models at every position. Among rules the nearest to the default is simplest.
        """
        match self.verifier:
            case DraftVerifier():
                return 0, 0.0
            case AverageVerifier(weight):
                return 6, abs(weight - 0.5)
            case RuleVerifier(alpha, beta):
                distance = abs(alpha - DEFAULT.alpha) + abs(beta - DEFAULT.beta)
                return 3 if self.calibrated else 2 if distance else 1, distance
        return 4 + self.calibrated, 0.0

    def verifier_of(self, fit: Fit) -> Verifier:
        """Its verifier with the trees of a fit."""
        if self.verifier is not None:
            return self.verifier
        assert fit.trees is not None, "trees are candidates only where they are fitted"
        return fit.trees[TreeKind(self.draft, self.calibrated, self.agreeing)]

    def setting(self, fit: Fit) -> Setting:
        """Its setting for the replay with a fit; not for an average."""
        verifier = self.verifier_of(fit)
        assert isinstance(verifier, ConfidenceVerifier), "an average is decoded"
        return Setting(verifier, self.draft, fit.temperature_index if self.calibrated else 0)

    def fields(self, fit: Fit) -> dict[str, Any]:
        """Its fields of :class:`Settings` with a fit, without the models."""
        verifier = self.verifier_of(fit)
        order = order_of(self.draft, len(fit.temperatures))
        calibration = {"calibration": [fit.temperatures[at] for at in order]} if self.calibrated else {}
        values = verifier.to_dict()
        if isinstance(verifier, TreeVerifier):
            return {"verifier": values, **calibration}
        return {"verifier": values.pop("name"), **values, **calibration}


def make_candidates(
    names: Sequence[str],
    *,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    weights: Sequence[float] = WEIGHTS,
    fitted: bool = True,
) -> tuple[Candidate, ...]:
    """Every model alone, averages, and rules and trees with every model as the draft, calibrated and not.

    ``weights`` are the first model's shares in averages; none where distributions cannot be mixed. ``fitted``
    includes trees and calibrated rules, which need training data.

    Raises:
        InvalidOptionError: A threshold or weight is wrong.
    """
    drafts = range(len(names))
    candidates = [Candidate(f"{name} alone", DraftVerifier(), draft) for draft, name in enumerate(names)]
    rules = dict.fromkeys([DEFAULT, *(RuleVerifier(*each) for each in product(alphas, betas))])
    for calibrated, draft in product((False, True) if fitted else (False,), drafts):
        tail = f"{', calibrated' if calibrated else ''}, {names[draft]} drafts"
        candidates += [
            Candidate(f"rule ({rule.alpha:g}, {rule.beta:g}){tail}", rule, draft, calibrated)
            for rule in rules
        ]
        if fitted:
            candidates += [
                Candidate(
                    f"tree{'' if agreeing else ' of mismatches'}{tail}", None, draft, calibrated, agreeing
                )
                for agreeing in (True, False)
            ]
    for weight in dict.fromkeys(weights):
        candidates.append(Candidate(f"average ({weight:g} {names[0]})", AverageVerifier(weight)))
    return tuple(candidates)

"""The ways to write that are tried, and which of them is simpler than which."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from cosd_core.tuning.folds import Kind, Learned
from cosd_core.tuning.prefix_trie import Setting
from cosd_core.verifiers import (
    AverageVerifier,
    ConfidenceVerifier,
    DraftVerifier,
    LearnedTree,
    RuleVerifier,
    Verifier,
    WideTreeVerifier,
)

ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.3, 0.5, 0.7)

DEFAULT = RuleVerifier()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to write.

    Attributes:
        name: What reports call it.
        verifier: Who judges; None for a tree, which is another one in every fold.
        swapped: Whether the second model drafts.
        calibrated: Whether confidences are seen at fitted temperatures, which differ from fold to fold too.
        agreeing: Whether a tree learns also where both models write the same.
        wide: Whether a tree sees more than two confidences.
    """

    name: str
    verifier: Verifier | None
    swapped: bool = False
    calibrated: bool = False
    agreeing: bool = True
    wide: bool = False

    @property
    def single(self) -> bool:
        """Whether one model writes alone."""
        return isinstance(self.verifier, DraftVerifier)

    @property
    def rule(self) -> RuleVerifier | None:
        """The rule that judges, if one does."""
        return self.verifier if isinstance(self.verifier, RuleVerifier) else None

    @property
    def learns(self) -> bool:
        """Whether it depends on what was learned."""
        return self.verifier is None or self.calibrated

    @property
    def complexity(self) -> tuple[int, float]:
        """Simpler and cheaper ones first.

        One model, the rule as it comes, other rules, calibrated ones, trees, calibrated trees, wide trees.
        Averaging is last: it asks both models at every position. Among rules the one nearest to the default
        is simplest.
        """
        match self.verifier:
            case DraftVerifier():
                return 0, 0.0
            case AverageVerifier(weight):
                return 8, abs(weight - 0.5)
            case RuleVerifier(alpha, beta):
                distance = abs(alpha - DEFAULT.alpha) + abs(beta - DEFAULT.beta)
                return 3 if self.calibrated else 2 if distance else 1, distance
        return 4 + self.calibrated + 2 * self.wide, 0.0

    def verifier_of(self, learned: Learned) -> Verifier:
        """Who judges, given what was learned."""
        if self.verifier is not None:
            return self.verifier
        assert learned.trees is not None, "trees are candidates only where they are learned"
        return learned.trees[Kind(self.swapped, self.calibrated, self.agreeing, self.wide)]

    def setting(self, learned: Learned) -> Setting:
        """What is replayed, given what was learned; not for an average."""
        verifier = self.verifier_of(learned)
        assert isinstance(verifier, ConfidenceVerifier | WideTreeVerifier), "an average is decoded"
        return Setting(verifier, self.swapped, learned.column if self.calibrated else 0)

    def fields(self, learned: Learned) -> dict[str, Any]:
        """The fields of :class:`Settings` that make a decoder write so, but for the models."""
        verifier = self.verifier_of(learned)
        first, second = learned.temperatures
        temperatures = [second, first] if self.swapped else [first, second]
        calibration = {"calibration": temperatures} if self.calibrated else {}
        said = verifier.to_dict()
        if isinstance(verifier, LearnedTree):
            return {"verifier": said, **calibration}
        return {"verifier": said.pop("name"), **said, **calibration}


def make_candidates(
    names: Sequence[str],
    *,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    weights: Sequence[float] = WEIGHTS,
    learns: bool = True,
    wide: bool = False,
) -> tuple[Candidate, ...]:
    """Both models alone, averages, and rules and trees in both roles, calibrated and not.

    Args:
        names: The two models.
        alphas: What rules are tried with.
        betas: The same.
        weights: The first model's shares in averages.
        learns: Whether there is something to learn from, so that trees and calibrated rules can be tried.
        wide: Whether wide trees are tried, too.

    Raises:
        InvalidOptionError: A threshold or weight is wrong.
    """
    found = [Candidate(f"{names[at]} alone", DraftVerifier(), swapped=bool(at)) for at in (0, 1)]
    rules = dict.fromkeys([DEFAULT, *(RuleVerifier(*each) for each in product(alphas, betas))])
    for calibrated, swapped in product((False, True) if learns else (False,), (False, True)):
        tail = f"{', calibrated' if calibrated else ''}, {names[swapped]} drafts"
        found += [
            Candidate(f"rule ({rule.alpha:g}, {rule.beta:g}){tail}", rule, swapped, calibrated)
            for rule in rules
        ]
        if learns:
            found += [
                Candidate(f"{size}tree{of}{tail}", None, swapped, calibrated, agreeing, bool(size))
                for size in (("", "wide ") if wide else ("",))
                for agreeing, of in ((True, ""), (False, " of mismatches"))
            ]
    for weight in dict.fromkeys(weights):
        found.append(Candidate(f"average ({weight:g} {names[0]})", AverageVerifier(weight)))
    return tuple(found)

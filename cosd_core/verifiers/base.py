"""The contract of a verifier: a pure judgement over confidences that knows no model and no cache."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from cosd_core.prediction import Prediction
from cosd_core.verifiers.types import Position, Replacement, Verdict


class Verifier(ABC):
    """Decides, position by position, whether an assistant's token replaces the draft's.

    Attributes:
        name: The word users choose it by.
        needs_logits: Whether predictions must carry their logits and positions a picker.
    """

    name: ClassVar[str]
    needs_logits: ClassVar[bool] = False

    @property
    def calibration(self) -> Sequence[float] | None:
        """The temperatures of the confidences that it was learned from, the draft's first, or None.

        A decoder that is given none takes these.
        """
        return None

    @abstractmethod
    def judge(self, position: Position) -> Replacement | None:
        """What replaces the draft token at a position whose opinions are known, or None to keep it."""

    def can_replace(self, p: float) -> bool:  # noqa: ARG002
        """Whether any opinion could replace a draft token of confidence ``p``.

        Where it says no, the assistants need not be asked (lazy verification).
        """
        return True

    def check(self, assistants: int) -> None:  # noqa: B027
        """Refuse a number of assistants that the method is not defined for.

        Raises:
            InvalidOptionError: With the number and what would be right.
        """

    def reason(self, p: float, q: float, *, replaced: bool) -> str:
        """Say in words why tokens of these confidences, which differ, ended as they did."""
        verb = "replaced" if replaced else "kept"
        return f"{self.name}: {verb} at p = {p:.2f}, q = {q:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        return {"name": self.name}


class PairwiseVerifier(Verifier):
    """A verifier that holds the draft's token against one assistant's at a time."""

    @abstractmethod
    def prefers(self, draft: Prediction, opinion: Prediction, assistant: int) -> bool:
        """Whether an assistant's token replaces the draft's, which is another."""

    def judge(self, position: Position) -> Replacement | None:
        """The most confident assistant among those whose token differs and is preferred."""
        best: Replacement | None = None
        best_confidence = -1.0
        draft = position.draft
        for index, opinion in enumerate(position.opinions or ()):
            if (
                opinion.id != draft.id
                and opinion.confidence > best_confidence  # strict: ties go to the first
                and self.prefers(draft, opinion, index)
            ):
                best, best_confidence = Replacement(opinion.id, index), opinion.confidence
        return best


class ConfidenceVerifier(PairwiseVerifier):
    """A verifier that sees only the two confidences of a mismatch: rule and tree, and the two singles."""

    @abstractmethod
    def replaces(self, p: float, q: float) -> bool:
        """Whether y of confidence ``q`` replaces a different x of confidence ``p``."""

    def for_assistant(self, index: int) -> "ConfidenceVerifier":  # noqa: ARG002
        """Who judges that assistant's tokens: this verifier, unless each assistant has one of its own."""
        return self

    def prefers(self, draft: Prediction, opinion: Prediction, assistant: int) -> bool:
        """By the two confidences."""
        return self.for_assistant(assistant).replaces(draft.confidence, opinion.confidence)


def verify_block(verifier: Verifier, block: Sequence[Position]) -> Verdict:
    """Judge a block from the left; the first replacement ends the walk (paper, Algorithm 1)."""
    for kept, position in enumerate(block):
        if position.opinions is not None and (replacement := verifier.judge(position)):
            return Verdict(kept, replacement)
    return Verdict(len(block), None)

"""The contract of a verifier: it decides from predictions alone and uses no model and no cache."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from cosd_core.errors import InvalidOptionError, VerifierError, quoted
from cosd_core.prediction import Prediction
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers.types import Position, Replacement, Verdict, logits_of


class Verifier(ABC):
    """Decides, position by position, whether an assistant's token replaces the draft's.

    Attributes:
        name: The word users choose it by.
        needs_logits: Whether predictions must carry their logits and positions a sampler.
    """

    name: ClassVar[str]
    needs_logits: ClassVar[bool] = False

    @property
    def calibration(self) -> Sequence[float] | None:
        """The temperatures of the confidences it was trained on, the draft's first; None if it has none.

        A decoder without a calibration of its own uses these.
        """
        return None

    @abstractmethod
    def judge(self, position: Position) -> Replacement | None:
        """The replacement of the draft token at a position with opinions, or None to keep the token."""

    def can_replace(self, p: float) -> bool:  # noqa: ARG002
        """Whether any opinion could replace a draft token of confidence ``p``.

        Where the answer is False, the assistants need not run (lazy verification).
        """
        return True

    def check(self, assistants: int) -> None:  # noqa: B027
        """Refuse a number of assistants that the method is not defined for.

        Raises:
            InvalidOptionError: With the number and the allowed ones.
        """

    def fused_logits(self, position: Position) -> torch.Tensor:  # noqa: ARG002
        """Logits of the token at a position, ``[vocabulary]``: their softmax is its distribution.

        Likelihoods of given texts are computed from it. All predictions carry their logits; the position has
        no sampler, and ``opinions`` is None only where :meth:`can_replace` ruled a replacement out. Where
        models have different tokens, it should return the very logits of one prediction: that tells whose
        distribution it is.

        Raises:
            InvalidOptionError: The method defines no such distribution.
        """
        raise InvalidOptionError(
            f"verifier={quoted(self)}: likelihoods are defined for verifiers over confidences, trees, "
            "average, speculative, and those that define fused_logits"
        )

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:  # noqa: ARG002
        """Explain in words why a draft token was replaced or kept where an assistant's token differs.

        Args:
            p: The draft's confidence.
            q: The assistant's confidence.
            replaced: Whether the assistant's token replaced the draft's.
            assistant: The assistant's number, counted from 0.
        """
        verb = "replaced" if replaced else "kept"
        return f"{self.name}: {verb} at p = {p:.2f}, q = {q:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        return {"name": self.name}


class PairwiseVerifier(Verifier):
    """A verifier that compares the draft's token with one assistant's at a time."""

    @abstractmethod
    def prefers(self, draft: Prediction, opinion: Prediction, assistant: int) -> bool:
        """Whether an assistant's token replaces the draft's different token."""

    def judge(self, position: Position) -> Replacement | None:
        """The most confident assistant among those whose token differs and is preferred."""
        draft = position.draft
        preferred = [
            (opinion.confidence, -index, opinion.id)  # ties go to the first assistant
            for index, opinion in enumerate(position.opinions or ())
            if opinion.id != draft.id and self.prefers(draft, opinion, index)
        ]
        if not preferred:
            return None
        _, index, token = max(preferred)
        return Replacement(token, -index)

    def fused_logits(self, position: Position) -> torch.Tensor:
        """The assistant's logits where its token replaces the draft's, else the draft's logits."""
        replacement = self.judge(position)
        if replacement is None or position.opinions is None:
            return logits_of(position.draft)
        return logits_of(position.opinions[replacement.assistant_index])


class ConfidenceVerifier(PairwiseVerifier):
    """A verifier over the two confidences of a mismatch, the same for every assistant."""

    @abstractmethod
    def replaces(self, p: float, q: float) -> bool:
        """Whether y of confidence ``q`` replaces a different x of confidence ``p``."""

    def prefers(self, draft: Prediction, opinion: Prediction, assistant: int) -> bool:  # noqa: ARG002
        """By the two confidences."""
        return self.replaces(draft.confidence, opinion.confidence)


def verify_block(verifier: Verifier, block: Sequence[Position]) -> Verdict:
    """Judge a block from left to right; the first replacement ends it (paper, Algorithm 1).

    Raises:
        VerifierError: The verifier is a user's own, and fails.
    """
    for kept, position in enumerate(block):
        if position.opinions is not None and (replacement := judge(verifier, position)):
            return Verdict(kept, replacement)
    return Verdict(len(block), None)


def judge(verifier: Verifier, position: Position) -> Replacement | None:
    """:meth:`Verifier.judge`; raises VerifierError if it fails, or returns something else."""
    with guarded(VerifierError, verifier):
        replacement = verifier.judge(position)
    if replacement is None:
        return None
    opinions = len(position.opinions or ())
    if not isinstance(replacement, Replacement) or replacement.assistant_index not in range(opinions):
        raise VerifierError(
            f"{type(verifier).__qualname__}.judge returned {quoted(replacement)}: it should be None, or a "
            f"Replacement by an assistant from 0 to {opinions - 1}"
        )
    return replacement


def can_replace(verifier: Verifier, p: float) -> bool:
    """:meth:`Verifier.can_replace`; raises VerifierError if it fails."""
    with guarded(VerifierError, verifier):
        return bool(verifier.can_replace(p))


def described(verifier: Verifier) -> dict[str, Any]:
    """:meth:`Verifier.to_dict`; raises VerifierError if it fails."""
    with guarded(VerifierError, verifier):
        return verifier.to_dict()

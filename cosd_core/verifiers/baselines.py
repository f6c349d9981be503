"""The methods CoSD is compared with, through the same loop and caches, so that tables compare methods."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cosd_core.errors import InvalidOptionError
from cosd_core.options import check_number
from cosd_core.verifiers.base import ConfidenceVerifier, Verifier
from cosd_core.verifiers.types import Position, Replacement


@dataclass(frozen=True, slots=True)
class DraftVerifier(ConfidenceVerifier):
    """Never replaces: the draft model alone."""

    name: ClassVar[str] = "draft"

    def replaces(self, p: float, q: float) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def can_replace(self, p: float) -> bool:  # noqa: ARG002
        """Never, so the assistants are never asked."""
        return False

    def reason(self, p: float, q: float, *, replaced: bool) -> str:  # noqa: ARG002
        """Always the same."""
        return "the draft alone writes"


@dataclass(frozen=True, slots=True)
class AssistantVerifier(ConfidenceVerifier):
    """Replaces every mismatch: the assistant model alone."""

    name: ClassVar[str] = "assistant"

    def replaces(self, p: float, q: float) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def reason(self, p: float, q: float, *, replaced: bool) -> str:  # noqa: ARG002
        """Always the same."""
        return "the assistant alone writes"


@dataclass(frozen=True, slots=True)
class SpeculativeVerifier(Verifier):
    """Speculative decoding: the output is distributed exactly as the assistant's own sampling.

    x is kept with probability min(1, Q(x) / P(x)); otherwise the token is drawn from max(0, Q - P),
    renormalised (Leviathan et al., ICML 2023, arXiv 2211.17192, section 2.3). P and Q are the
    distributions after temperature, top-k and the like.
    """

    name: ClassVar[str] = "speculative"
    needs_logits: ClassVar[bool] = True

    def check(self, assistants: int) -> None:
        """The method is defined for two models."""
        if assistants != 1:
            raise InvalidOptionError(f'verifier="speculative" takes one assistant, not {assistants}')

    def judge(self, position: Position) -> Replacement | None:
        """Accept or resample."""
        draft, picker = position.draft, position.picker
        assert picker is not None
        assert position.opinions is not None
        p = picker.distribution(_logits(draft.logits))
        q = picker.distribution(_logits(position.opinions[0].logits)).to(p.device)
        if picker.uniform("accept") * p[draft.id] < q[draft.id]:
            return None
        residual = (q - p).clamp_(min=0)
        # A residual without mass means p equals q up to rounding: then x is as good as any other.
        if not residual.sum() > 0:
            return None
        return Replacement(picker.draw(residual, "assistant 0"), 0)


@dataclass(frozen=True, slots=True)
class AverageVerifier(Verifier):
    """The token is picked from ``weight * P + (1 - weight) * Q``; Q is the assistants' mean.

    Attributes:
        weight: The draft's share, between 0 and 1.

    Raises:
        InvalidOptionError: The weight lies outside.
    """

    weight: float = 0.5

    name: ClassVar[str] = "average"
    needs_logits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("weight", self.weight, most=1.0)

    def judge(self, position: Position) -> Replacement | None:
        """Keep x where the mixture picks it too; otherwise the mixture's pick stands."""
        draft, picker = position.draft, position.picker
        assert picker is not None
        assert position.opinions is not None
        p = torch.softmax(_logits(draft.logits), -1)
        qs = [torch.softmax(_logits(opinion.logits), -1).to(p.device) for opinion in position.opinions]
        mixture = self.weight * p + (1 - self.weight) * torch.stack(qs).mean(0)
        token = picker.draw(picker.distribution(mixture.log()), "draft")
        if token == draft.id:
            return None
        leader = max(range(len(qs)), key=lambda index: float(qs[index][token]))
        return Replacement(token, leader)

    def reason(self, p: float, q: float, *, replaced: bool) -> str:
        """Whose token the mixture favoured."""
        outcome = "favours another token than the draft's" if replaced else "favours the draft's token"
        return f"the mixture of both distributions {outcome} (p = {p:.2f}, q = {q:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Name and weight."""
        return {"name": self.name, "weight": self.weight}


def _logits(logits: torch.Tensor | None) -> torch.Tensor:
    assert logits is not None, "a verifier with needs_logits gets them"
    return logits

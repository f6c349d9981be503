"""The methods CoSD is compared with, run by the same loop and caches, so that tables compare methods only."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cosd_core.errors import InvalidOptionError
from cosd_core.options import check_number
from cosd_core.verifiers.base import ConfidenceVerifier, Verifier
from cosd_core.verifiers.types import Position, Replacement, TokenSampler, logits_of


@dataclass(frozen=True, slots=True)
class DraftVerifier(ConfidenceVerifier):
    """Never replaces: the draft model alone."""

    name: ClassVar[str] = "draft"

    def replaces(self, p: float, q: float) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def can_replace(self, p: float) -> bool:  # noqa: ARG002
        """Never, so the assistants never run."""
        return False

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:  # noqa: ARG002
        """Always the same."""
        return "the draft alone writes"


@dataclass(frozen=True, slots=True)
class AssistantVerifier(ConfidenceVerifier):
    """Replaces every mismatch: the assistant model alone."""

    name: ClassVar[str] = "assistant"

    def replaces(self, p: float, q: float) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def fused_logits(self, position: Position) -> torch.Tensor:
        """The logits of the assistant that replaces, or of the most confident one where all tokens agree."""
        assert position.opinions is not None
        replacement = self.judge(position)
        if replacement is not None:
            return logits_of(position.opinions[replacement.assistant_index])
        return logits_of(max(position.opinions, key=lambda opinion: opinion.confidence))

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:  # noqa: ARG002
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
        draft, sampler = position.draft, _sampler(position)
        assert position.opinions is not None
        p = sampler.distribution(logits_of(draft))
        q = sampler.distribution(logits_of(position.opinions[0])).to(p.device)
        if sampler.uniform("accept") * p[draft.id] < q[draft.id]:
            return None
        residual = (q - p).clamp_(min=0)
        # A residual without mass means p equals q up to rounding: then x is as good as any other.
        if not residual.sum() > 0:
            return None
        return Replacement(sampler.draw(residual, "assistant 0"), 0)

    def fused_logits(self, position: Position) -> torch.Tensor:
        """The assistant's logits, since the output follows the assistant's distribution."""
        assert position.opinions is not None
        return logits_of(position.opinions[0])


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
        """Keep x if the mixture picks it too; otherwise return the mixture's pick."""
        sampler = _sampler(position)
        mixture, assistants = self._mixture(position)
        token = sampler.draw(sampler.distribution(mixture.log()), "draft")
        if token == position.draft.id:
            return None
        leader = max(range(len(assistants)), key=lambda index: float(assistants[index][token]))
        return Replacement(token, leader)

    def fused_logits(self, position: Position) -> torch.Tensor:
        """The logarithm of the mixture."""
        return self._mixture(position)[0].log()

    def _mixture(self, position: Position) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The mixture and every assistant's distribution, each ``[vocabulary]``."""
        assert position.opinions is not None
        p = torch.softmax(logits_of(position.draft), -1)
        qs = [torch.softmax(logits_of(opinion), -1).to(p.device) for opinion in position.opinions]
        return self.weight * p + (1 - self.weight) * torch.stack(qs).mean(0), qs

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:  # noqa: ARG002
        """Which token the mixture favoured."""
        outcome = "favours another token than the draft's" if replaced else "favours the draft's token"
        return f"the mixture of both distributions {outcome} (p = {p:.2f}, q = {q:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Name and weight."""
        return {"name": self.name, "weight": self.weight}


def _sampler(position: Position) -> TokenSampler:
    assert position.sampler is not None, "positions carry a sampler for verifiers with needs_logits"
    return position.sampler

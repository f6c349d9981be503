"""The values a verifier sees and returns. All of them are frozen."""

from dataclasses import dataclass
from typing import Protocol

import torch

from cosd_core.prediction import Opinions, Prediction


@dataclass(frozen=True, slots=True)
class Replacement:
    """A verifier's decision that another token takes the draft token's place."""

    id: int
    assistant_index: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one block: how many draft tokens are kept, and what replaces the next, if anything."""

    kept: int
    replacement: Replacement | None


class TokenSampler(Protocol):
    """Picks a token at one position with the request's sampling options and its own random numbers."""

    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """What temperature, top-k and the like make of processed logits; one-hot when greedy.

        ``[vocabulary]`` -> ``[vocabulary]``.
        """
        ...

    def draw(self, weights: torch.Tensor, purpose: str) -> int:
        """Draw from non-negative weights, ``[vocabulary]``, with the random number of that purpose."""
        ...

    def uniform(self, purpose: str) -> float:
        """The random number in [0, 1) that belongs to this position and purpose."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """What a verifier sees of one drafted position.

    Attributes:
        draft: x and p.
        opinions: y and q of every assistant, or None where the assistants were not asked because
            :meth:`Verifier.can_replace` ruled a replacement out.
        picker: Only for verifiers with ``needs_logits``.
    """

    draft: Prediction
    opinions: Opinions | None
    picker: TokenSampler | None = None

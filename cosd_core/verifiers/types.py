"""The values a verifier receives and returns. All of them are frozen."""

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
    """The outcome of one block: the number of kept draft tokens, and the replacement of the next, if any."""

    kept: int
    replacement: Replacement | None


class TokenSampler(Protocol):
    """Picks a token at one position with the request's sampling options and its own random numbers."""

    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities after temperature, top-k and the like, from processed logits; one-hot when greedy.

        ``[vocabulary]`` -> ``[vocabulary]``.
        """

    def draw(self, weights: torch.Tensor, purpose: str) -> int:
        """Draw from non-negative weights, ``[vocabulary]``, with the random number of that purpose."""

    def uniform(self, purpose: str) -> float:
        """The random number in [0, 1) that belongs to this position and purpose."""


@dataclass(frozen=True, slots=True)
class Position:
    """One drafted position.

    Attributes:
        draft: x and p.
        opinions: y and q of every assistant, or None where the assistants did not run because
            :meth:`Verifier.can_replace` ruled a replacement out.
        sampler: Only for verifiers with ``needs_logits``.
    """

    draft: Prediction
    opinions: Opinions | None
    sampler: TokenSampler | None = None


def logits_of(prediction: Prediction) -> torch.Tensor:
    """The logits of a prediction that must carry them."""
    assert prediction.logits is not None, "predictions carry logits for verifiers with needs_logits"
    return prediction.logits

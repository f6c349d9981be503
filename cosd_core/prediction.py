"""What one model would write at one position."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model would write at one position.

    Attributes:
        id: The token: x of the draft, y of an assistant.
        confidence: Its probability: p of the draft, q of an assistant. The softmax of the raw logits at the
            model's temperature of calibration, 1 unless the decoder was given another, after hard masks,
            whatever the sampling options are; in float32, or float64 where the model computes in it.
        logits: What the logits processors left of the raw logits, before temperature and the like, shape
            ``[vocabulary]``; only where the verifier asks for them.
    """

    id: int
    confidence: float
    logits: torch.Tensor | None = field(default=None, compare=False, repr=False)


Opinions = tuple[Prediction, ...]
"""What the assistants would write at one position, in the order of the assistants."""

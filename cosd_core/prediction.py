"""The predictions of models at one position."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Prediction:
    """The token that one model predicts at one position.

    Attributes:
        id: The token: x of the draft, y of an assistant.
        confidence: Its probability: p of the draft, q of an assistant. The softmax of the raw logits at the
            model's calibration temperature (default 1) after hard masks, independent of the sampling
            options; in float32, or in float64 if the model computes in it.
        logits: The logits after the logits processors, before temperature and truncation of sampling, shape
            ``[vocabulary]``; None unless the verifier needs them.
    """

    id: int
    confidence: float
    logits: torch.Tensor | None = field(default=None, compare=False, repr=False)


Opinions = tuple[Prediction, ...]
"""The assistants' predictions at one position, in the order of the assistants."""

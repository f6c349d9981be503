"""From logits to confidences and picked tokens; where chance has a say depends on the place and a seed alone.

*Confidence* is the softmax of the raw logits at temperature 1, or at the model's own temperature of
calibration. Hard masks come first and the rest is renormalised. The sampling temperature, top-k, top-p, min-p
and penalties shape which token is picked, never the confidence a verifier sees, so alpha and beta mean the
same at every sampling setting; calibration shapes the confidence, and never which token is picked.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from cosd_core.errors import ModelOutputError
from cosd_core.prediction import Prediction
from cosd_core.sampling.logits_processors import process
from cosd_core.sampling.sampler import SamplingPosition, invert_cdf, shape


def predict(
    logits: torch.Tensor,
    spots: Sequence[SamplingPosition],
    purpose: str,
    *,
    keep_logits: bool,
    calibration: float = 1.0,
) -> list[Prediction]:
    """What a model would write at each spot, and how sure it is.

    Args:
        logits: Raw logits, ``[spots, vocabulary]``, any float type and device.
        spots: Where they belong.
        purpose: Who predicts, ``"draft"`` or ``"assistant 0"``: whose random numbers are used.
        keep_logits: Whether the predictions carry their processed logits.
        calibration: The temperature of the model's confidences.

    Raises:
        ModelOutputError: The logits hold NaN, or forbid every token.
        LogitsProcessorError: A user's processor raised or returned something unusable.
    """
    ways: dict[tuple[Any, ...], list[int]] = {}
    for at, spot in enumerate(spots):
        ways.setdefault(spot.sampler.way, []).append(at)
    if len(ways) == 1:
        return _predict_alike(logits, spots, purpose, keep_logits, calibration)
    found: dict[int, Prediction] = {}
    for places in ways.values():
        alike = [spots[at] for at in places]
        predictions = _predict_alike(logits[places], alike, purpose, keep_logits, calibration)
        found.update(zip(places, predictions, strict=True))
    return [found[at] for at in range(len(spots))]


def _predict_alike(
    logits: torch.Tensor,
    spots: Sequence[SamplingPosition],
    purpose: str,
    keep_logits: bool,
    calibration: float,
) -> list[Prediction]:
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    sampler = spots[0].sampler
    if sampler.processors and not logits.amax(-1).isfinite().all():
        raise _not_finite(purpose)  # before a processor is blamed for it
    masked, processed = _process(logits, spots)
    shaped = shape(processed, sampler)
    if sampler.greedy:
        ids = shaped.argmax(-1)
    else:
        ids = invert_cdf(torch.softmax(shaped, -1), [spot.uniform(purpose) for spot in spots])
    sure = masked if calibration == 1 else masked / calibration
    confidences = torch.softmax(sure, -1).gather(-1, ids[:, None])[:, 0].tolist()
    if any(map(math.isnan, confidences)):
        raise _not_finite(purpose)
    kept: Sequence[torch.Tensor | None] = processed.unbind() if keep_logits else [None] * len(spots)
    return list(map(Prediction, ids.tolist(), confidences, kept))


def _not_finite(purpose: str) -> ModelOutputError:
    return ModelOutputError(f"the {purpose} model returned logits that are NaN or infinite")


def _process(logits: torch.Tensor, spots: Sequence[SamplingPosition]) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply what depends on the place: (logits after hard masks, scores that tokens are picked from)."""
    vocabulary = logits.shape[-1]
    masks = [spot.allowed(vocabulary) for spot in spots]
    if any(mask is not None for mask in masks):
        everything = torch.ones(vocabulary, dtype=torch.bool)
        allowed = torch.stack([everything if mask is None else mask for mask in masks])
        logits = logits.masked_fill(~allowed.to(logits.device), -torch.inf)
    if not spots[0].sampler.processors:
        return logits, logits
    rows = [
        process(
            row[None], torch.tensor([spot.ids[: spot.length]], device=row.device), spot.sampler.processors
        )
        for row, spot in zip(logits, spots, strict=True)
    ]
    return torch.cat([masked for masked, _ in rows]), torch.cat([scores for _, scores in rows])

"""From logits to predictions: picked tokens and their confidences.

*Confidence* is the softmax of the raw logits at temperature 1, or at the model's calibration temperature.
Hard masks come first and the rest is renormalised. The sampling temperature, top-k, top-p, min-p and
penalties change which token is picked, never the confidence a verifier sees, so alpha and beta mean the same
at every sampling setting; calibration changes the confidence, and never which token is picked.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from cosd_core.errors import LogitsProcessorError, ModelOutputError
from cosd_core.prediction import Prediction
from cosd_core.sampling.logits_processors import process
from cosd_core.sampling.sampler import SamplingPosition, invert_cdf


def predict(
    logits: torch.Tensor,
    positions: Sequence[SamplingPosition],
    purpose: str,
    *,
    keep_logits: bool,
    calibration: float = 1.0,
) -> list[Prediction]:
    """The token that a model writes at each position, and its confidence.

    Args:
        logits: Raw logits, ``[positions, vocabulary]``, any float type and device.
        positions: Where they belong.
        purpose: Whose random numbers are used: ``"draft"`` or ``"assistant 0"``.
        keep_logits: Whether the predictions carry their processed logits.
        calibration: The temperature of the model's confidences.

    Raises:
        ModelOutputError: The logits hold NaN, or forbid every token.
        LogitsProcessorError: A user's processor raised or returned something unusable.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for at, position in enumerate(positions):
        groups.setdefault(position.sampler.group_key, []).append(at)
    if len(groups) == 1:
        return _predict_group(logits, positions, purpose, keep_logits, calibration)
    found: dict[int, Prediction] = {}
    for group in groups.values():
        members = [positions[at] for at in group]
        predictions = _predict_group(logits[group], members, purpose, keep_logits, calibration)
        found.update(zip(group, predictions, strict=True))
    return [found[at] for at in range(len(positions))]


def _predict_group(
    logits: torch.Tensor,
    positions: Sequence[SamplingPosition],
    purpose: str,
    keep_logits: bool,
    calibration: float,
) -> list[Prediction]:
    """:func:`predict` for positions of one ``group_key``."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    sampler = positions[0].sampler
    try:
        masked, processed = _process(logits, positions)
    except LogitsProcessorError:
        if not logits.amax(-1).isfinite().all():  # the model's fault, not the processor's
            raise _not_finite(purpose) from None
        raise
    scores = sampler.warp(processed)
    if sampler.greedy:
        ids = scores.argmax(-1)
    else:
        ids = invert_cdf(torch.softmax(scores, -1), [position.uniform(purpose) for position in positions])
    calibrated = masked if calibration == 1 else masked / calibration
    probabilities = torch.softmax(calibrated, -1).gather(-1, ids[:, None])[:, 0]
    # One transfer for both, since each waits for the device. Floats hold ids exactly, up to 2**24.
    picked, confidences = torch.stack([ids.to(probabilities.dtype), probabilities]).tolist()
    if any(map(math.isnan, confidences)):
        raise _not_finite(purpose)
    kept: Sequence[torch.Tensor | None] = processed.unbind() if keep_logits else [None] * len(positions)
    return list(map(Prediction, map(int, picked), confidences, kept))


def _not_finite(purpose: str) -> ModelOutputError:
    return ModelOutputError(f"the {purpose} model returned logits that are NaN or infinite")


def _process(
    logits: torch.Tensor, positions: Sequence[SamplingPosition]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply masks and processors: (logits after hard masks, scores that tokens are picked from)."""
    vocabulary = logits.shape[-1]
    masks = [position.mask(vocabulary) for position in positions]
    if any(mask is not None for mask in masks):
        everything = torch.ones(vocabulary, dtype=torch.bool)
        allowed = torch.stack([everything if mask is None else mask for mask in masks])
        logits = logits.masked_fill(~allowed.to(logits.device), -torch.inf)
    if not positions[0].sampler.processors:
        return logits, logits
    rows = []
    for row, position in zip(logits, positions, strict=True):
        input_ids = torch.tensor([position.input_ids[: position.length]], device=row.device)
        rows.append(process(row[None], input_ids, position.sampler.processors))
    return torch.cat([masked for masked, _ in rows]), torch.cat([scores for _, scores in rows])

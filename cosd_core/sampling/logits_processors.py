"""Logits processors, users' own and transformers': checked once, then applied at every position."""

import io
import pickle
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from transformers.generation import logits_process as hf

from cosd_core.errors import InvalidOptionError, LogitsProcessorError, quoted

_WARPERS = (
    hf.TemperatureLogitsWarper,
    hf.TopKLogitsWarper,
    hf.TopPLogitsWarper,
    hf.TopHLogitsWarper,
    hf.MinPLogitsWarper,
    hf.TypicalLogitsWarper,
    hf.EpsilonLogitsWarper,
    hf.EtaLogitsWarper,
)
"""Processors whose -inf only changes which token is picked. The -inf of any other is a hard mask."""

_STATEFUL = (
    hf.SynthIDTextWatermarkLogitsProcessor,
    hf.UnbatchedClassifierFreeGuidanceLogitsProcessor,
)


def check_processors(
    processors: Sequence[Any], prompt_ids: Sequence[int], vocabulary: int, device: torch.device
) -> None:
    """Refuse logits processors that keep state: a rejected token could not be taken back from them.

    transformers' own stateless processors and those with a true attribute ``stateless`` are accepted; any
    other is called twice on the prompt and must change neither its attributes nor its result.

    Raises:
        InvalidOptionError: With the processor and why it cannot take part.
    """
    for processor in processors:
        name = type(processor).__name__
        if isinstance(processor, _STATEFUL):
            raise InvalidOptionError(
                f"logits_processor {name} keeps state between tokens that cannot be rolled back when a "
                "drafted token is rejected"
            )
        if type(processor).__module__ == hf.__name__ or getattr(processor, "stateless", False):
            continue
        ids = torch.tensor([list(prompt_ids)], device=device)
        before = _state(processor)
        first, second = (_call(processor, ids, torch.zeros(1, vocabulary, device=device)) for _ in range(2))
        if before != _state(processor) or not torch.equal(first, second):
            raise InvalidOptionError(
                f"logits_processor {name} changes when it is called, so it cannot be rolled back when a "
                "drafted token is rejected; if it only caches, give it an attribute stateless = True"
            )


def _state(processor: Any) -> bytes:
    """All that a call could change, as bytes: attributes, slots, and the closure of a function."""
    if isinstance(processor, FunctionType):
        state: Any = [cell.cell_contents for cell in processor.__closure__ or ()]
    else:
        state = processor.__reduce_ex__(4)[2:]
    snapshot = io.BytesIO()
    _Snapshot(snapshot).dump(state)
    return snapshot.getvalue()


class _Snapshot(pickle.Pickler):
    """Pickles a state for comparison only: objects that cannot be pickled are compared by identity."""

    def persistent_id(self, value: Any) -> int | None:
        try:
            if not isinstance(value, FunctionType | type):
                value.__reduce_ex__(4)
                return None
        except Exception:  # the object's own code may raise anything; then it is compared by identity
            pass
        return id(value)


def process(
    logits: torch.Tensor, ids: torch.Tensor, processors: Sequence[Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply processors one after another: (logits after hard masks, scores that tokens are picked from).

    Args:
        logits: ``[1, vocabulary]``.
        ids: The text so far, ``[1, length]``.
        processors: In the order in which they are applied.

    Raises:
        LogitsProcessorError: One raised, or returned something unusable.
    """
    masked, scores = logits, logits
    for processor in processors:
        scores = _call(processor, ids, scores)
        if not isinstance(processor, _WARPERS):
            masked = masked.masked_fill(scores == -torch.inf, -torch.inf)
    return masked, scores


def _call(processor: Any, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    name = type(processor).__name__
    try:
        result = processor(ids, scores.clone())
    except Exception as error:
        raise LogitsProcessorError(
            f"logits_processor {name} raised {type(error).__name__}: {quoted(error)}"
        ) from error
    if not isinstance(result, torch.Tensor) or result.shape != scores.shape or not result.is_floating_point():
        what = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise LogitsProcessorError(
            f"logits_processor {name} returned {what}; it should return scores of shape {tuple(scores.shape)}"
        )
    if not result.amax().isfinite():
        raise LogitsProcessorError(f"logits_processor {name} returned NaN, or forbade every token")
    return result

"""Traits of a model: facts in its configuration and its ``forward``'s signature that decide how it runs."""

import inspect
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Self

from transformers import PreTrainedConfig, PreTrainedModel

from cosd_core.models.cache import attention_only

CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")
"""The names under which forwards take their caches."""

_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies depend on the longest row, so that the rows of a batch interact."""


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """Properties of a model that passes over a few tokens cannot show. :meth:`Probe.plan` finds the others.

    Attributes:
        context_length: The most tokens of prompt and answer together; None if there is no limit.
        rope_switch_length: Above this length in tokens all rotary frequencies change (longrope); None: never.
        batchable_by_config: Whether the configuration lets rows of different lengths share passes.
        tolerates_gaps: Whether attention depends on position ids alone, so that masked gaps between cached
            positions change nothing.
        attention_only: Whether every layer caches keys and values per position and nothing else.
        pad_token_id: The id that models which compute position ids themselves do not count, or None.
        forward_arguments: The optional arguments of ``forward`` that decoding uses.
    """

    context_length: int | None
    rope_switch_length: int | None
    batchable_by_config: bool
    tolerates_gaps: bool
    attention_only: bool
    pad_token_id: int | None
    forward_arguments: frozenset[str]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Read the traits of a transformers model."""
        config: Any = model.config.get_text_config()
        length_dependent = any(rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE for rope in _ropes(config))
        # Llama 4 scales its attention by the slot, where padding counts, and not by the position.
        scales_by_slot = getattr(config, "attn_temperature_tuning", False)
        return cls(
            context_length=context_length(model.config),
            rope_switch_length=_rope_switch_length(config),
            batchable_by_config=not length_dependent and not scales_by_slot,
            tolerates_gaps=_tolerates_gaps(model, config),
            attention_only=not model._is_stateful and attention_only(model.config),
            pad_token_id=getattr(config, "pad_token_id", None),
            forward_arguments=_forward_arguments(model),
        )


def context_length(config: PreTrainedConfig) -> int | None:
    """The most tokens of prompt and answer together, or None if the configuration names no limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if length and length > 0 else None


def _tolerates_gaps(model: PreTrainedModel, config: Any) -> bool:
    """Whether attention depends on position ids alone.

    Windows, and biases by distance (ALiBi), count slots. The same is assumed of configurations that do not
    name their type of attention, and of code that is not transformers' own.
    """
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return (
        type(model).__module__.startswith("transformers.")
        and "position_ids" in inspect.signature(model.forward).parameters
        and all(kind in ("full_attention", "global") for kind in kinds)
        and (bool(kinds) or not any(windows))
        and not getattr(config, "alibi", False)
    )


def _rope_switch_length(config: Any) -> int | None:
    for rope in _ropes(config):
        if rope.get("rope_type") == "longrope":
            length = rope.get("original_max_position_embeddings")
            return length or getattr(config, "original_max_position_embeddings", None)
    return None


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The parameters of rotary embeddings: one set, or one per kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope, *(value for value in rope.values() if isinstance(value, dict))]


def _forward_arguments(model: PreTrainedModel) -> frozenset[str]:
    parameters = inspect.signature(model.forward).parameters
    kinds = {each.kind for each in parameters.values()}
    takes_any = Parameter.VAR_KEYWORD in kinds
    named = {name for name in (*CACHE_ARGUMENTS, "use_cache") if name in parameters}
    if kinds == {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:  # a wrapper that passes everything on
        named = {"past_key_values", "use_cache"}
    forwarded = {name for name in ("position_ids", "logits_to_keep") if takes_any or name in parameters}
    return frozenset(named | forwarded)

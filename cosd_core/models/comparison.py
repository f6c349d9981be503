"""Logits of passes with a cache, compared with those of passes without."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, isnan
from random import Random
from typing import Any

import torch
from transformers import PreTrainedModel

from cosd_core.errors import quoted
from cosd_core.models.cache import DecodingCache
from cosd_core.models.forward import Plan
from cosd_core.models.traits import ModelTraits

UNCACHED = Plan("uncached", position_ids=False)
"""The reference: what the model does by default."""

_ROUNDING = {torch.bfloat16: 0.15, torch.float16: 0.03, torch.int8: 0.05}
"""Differences between logits that are accepted at least, by the coarsest type; see :func:`difference`.

Layers of 8-bit integers may round their inputs, too, where a last bit can become a step.
"""

_ROUNDING_ON_CPU, _ROUNDING_ELSEWHERE = 2e-4, 2e-3
"""The same for other types: many models compute parts of float64 in float32, other devices in less."""

SURE = 10
"""A difference that is so many times smaller than what is accepted needs no comparison with other plans."""

BatchedStep = tuple[tuple[int, int], int]
"""The lengths of both texts after a pass, and how many ids of the suffix follow and are rolled back."""

AlternatingStep = tuple[int, int, int]
"""Which text a pass feeds, up to which length, and how many ids of the suffix follow and are rolled back."""


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """A model whose plan is looked for.

    Attributes:
        model: The model.
        traits: Facts in its configuration.
        name: Its name in messages.
        vocabulary: How many logits there are per position.
        special_ids: Ids that texts avoid.
        tolerance: The difference that is accepted, in standard deviations of the logits; None: measured.
    """

    model: PreTrainedModel
    traits: ModelTraits
    name: str
    vocabulary: int
    special_ids: Collection[int]
    tolerance: float | None = None

    @property
    def named(self) -> str:
        """Its name and class, in a message."""
        return f"model {quoted(self.name)} ({type(self.model).__name__})"

    def common_ids(self, count: int) -> list[int]:
        """So many ids, the same at every call; none has a special meaning, such as padding."""
        config: dict[str, Any] = vars(self.model.config.get_text_config())
        named = (
            value for name, value in config.items() if name.endswith("_token_id") and isinstance(value, int)
        )
        special = {*named, *self.special_ids}
        common = [each for each in range(self.vocabulary) if each not in special] or list(
            range(self.vocabulary)
        )
        return Random(0).choices(common, k=count)

    def longest_text(self, *, beside: int) -> float:
        """The most ids of a text that so many others may follow."""
        limits = (self.traits.context_length, self.traits.rope_switch_length)
        return min((limit - beside for limit in limits if limit), default=inf)

    def accepted_difference(self, logits: torch.Tensor) -> float:
        """The difference between logits, such as these, that the rounding of their number types explains."""
        types = {logits.dtype, *(parameter.dtype for parameter in self.model.parameters())}
        otherwise = _ROUNDING_ON_CPU if logits.device.type == "cpu" else _ROUNDING_ELSEWHERE
        return max(_ROUNDING.get(each, otherwise) for each in types)


class Comparison:
    """Two short texts, and the logits of a model after each of their ids without a cache.

    Attributes:
        texts: The ids of both texts.
        reference: The logits after every id of both, ``[ids, vocabulary]``.
        passes: How many passes were made. They run no forward hooks of the model.
    """

    def __init__(self, probed: ProbedModel, texts: tuple[list[int], list[int]], suffix: list[int]) -> None:
        """Run the passes without a cache: two, or one if the second text is the first one's beginning."""
        self._model = probed.model
        self._traits = probed.traits
        self._vocabulary = probed.vocabulary
        self._suffix = suffix
        self.passes = 0
        self.texts = texts
        first, second = texts
        logits = self.uncached(first)
        contained = second == first[: len(second)]  # the same logits, if the model is causal
        self.reference = logits, logits[: len(second)] if contained else self.uncached(second)

    def batched(self, plan: Plan, steps: Sequence[BatchedStep]) -> float:
        """The difference when both texts share passes and roll back different numbers of ids."""
        cache = plan.empty_cache(self._model, self._traits, 2)
        pairs = []
        cached = [0, 0]
        for both, suffix in steps:
            ends = [min(end, len(text)) for end, text in zip(both, self.texts, strict=True)]
            fed = max(end - old for end, old in zip(ends, cached, strict=True))
            if not fed:
                continue
            cache.rewind([max(end - fed, 0) for end in ends])
            rows = [text[:end] + self._suffix[:suffix] for text, end in zip(self.texts, ends, strict=True)]
            logits = self._pass(plan, cache, rows, fed + suffix)[:, :fed]
            for end, reference, found in zip(ends, self.reference, logits, strict=True):
                positions = min(fed, end)
                pairs.append((found[fed - positions :], reference[end - positions : end]))
            # The shorter text loses two more ids, which the next pass feeds again behind a gap.
            cached = [ends[0], max(ends[1] - 2, 0)] if suffix else ends
            cache.rewind(cached)
        return difference(pairs)

    def alternating(self, plan: Plan, steps: Sequence[AlternatingStep]) -> float:
        """The difference when passes over the two texts alternate, each with a cache of its own."""
        caches = [plan.empty_cache(self._model, self._traits) for _ in self.texts]
        pairs = []
        for which, upto, suffix in steps:
            text, reference, cache = self.texts[which], self.reference[which], caches[which]
            begin, end = cache.lengths[0], min(upto, len(text))
            if fed := end + suffix - begin:
                logits = self._pass(plan, cache, [text[:end] + self._suffix[:suffix]], fed)
                pairs.append((logits[0, : end - begin], reference[begin:end]))
                cache.rewind([end])
        return difference(pairs)

    def uncached(self, ids: list[int]) -> torch.Tensor:
        """The logits after every id, ``[ids, vocabulary]``."""
        cache = UNCACHED.empty_cache(self._model, self._traits)
        return self._pass(UNCACHED, cache, [ids], len(ids))[0]

    def _pass(self, plan: Plan, cache: DecodingCache, rows: Sequence[list[int]], fed: int) -> torch.Tensor:
        """The logits after each of the last ``fed`` ids of every row, ``[rows, fed, vocabulary]``."""
        self.passes += 1
        output = self._model.forward(**plan.pass_arguments(self._model, self._traits, cache, rows, fed))
        cache.finish_pass(output)
        logits: torch.Tensor = output.logits
        return logits[..., : self._vocabulary]


def difference(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The distance of logits from reference logits, relative to the standard deviation of the latter.

    All are ``[positions, vocabulary]``. Both are taken relative to the highest of their position, and cut
    where no probability is left.
    """
    sides = (torch.cat(side).double() for side in zip(*pairs, strict=True))
    found, expected = ((each - each.max(-1, keepdim=True).values).clamp(min=-50) for each in sides)
    variance = expected.std(-1, correction=0).square().mean()
    distance = float(((found - expected).square().mean() / variance.clamp(min=1e-12)).sqrt())
    return inf if isnan(distance) else distance

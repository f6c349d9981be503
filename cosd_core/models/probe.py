"""Finds the plan under which a model is run, by short passes with caches and without.

What a pass of a few tokens can show is measured, whatever the configuration says. What it cannot show,
windows and switches at some length, comes from the model's traits.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import inf, isnan
from random import Random
from typing import Any

import torch
from transformers import PreTrainedModel

from cosd_core.errors import GenerationError, UnsupportedModelError, quoted
from cosd_core.models.cache import DecodingCache
from cosd_core.models.forward import Plan, input_device
from cosd_core.models.traits import CACHE_ARGUMENTS, ModelTraits

_LONG, _SHORT, _SUFFIX = 20, 12, 3
"""Ids of the two texts, and of the suffix that is appended to see whether it changes earlier logits."""

_ROUNDING = {torch.bfloat16: 0.15, torch.float16: 0.03, torch.int8: 0.05}
"""Differences between logits that are accepted at least, by the coarsest type; see :func:`_difference`.

Layers of 8-bit integers may round their inputs, too, where a last bit can become a step.
"""

_ROUNDING_ON_CPU, _ROUNDING_ELSEWHERE = 2e-4, 2e-3
"""The same for other types: many models compute parts of float64 in float32, other devices in less."""

_NOISE_FACTOR = 4
"""Differences up to so many times the measured rounding count as rounding; see :meth:`_Probe._noise`.

On SmolLM2-135M, Qwen2.5-Coder-0.5B and Gemma 3 270M, in bfloat16 and float16, the differences of correct
plans were 0.4 to 1.1 times that noise.
"""

_EQUAL_PLANS = 5
"""The errors of two correct plans differ by no greater factor than this."""

_NOT_ROUNDING, _NEVER_ROUNDING = 10, 0.45
"""Rounding changes logits by no more than so many times what is accepted, and by no more than this."""

_UNCACHED = Plan("uncached", position_ids=False)  # the reference: what the model does by default


@torch.inference_mode()
def probe(
    model: PreTrainedModel,
    traits: ModelTraits,
    *,
    name: str,
    vocabulary: int,
    special_ids: Collection[int],
    tolerance: float | None = None,
) -> Plan:
    """Find the plan under which the cached passes of a model return what its uncached passes return.

    About ten passes over up to two dozen ids of the vocabulary, none of which has a special meaning; twice as
    many where numbers have few digits. They run no forward hooks of the model, and change no random state.

    Args:
        model: The model.
        traits: Facts in its configuration.
        name: Its name in messages.
        vocabulary: How many logits there are per position.
        special_ids: Ids to avoid.
        tolerance: The difference that is accepted, in standard deviations of the logits; None: measured.

    Raises:
        UnsupportedModelError: The model's passes fail, are not causal, or there is no such plan.
        GenerationError: There is not enough memory.
    """
    device = input_device(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        ids = _common_ids(model, vocabulary, special_ids)
        found = _Probe(model, traits, name, vocabulary, ids)
        return found.plan(found.tolerance if tolerance is None else tolerance)


class _Probe:
    """Two texts, and the logits of a model after each of their ids without a cache.

    Attributes:
        tolerance: The difference between logits that rounding may explain.
    """

    def __init__(
        self, model: PreTrainedModel, traits: ModelTraits, name: str, vocabulary: int, ids: list[int]
    ) -> None:
        self._model = model
        self._traits = traits
        self._named = f"model {quoted(name)} ({type(model).__name__})"
        self._vocabulary = vocabulary
        limits = [limit - _SUFFIX for limit in (traits.context_length, traits.rope_switch_length) if limit]
        length = max(1, min([_LONG, *limits]))
        self._texts = ids[:length], ids[_LONG:][: min(length, _SHORT)]
        self._suffix = ids[-_SUFFIX:]  # fed and rolled back
        try:
            self._reference = [self._uncached(text) for text in self._texts]
            longer = self._uncached([*self._texts[0], *self._suffix])
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(error) from error
        except Exception as error:
            raise UnsupportedModelError(
                f"{self._named} cannot read {length} tokens without a cache: {type(error).__name__}: "
                f"{quoted(error, 240)}"
            ) from error
        if longer.isnan().any():
            raise UnsupportedModelError(f"{self._named} gives NaN for logits")
        change = _difference([(longer[:length], self._reference[0])])
        self._accepted = _accepted_difference(model, longer)
        if change > min(_NOT_ROUNDING * self._accepted, _NEVER_ROUNDING):
            raise UnsupportedModelError(
                f"{self._named} is not causal: its logits change by {change:.0%} when more text follows"
            )
        noise = min(max(change, self._noise(longer.dtype)), _NEVER_ROUNDING / _NOISE_FACTOR)
        self.tolerance = max(_NOISE_FACTOR * noise, self._accepted)

    def plan(self, tolerance: float) -> Plan:
        """The first plan whose difference is within a tolerance, the faster ones before the slower."""
        wrong: list[str] = []
        for group in self._candidates():
            differences = self._measured(group)
            best = min(differences.values(), default=inf)
            if best <= tolerance:
                limit = min(tolerance, max(self._accepted / 10, _EQUAL_PLANS * best))
                return next(plan for plan, found in differences.items() if found <= limit)
            wrong += [f"{found:.1%} as {plan}" for plan, found in differences.items()]
        if wrong and self._traits.attention_only:
            raise UnsupportedModelError(
                f"{self._named} has a cache that is wrong: its logits with it differ from those without by "
                f"{', '.join(wrong)}, where {tolerance:.1%} might be rounding (cache_tolerance={tolerance:g})"
            )
        return _UNCACHED

    def _measured(self, group: Sequence[Plan]) -> dict[Plan, float]:
        """The difference of the logits under each plan from the reference; plans that fail are left out.

        The plans of a group use the cache alike, from fast to slow, and are compared with each other: a
        difference that a type of few digits would explain by rounding is an error if the next plan does
        not show it.
        """
        differences: dict[Plan, float] = {}
        for plan in group:
            try:
                differences[plan] = self._batched(plan) if plan.batched else self._alternating(plan)
            except torch.OutOfMemoryError as error:
                raise self._out_of_memory(error) from error
            except Exception:  # the model does not take this cache
                continue
            if differences[plan] <= self._accepted / 10:
                break
        return differences

    def _candidates(self) -> Iterator[list[Plan]]:
        """Groups of plans, each from fast to slow."""
        traits = self._traits
        if "past_key_values" in traits.forward_arguments and traits.attention_only:
            plan = Plan("attention")
            batched = replace(plan, batched=True)
            with_gaps = [replace(batched, gaps=True)] if traits.tolerates_gaps else []
            yield [*with_gaps, batched, plan] if traits.batchable_by_config else [plan]
            if "position_ids" in traits.forward_arguments:  # some models do not count from zero
                yield [replace(plan, position_ids=False)]
        for argument in CACHE_ARGUMENTS:
            if argument in traits.forward_arguments:
                for model_cache in (False, True):
                    plan = Plan("states", cache_argument=argument, model_cache=model_cache)
                    yield [plan, replace(plan, blockwise=False)]

    def _batched(self, plan: Plan) -> float:
        """The difference when both texts share passes and roll back different numbers of ids."""
        cache = plan.empty_cache(self._model, self._traits, 2)
        pairs = []
        cached = [0, 0]
        for both, suffix in (((9, 4), 3), ((14, 7), 0), ((19, 11), 0), ((20, 12), 0)):
            ends = [min(end, len(text)) for end, text in zip(both, self._texts, strict=True)]
            fed = max(end - old for end, old in zip(ends, cached, strict=True))
            if not fed:
                continue
            cache.rewind([max(end - fed, 0) for end in ends])
            rows = [text[:end] + self._suffix[:suffix] for text, end in zip(self._texts, ends, strict=True)]
            logits = self._pass(plan, cache, rows, fed + suffix)[:, :fed]
            for end, reference, found in zip(ends, self._reference, logits, strict=True):
                positions = min(fed, end)
                pairs.append((found[fed - positions :], reference[end - positions : end]))
            # The shorter text loses two more ids, which the next pass feeds again behind a gap.
            cached = [ends[0], max(ends[1] - 2, 0)] if suffix else ends
            cache.rewind(cached)
        return _difference(pairs)

    def _alternating(self, plan: Plan) -> float:
        """The difference when passes over the two texts alternate, each with a cache of its own."""
        caches = [plan.empty_cache(self._model, self._traits) for _ in self._texts]
        pairs = []
        for which, upto, suffix in _STEPS if plan.blockwise else _STEPS_ONE_BY_ONE:
            text, reference, cache = self._texts[which], self._reference[which], caches[which]
            begin, end = cache.lengths[0], min(upto, len(text))
            if fed := end + suffix - begin:
                logits = self._pass(plan, cache, [text[:end] + self._suffix[:suffix]], fed)
                pairs.append((logits[0, : end - begin], reference[begin:end]))
                cache.rewind([end])
        return _difference(pairs)

    def _noise(self, dtype: torch.dtype) -> float:
        """How far rounding moves the logits: their difference when the embeddings are rounded otherwise.

        How much of a last digit is left at the end depends on the model's weights, so it is measured. The
        change of the embeddings stands for the rounding of every layer behind them. 0 if the model looks its
        embeddings up in a way of its own.
        """
        generator = torch.Generator().manual_seed(0)

        def round_otherwise(_module: Any, _inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
            noise = torch.rand(embedded.shape, generator=generator).to(embedded.device) - 0.5
            return (embedded.double() * (1 + torch.finfo(dtype).eps * noise)).to(embedded.dtype)

        hook = self._model.get_input_embeddings().register_forward_hook(round_otherwise)
        try:
            return max(_difference([(self._uncached(self._texts[0]), self._reference[0])]) for _ in range(2))
        finally:
            hook.remove()

    def _uncached(self, ids: list[int]) -> torch.Tensor:
        """The logits after every id, ``[ids, vocabulary]``."""
        cache = _UNCACHED.empty_cache(self._model, self._traits)
        return self._pass(_UNCACHED, cache, [ids], len(ids))[0]

    def _pass(self, plan: Plan, cache: DecodingCache, rows: Sequence[list[int]], fed: int) -> torch.Tensor:
        """The logits after each of the last ``fed`` ids of every row, ``[rows, fed, vocabulary]``."""
        output = self._model.forward(**plan.pass_arguments(self._model, self._traits, cache, rows, fed))
        cache.finish_pass(output)
        logits: torch.Tensor = output.logits
        return logits[..., : self._vocabulary]

    def _out_of_memory(self, error: Exception) -> GenerationError:
        return GenerationError(f"{self._named} finds no memory for a few tokens: {quoted(error)}")


_STEPS = ((0, 1, 0), (0, 4, 3), (1, 5, 0), (0, 10, 0), (0, 11, 0), (1, 12, 0), (0, 20, 0))
"""Which text a pass feeds, up to which length, and how many ids of the suffix follow and are rolled back."""

_STEPS_ONE_BY_ONE = ((0, 1, 0), (0, 1, 1), (1, 5, 0), (0, 2, 0), (1, 6, 0), (0, 3, 0), (0, 4, 0))
"""The same for a model that takes several ids only without a cached state."""


def _difference(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The distance of logits from reference logits, relative to the standard deviation of the latter.

    All are ``[positions, vocabulary]``. Both are taken relative to the highest of their position, and cut
    where no probability is left.
    """
    sides = (torch.cat(side).double() for side in zip(*pairs, strict=True))
    found, expected = ((each - each.max(-1, keepdim=True).values).clamp(min=-50) for each in sides)
    variance = expected.std(-1, correction=0).square().mean()
    difference = float(((found - expected).square().mean() / variance.clamp(min=1e-12)).sqrt())
    return inf if isnan(difference) else difference


def _accepted_difference(model: PreTrainedModel, logits: torch.Tensor) -> float:
    """The difference that the rounding of a model's number types explains."""
    types = {logits.dtype, *(parameter.dtype for parameter in model.parameters())}
    otherwise = _ROUNDING_ON_CPU if logits.device.type == "cpu" else _ROUNDING_ELSEWHERE
    return max(_ROUNDING.get(each, otherwise) for each in types)


def _common_ids(model: PreTrainedModel, vocabulary: int, special_ids: Collection[int]) -> list[int]:
    """Ids for both texts and the suffix; none has a special meaning, such as padding."""
    config: dict[str, Any] = vars(model.config.get_text_config())
    named = (value for name, value in config.items() if name.endswith("_token_id") and isinstance(value, int))
    special = {*named, *special_ids}
    common = [each for each in range(vocabulary) if each not in special] or list(range(vocabulary))
    return Random(0).choices(common, k=_LONG + _SHORT + _SUFFIX)

"""Finds the plan under which a model is run, by short passes with caches and without.

What a pass of a few tokens can show is measured, whatever the configuration says. What it cannot show,
windows and switches at some length, comes from the model's traits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import torch

from cosd_core.errors import GenerationError, UnsupportedModelError, quoted
from cosd_core.models.comparison import SURE, UNCACHED, Comparison, ProbedModel, difference
from cosd_core.models.forward import Plan
from cosd_core.models.traits import CACHE_ARGUMENTS, ModelTraits

_LONG, _SHORT, _SUFFIX = 20, 12, 3
"""Ids of the two texts, and of the suffix that is appended to see whether it changes earlier logits."""

_NOISE_FACTOR = 4
"""Differences up to so many times the measured rounding count as rounding; see :meth:`Probe._noise`.

On SmolLM2-135M, Qwen2.5-Coder-0.5B and Gemma 3 270M, in bfloat16 and float16, the differences of correct
plans were 0.4 to 1.1 times that noise.
"""

_EQUAL_PLANS = 5
"""The errors of two correct plans differ by no greater factor than this."""

_NOT_ROUNDING, _NEVER_ROUNDING = 10, 0.45
"""Rounding changes logits by no more than so many times what is accepted, and by no more than this."""

_BATCHED = (((9, 4), 3), ((14, 7), 0), ((19, 11), 0), ((20, 12), 0))
"""The steps of two texts in a batch; see :meth:`Comparison.batched`."""

_ALTERNATING = ((0, 1, 0), (0, 4, 3), (1, 5, 0), (0, 10, 0), (0, 11, 0), (1, 12, 0), (0, 20, 0))
"""The steps of two texts in turn; see :meth:`Comparison.alternating`."""

_ONE_BY_ONE = ((0, 1, 0), (0, 1, 1), (1, 5, 0), (0, 2, 0), (1, 6, 0), (0, 3, 0), (0, 4, 0))
"""The same for a model that takes several ids only without a cached state."""


class Probe:
    """Compares the plans that a model may be run under; about ten passes over up to two dozen ids.

    Where numbers have few digits they are twice as many.

    Attributes:
        passes: How many they were.
        tolerance: The difference between logits that rounding may explain.
    """

    def __init__(self, probed: ProbedModel) -> None:
        """Run the passes without a cache.

        Raises:
            UnsupportedModelError: They fail, or are not causal.
            GenerationError: There is not enough memory.
        """
        self._probed = probed
        self._traits = probed.traits
        self._named = probed.named
        ids = probed.common_ids(_LONG + _SHORT + _SUFFIX)
        length = int(max(1, min(_LONG, probed.longest_text(beside=_SUFFIX))))
        texts, suffix = (ids[:length], ids[_LONG:][: min(length, _SHORT)]), ids[-_SUFFIX:]
        try:
            self._comparison = Comparison(probed, texts, suffix)
            longer = self._comparison.uncached([*texts[0], *suffix])
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(error) from error
        except Exception as error:
            raise UnsupportedModelError(
                f"{self._named} cannot read {length} tokens without a cache: {type(error).__name__}: "
                f"{quoted(error, 240)}"
            ) from error
        if longer.isnan().any():
            raise UnsupportedModelError(f"{self._named} gives NaN for logits")
        change = difference([(longer[:length], self._comparison.reference[0])])
        self._accepted = probed.accepted_difference(longer)
        if change > min(_NOT_ROUNDING * self._accepted, _NEVER_ROUNDING):
            raise UnsupportedModelError(
                f"{self._named} is not causal: its logits change by {change:.0%} when more text follows"
            )
        noise = min(max(change, self._noise(longer.dtype)), _NEVER_ROUNDING / _NOISE_FACTOR)
        measured = max(_NOISE_FACTOR * noise, self._accepted)
        self.tolerance = measured if probed.tolerance is None else probed.tolerance

    @property
    def passes(self) -> int:
        """How many passes were made."""
        return self._comparison.passes

    def plan(self) -> Plan:
        """The first plan whose difference is within the tolerance, the faster ones before the slower.

        Raises:
            UnsupportedModelError: There is none.
            GenerationError: There is not enough memory.
        """
        wrong: list[str] = []
        tolerance = self.tolerance
        for group in candidates(self._traits):
            differences = self._measured(group)
            best = min(differences.values(), default=inf)
            if best <= tolerance:
                limit = min(tolerance, max(self._accepted / SURE, _EQUAL_PLANS * best))
                return next(plan for plan, found in differences.items() if found <= limit)
            wrong += [f"{found:.1%} as {plan}" for plan, found in differences.items()]
        if wrong and self._traits.attention_only:
            raise UnsupportedModelError(
                f"{self._named} has a cache that is wrong: its logits with it differ from those without by "
                f"{', '.join(wrong)}, where {tolerance:.1%} might be rounding (cache_tolerance={tolerance:g})"
            )
        return UNCACHED

    def _measured(self, group: Sequence[Plan]) -> dict[Plan, float]:
        """The difference of the logits under each plan from the reference; plans that fail are left out.

        The plans of a group use the cache alike, from fast to slow, and are compared with each other: a
        difference that a type of few digits would explain by rounding is an error if the next plan does
        not show it.
        """
        differences: dict[Plan, float] = {}
        for plan in group:
            try:
                differences[plan] = self._difference(plan)
            except torch.OutOfMemoryError as error:
                raise self._out_of_memory(error) from error
            except Exception:  # the model does not take this cache
                continue
            if differences[plan] <= self._accepted / SURE:
                break
        return differences

    def _difference(self, plan: Plan) -> float:
        """The difference of the logits under a plan from the reference."""
        if plan.batched:
            return self._comparison.batched(plan, _BATCHED)
        return self._comparison.alternating(plan, _ALTERNATING if plan.blockwise else _ONE_BY_ONE)

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

        hook = self._probed.model.get_input_embeddings().register_forward_hook(round_otherwise)
        try:
            text, reference = self._comparison.texts[0], self._comparison.reference[0]
            return max(difference([(self._comparison.uncached(text), reference)]) for _ in range(2))
        finally:
            hook.remove()

    def _out_of_memory(self, error: Exception) -> GenerationError:
        return GenerationError(f"{self._named} finds no memory for a few tokens: {quoted(error)}")


def candidates(traits: ModelTraits) -> Iterator[list[Plan]]:
    """Groups of plans, each from fast to slow."""
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


def first_plan(traits: ModelTraits) -> Plan | None:
    """The fastest plan for a model that caches keys and values per position; None if it does otherwise."""
    plan = next(candidates(traits), [UNCACHED])[0]
    return plan if plan.strategy == "attention" else None

"""How one request picks its tokens: options, masks and random numbers by output position."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import torch
from transformers.generation import logits_process as hf

from cosd_core.options import GenerationOptions
from cosd_core.sampling.grammar_matcher import Matcher

_COLDEST = 1e-30
"""A lower temperature would be 0 in float32. At this one the best token has all of the probability."""


class Sampler:
    """How one request picks its tokens: its options, its masks and its random numbers.

    Every (output position, purpose) has one random number of its own, so that a text does not depend on
    how often a position is drafted again.
    """

    def __init__(
        self,
        options: GenerationOptions,
        eos_token_ids: frozenset[int],
        prompt_length: int,
        matcher: Matcher | None = None,
        admitted: torch.Tensor | None = None,
    ) -> None:
        """Begin after a prompt.

        Args:
            options: What the user asks for.
            eos_token_ids: The tokens that end a text.
            prompt_length: In tokens.
            matcher: The start of the text's grammar, if it has one.
            admitted: Which tokens may be picked at all, bool, ``[vocabulary]``; None: all.
        """
        self.options = options
        self.prompt_length = prompt_length
        self._eos_token_ids = eos_token_ids
        self._matcher = matcher
        self._admitted = admitted
        self._written: Callable[[int], int] | None = None
        self._seed = Random().getrandbits(64) if options.seed is None else options.seed
        self._streams: dict[str, tuple[Random, list[float]]] = {}

    def after(self, prompt_length: int) -> "Sampler":
        """The same text and random numbers as a model sees them whose prompt is of another length."""
        other = copy(self)
        other.prompt_length = prompt_length
        return other

    def for_reader(
        self,
        eos_token_ids: frozenset[int],
        prompt_length: int,
        matcher: Matcher | None,
        admitted: torch.Tensor,
        written: Callable[[int], int],
    ) -> "Sampler":
        """The same text and random numbers for a model that has other tokens.

        Args:
            eos_token_ids: Its own.
            prompt_length: As it sees the prompt.
            matcher: The grammar in its tokens.
            admitted: Which of its tokens may be picked.
            written: How many tokens of the draft lie before a place, given by a length in its own tokens.
        """
        other = Sampler(self.options, eos_token_ids, prompt_length, matcher, admitted)
        other._seed, other._written = self._seed, written
        return other

    def from_place(self, length: int) -> "Sampler":
        """The same for a reader's own words: as many of the draft's tokens lie before all of them."""
        other, written = copy(self), self._written
        other._written = written and (lambda _: written(length))
        return other

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is picked."""
        return self.options.temperature == 0

    @cached_property
    def way(self) -> tuple[Any, ...]:
        """What must be alike for two requests' tokens to be picked in one go."""
        options = self.options
        return options.temperature, options.top_k, options.top_p, options.min_p, bool(self.processors)

    @cached_property
    def processors(self) -> tuple[Any, ...]:
        """Processors that need the text so far, in the order in which ``generate`` applies them."""
        penalty = self.options.repetition_penalty
        own = (hf.RepetitionPenaltyLogitsProcessor(penalty),) if penalty != 1 else ()
        return (*own, *self.options.logits_processor)

    @cached_property
    def warpers(self) -> tuple[Any, ...]:
        """Processors that look at nothing but the scores, in the order in which ``generate`` applies them."""
        options = self.options
        if self.greedy:
            return ()
        warpers: list[Any] = []
        if options.temperature != 1:
            warpers.append(hf.TemperatureLogitsWarper(max(float(options.temperature), _COLDEST)))
        if options.top_k:
            warpers.append(hf.TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            warpers.append(hf.TopPLogitsWarper(float(options.top_p)))
        if options.min_p:
            warpers.append(hf.MinPLogitsWarper(float(options.min_p)))
        return tuple(warpers)

    def is_over(self, ids: Sequence[int], length: int) -> bool:
        """Whether the text in ``ids[:length]`` ends there: by an end token, or because its grammar does."""
        if length == self.prompt_length:
            return False
        if ids[length - 1] in self._eos_token_ids:
            return True
        return self._matcher is not None and self._matcher.is_whole(ids[self.prompt_length : length])

    def allowed(self, ids: Sequence[int], length: int, vocabulary: int) -> torch.Tensor | None:
        """The hard mask after ``ids[:length]``, bool, ``[vocabulary]``; None where every token may follow."""
        mask = self._admitted
        if self._matcher is not None and not self.is_over(ids, length):
            mask = self._matcher.allowed(ids[self.prompt_length : length])
            if self._admitted is not None and (both := mask & self._admitted).any():
                mask = both
        written = self._written(length) if self._written else length - self.prompt_length
        if written >= self.options.min_new_tokens:
            return mask
        longer = torch.ones(vocabulary, dtype=torch.bool) if mask is None else mask.clone()
        longer[[token for token in self._eos_token_ids if token < vocabulary]] = False
        return longer if longer.any() else mask  # a grammar that admits nothing longer has its way

    def uniform(self, position: int, purpose: str) -> float:
        """The random number in [0, 1) of an output position (0 is the first) and purpose."""
        if purpose not in self._streams:
            self._streams[purpose] = (Random(f"{self._seed}/{purpose}"), [])
        generator, numbers = self._streams[purpose]
        while len(numbers) <= position:
            numbers.append(generator.random())
        return numbers[position]


@dataclass(frozen=True, slots=True)
class SamplingPosition:
    """The place right after ``ids[:length]`` in one request's text: where a token is to be picked."""

    sampler: Sampler
    ids: Sequence[int]
    length: int

    def uniform(self, purpose: str) -> float:
        """The random number in [0, 1) that belongs to this place and purpose."""
        return self.sampler.uniform(self.length - self.sampler.prompt_length, purpose)

    def allowed(self, vocabulary: int) -> torch.Tensor | None:
        """Which tokens may stand here, bool, ``[vocabulary]``; None where all may."""
        return self.sampler.allowed(self.ids, self.length, vocabulary)

    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """The probabilities that tokens are picked from, ``[vocabulary]``; one-hot when greedy."""
        shaped = shape(logits[None], self.sampler)
        if self.sampler.greedy:
            return torch.nn.functional.one_hot(shaped.argmax(-1), shaped.shape[-1])[0].to(shaped.dtype)
        return torch.softmax(shaped, -1)[0]

    def draw(self, weights: torch.Tensor, purpose: str) -> int:
        """Draw from non-negative weights, ``[vocabulary]``."""
        return int(invert_cdf(weights[None], [self.uniform(purpose)])[0])


def shape(scores: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Apply temperature, top-k and the like to scores, ``[positions, vocabulary]``, of equal settings."""
    if sampler.warpers:
        scores = scores - scores.amax(-1, keepdim=True)  # so that a low temperature cannot make them overflow
    for warper in sampler.warpers:
        scores = warper(None, scores)
    return scores


def invert_cdf(weights: torch.Tensor, uniforms: Sequence[float]) -> torch.Tensor:
    """Per row the index whose cumulated weight first exceeds the uniform share of the total.

    ``[rows, vocabulary]`` -> ``[rows]``. An index of weight 0 is never returned.
    """
    device = weights.device
    if device.type == "mps":
        weights = weights.cpu()  # that device has no float64
    cumulated = weights.double().cumsum(-1)
    shares = torch.tensor(uniforms, dtype=torch.double, device=weights.device) * cumulated[:, -1]
    # Where the weights are NaN nothing exceeds the share; the caller finds that out by the confidence.
    index = torch.searchsorted(cumulated, shares[:, None], right=True)[:, 0]
    return index.clamp_(max=weights.shape[-1] - 1).to(device)

"""How one request picks its tokens: options, masks, and one random number for every output position."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import torch
from transformers.generation import logits_process as hf

from cosd_core.options import GenerationOptions
from cosd_core.sampling.grammar_matcher import GrammarMatcher

_LOWEST_TEMPERATURE = 1e-30
"""A lower temperature would be 0 in float32. At this one the best token has all of the probability."""


class RandomNumbers:
    """One random number in [0, 1) for each (output position, purpose), in whatever order they are used.

    So a text does not depend on how often a position is drafted again (``docs/architecture.md``).
    """

    def __init__(self, seed: int | None) -> None:
        """Start from a seed; None takes a random one."""
        self._seed = Random().getrandbits(64) if seed is None else seed
        self._streams: dict[str, tuple[Random, list[float]]] = {}

    def uniform(self, index: int, purpose: str) -> float:
        """The number of an output position (0 is the first) and a purpose."""
        if purpose not in self._streams:
            self._streams[purpose] = (Random(f"{self._seed}/{purpose}"), [])
        generator, numbers = self._streams[purpose]
        while len(numbers) <= index:
            numbers.append(generator.random())
        return numbers[index]


class Sampler:
    """How one request picks tokens of one vocabulary.

    Attributes:
        options: The request's options.
        random_numbers: Those of the request; models with other vocabularies share them.
    """

    def __init__(
        self,
        options: GenerationOptions,
        eos_token_ids: frozenset[int],
        random_numbers: RandomNumbers,
        *,
        matcher: GrammarMatcher | None = None,
        allowed: torch.Tensor | None = None,
    ) -> None:
        """Put the parts together; ``allowed``, bool, ``[vocabulary]``: which tokens may be picked at all."""
        self.options = options
        self.random_numbers = random_numbers
        self._eos_token_ids = eos_token_ids
        self._matcher = matcher
        self._allowed = allowed

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is picked."""
        return self.options.temperature == 0

    @property
    def has_grammar(self) -> bool:
        """Whether a grammar says which tokens may come next."""
        return self._matcher is not None

    @cached_property
    def group_key(self) -> tuple[Any, ...]:
        """Positions whose samplers have equal keys are sampled together."""
        options = self.options
        return options.temperature, options.top_k, options.top_p, options.min_p, bool(self.processors)

    @cached_property
    def processors(self) -> tuple[Any, ...]:
        """Processors that read the token ids so far, in the order in which ``generate`` applies them."""
        penalty = self.options.repetition_penalty
        own = (hf.RepetitionPenaltyLogitsProcessor(penalty),) if penalty != 1 else ()
        return (*own, *self.options.logits_processor)

    @cached_property
    def warpers(self) -> tuple[Any, ...]:
        """Processors that read the scores alone, in the order in which ``generate`` applies them."""
        options = self.options
        if self.greedy:
            return ()
        warpers: list[Any] = []
        if options.temperature != 1:
            temperature = max(float(options.temperature), _LOWEST_TEMPERATURE)
            warpers.append(hf.TemperatureLogitsWarper(temperature))
        if options.top_k:
            warpers.append(hf.TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            warpers.append(hf.TopPLogitsWarper(float(options.top_p)))
        if options.min_p:
            warpers.append(hf.MinPLogitsWarper(float(options.min_p)))
        return tuple(warpers)

    def warp(self, scores: torch.Tensor) -> torch.Tensor:
        """Apply temperature, top-k and the like to scores, ``[positions, vocabulary]``."""
        if self.warpers:
            scores = scores - scores.amax(-1, keepdim=True)  # a low temperature must not make them overflow
        for warper in self.warpers:
            scores = warper(None, scores)
        return scores

    def is_over(self, input_ids: Sequence[int], prompt_length: int, length: int) -> bool:
        """Whether the text in ``input_ids[prompt_length:length]`` ends there: by an end token or its grammar.

        Raises:
            GenerationError: The grammar does not allow the text, or became too complex.
        """
        if length == prompt_length:
            return False
        if input_ids[length - 1] in self._eos_token_ids:
            return True
        return self._matcher is not None and self._matcher.is_complete(input_ids[prompt_length:length])

    def possible(self, input_ids: Sequence[int], prompt_length: int, guess: list[int]) -> list[int]:
        """The first ids of a guess behind these ids that end no text and that the grammar admits."""
        end = next((at for at, token in enumerate(guess) if token in self._eos_token_ids), len(guess))
        if self._matcher is None or not end:
            return guess[:end]
        return guess[: self._matcher.count_admitted(input_ids[prompt_length:], guess[:end])]

    def mask(self, position: "SamplingPosition", vocabulary: int) -> torch.Tensor | None:
        """The tokens that may stand at a position, bool, ``[vocabulary]``; None where all may.

        Raises:
            GenerationError: The grammar does not allow the text before it, or became too complex.
        """
        mask = self._allowed
        if self._matcher is not None and not position.is_over:
            mask = self._matcher.allowed(position.input_ids[position.prompt_length : position.length])
            if self._allowed is not None and (both := mask & self._allowed).any():
                mask = both
        if position.num_written >= self.options.min_new_tokens:
            return mask
        longer = torch.ones(vocabulary, dtype=torch.bool) if mask is None else mask.clone()
        longer[[token for token in self._eos_token_ids if token < vocabulary]] = False
        return longer if longer.any() else mask  # the grammar wins over min_new_tokens


@dataclass(frozen=True, slots=True)
class SamplingPosition:
    """The position right after ``input_ids[:length]``, where a model picks a token of one request.

    Attributes:
        sampler: How the token is picked.
        input_ids: Prompt and text in the model's token ids.
        prompt_length: How many of them are the prompt.
        length: How many of them precede the position.
        num_written: How many tokens of the draft's the text before it has, which ``min_new_tokens`` counts.
    """

    sampler: Sampler
    input_ids: Sequence[int]
    prompt_length: int
    length: int
    num_written: int

    @property
    def is_over(self) -> bool:
        """Whether the text ends before this position."""
        return self.sampler.is_over(self.input_ids, self.prompt_length, self.length)

    def uniform(self, purpose: str) -> float:
        """The random number in [0, 1) of this position and a purpose."""
        return self.sampler.random_numbers.uniform(self.length - self.prompt_length, purpose)

    def mask(self, vocabulary: int) -> torch.Tensor | None:
        """The tokens that may stand here, bool, ``[vocabulary]``; None where all may."""
        return self.sampler.mask(self, vocabulary)

    def forced_token(self, vocabulary: int) -> int | None:
        """The only token that the grammar admits here; None if there are several, or no grammar.

        A user's logits processor gets every position, so nothing is forced beside one.
        """
        if not self.sampler.has_grammar or self.sampler.options.logits_processor:
            return None
        mask = self.mask(vocabulary)
        if mask is None or mask.count_nonzero() != 1:
            return None
        return int(mask.nonzero()[0])

    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """The probabilities that tokens are picked from, ``[vocabulary]``; one-hot when greedy."""
        scores = self.sampler.warp(logits[None])
        if self.sampler.greedy:
            return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1])[0].to(scores.dtype)
        return torch.softmax(scores, -1)[0]

    def draw(self, weights: torch.Tensor, purpose: str) -> int:
        """Draw from non-negative weights, ``[vocabulary]``."""
        return int(invert_cdf(weights[None], [self.uniform(purpose)])[0])


def invert_cdf(weights: torch.Tensor, uniforms: Sequence[float]) -> torch.Tensor:
    """Per row the index whose cumulated weight first exceeds the uniform share of the total.

    ``[rows, vocabulary]`` -> ``[rows]``. An index of weight 0 is never returned.
    """
    device = weights.device
    if device.type == "mps":
        weights = weights.cpu()  # that device has no float64
    cumulated = weights.double().cumsum(-1)
    shares = torch.tensor(uniforms, dtype=torch.double, device=weights.device) * cumulated[:, -1]
    # Where the weights are NaN nothing exceeds the share; the caller checks the confidence for NaN.
    index = torch.searchsorted(cumulated, shares[:, None], right=True)[:, 0]
    return index.clamp_(max=weights.shape[-1] - 1).to(device)

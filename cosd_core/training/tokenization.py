"""Examples in tokens, cut to the smallest context window."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cosd_core.errors import ContextOverflowError, InvalidPromptError, TrainingDataError, quoted
from cosd_core.generation.requests import read_prompts
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import align
from cosd_core.options import GenerationOptions
from cosd_core.training.examples import Example

_Prompts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """An example's number, its prompt in every model's tokens, its target tokens, and whether it was cut."""

    number: int
    prompts: _Prompts
    truth: tuple[int, ...]
    cut: bool = False

    def rows(self) -> list[list[int]]:
        """The input of every model; the last target is predicted but not read."""
        return [[*prompt, *self.truth[:-1]] for prompt in self.prompts]

    @property
    def length(self) -> int:
        """The length of the longest input."""
        return max(map(len, self.prompts)) + len(self.truth) - 1


class ExampleTokenizer:
    """Turns examples into tokens that fit every context window."""

    def __init__(self, models: Sequence[BaseLanguageModel], vocabulary: int, *, end_token: bool) -> None:
        """Prepare for models that share ``vocabulary`` token ids; ``end_token`` makes it the last target."""
        self._models = models
        self._vocabulary = vocabulary
        self._alignment = align(models)
        self._ends = frozenset().union(*(model.eos_token_ids for model in models))
        eos = models[0].tokenizer.eos_token_id
        end = min(self._ends, default=None) if eos is None else eos
        self._end = end if end_token else None
        self._window = min(model.context_length or sys.maxsize for model in models)

    def tokenize(self, number: int, example: Example) -> TokenizedExample:
        """The tokens of an example. If it is too long, its completion is cut first, then its prompt.

        Raises:
            TrainingDataError: It has no target, or a token id outside the vocabulary.
        """
        truth = self._truth(example)
        try:
            try:
                return TokenizedExample(number, self._prompts(example, len(truth)), truth)
            except ContextOverflowError:
                longest = max(map(len, self._prompts(example, 1, truncation=True)))
                truth = truth[: max(self._window // 2, self._window - longest)]
                return TokenizedExample(
                    number, self._prompts(example, len(truth), truncation=True), truth, cut=True
                )
        except InvalidPromptError as error:
            raise TrainingDataError(f"{example.place}: {error}") from error

    def _prompts(self, example: Example, room: int, *, truncation: bool = False) -> _Prompts:
        options = GenerationOptions(max_new_tokens=room, truncation=truncation)
        [request] = read_prompts([example.prompt], options, self._models, self._alignment)
        return request.prompts

    def _truth(self, example: Example) -> tuple[int, ...]:
        truth = example.completion
        if isinstance(truth, str):
            truth = self._encode(example, truth)
        if unknown := [token for token in truth if not 0 <= token < self._vocabulary]:
            raise TrainingDataError(
                f"the completion of {example.place} holds token id {quoted(unknown[0])}, outside the "
                f"vocabulary of {self._vocabulary} tokens"
            )
        if self._end is not None and not (truth and truth[-1] in self._ends):
            truth = (*truth, self._end)
        if not truth:
            raise TrainingDataError(
                f"the completion of {example.place} is empty: it should hold a token at least"
            )
        return truth

    def _encode(self, example: Example, completion: str) -> tuple[int, ...]:
        """The tokens of a completion after its prompt.

        A tokenizer may encode a text differently at its start and after a prompt, so prompt and completion
        are encoded together if that leaves the prompt's tokens unchanged.
        """
        tokenizer, prompt = self._models[0], example.prompt
        for name, text in (("prompt", prompt), ("completion", completion)):
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise TrainingDataError(
                    f"the {name} of {example.place} is no text: it holds half a surrogate pair"
                )
        if isinstance(prompt, str):
            before, both = tokenizer.encode(prompt), tokenizer.encode(prompt + completion)
            if both[: len(before)] == before:
                return tuple(both[len(before) :])
        return tuple(tokenizer.encode(completion, add_special_tokens=False)) if completion else ()

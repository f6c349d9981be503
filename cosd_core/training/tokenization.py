"""Lessons in tokens, cut to what every model takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosd_core.errors import ContextOverflowError, InvalidPromptError, TrainingDataError, quoted
from cosd_core.generation.requests import read_prompts
from cosd_core.models.language_model import LanguageModel
from cosd_core.models.vocabulary_alignment import align
from cosd_core.options import GenerationOptions
from cosd_core.training.examples import Example

_UNBOUNDED = 2**62


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """A lesson in tokens.

    Attributes:
        number: Which example it is.
        prompts: Its prompt as every model is shown it.
        truth: The tokens to be learned.
        cut: Whether something was cut off.
    """

    number: int
    prompts: tuple[tuple[int, ...], ...]
    truth: tuple[int, ...]
    cut: bool = False

    def rows(self) -> list[list[int]]:
        """What every model reads: after the last token there is nothing to learn."""
        return [[*prompt, *self.truth[:-1]] for prompt in self.prompts]

    @property
    def length(self) -> int:
        """The most that a model reads."""
        return max(map(len, self.prompts)) + len(self.truth) - 1


class ExampleTokenizer:
    """Turns lessons into tokens that fit every context window."""

    def __init__(self, models: Sequence[LanguageModel], vocabulary: int, *, end_token: bool) -> None:
        """Read for these models.

        Args:
            models: The draft, whose tokenizer reads text, then the assistants.
            vocabulary: The number of token ids that they share.
            end_token: Whether the token that ends texts is to be learned.
        """
        self._models = models
        self._vocabulary = vocabulary
        self._alignment = align(models)
        self._ends = frozenset().union(*(model.eos_token_ids for model in models))
        own = models[0].tokenizer.eos_token_id
        end = min(self._ends, default=None) if own is None else own
        self._end = end if end_token else None
        self._window = min(model.context_length or _UNBOUNDED for model in models)

    def read(self, number: int, lesson: Example) -> TokenizedExample:
        """The tokens of a lesson. One that is too long loses of its completion, then of its prompt.

        Raises:
            TrainingDataError: It holds no token to learn, or what no model knows.
        """
        truth = self._truth(lesson)
        try:
            try:
                return TokenizedExample(number, self._prompts(lesson, len(truth)), truth)
            except ContextOverflowError:
                longest = max(map(len, self._prompts(lesson, 1, truncation=True)))
                truth = truth[: max(self._window // 2, self._window - longest)]
                return TokenizedExample(
                    number, self._prompts(lesson, len(truth), truncation=True), truth, cut=True
                )
        except InvalidPromptError as error:
            raise TrainingDataError(f"{lesson.place}: {error}") from error

    def _prompts(
        self, lesson: Example, room: int, *, truncation: bool = False
    ) -> tuple[tuple[int, ...], ...]:
        options = GenerationOptions(max_new_tokens=room, truncation=truncation)
        [request] = read_prompts([lesson.prompt], options, self._models, self._alignment)
        return request.prompts

    def _truth(self, lesson: Example) -> tuple[int, ...]:
        truth = lesson.completion
        if isinstance(truth, str):
            truth = self._encode(lesson.prompt, truth, lesson.place)
        if unknown := [token for token in truth if not 0 <= token < self._vocabulary]:
            raise TrainingDataError(
                f"the completion of {lesson.place} holds token id {quoted(unknown[0])}, outside the "
                f"vocabulary of {self._vocabulary} tokens"
            )
        if self._end is not None and not (truth and truth[-1] in self._ends):
            truth = (*truth, self._end)
        if not truth:
            raise TrainingDataError(
                f"the completion of {lesson.place} is empty: it should hold a token at least"
            )
        return truth

    def _encode(self, prompt: Any, completion: str, place: str) -> tuple[int, ...]:
        """The tokens of a completion after its prompt.

        A tokenizer may begin a text of its own in another way than it goes on with one, so prompt and
        completion are read together where the prompt's tokens stay what they were.
        """
        tokenizer = self._models[0]
        for name, text in (("prompt", prompt), ("completion", completion)):
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise TrainingDataError(f"the {name} of {place} is no text: it holds half a surrogate pair")
        if isinstance(prompt, str):
            before, both = tokenizer.encode(prompt), tokenizer.encode(prompt + completion)
            if both[: len(before)] == before:
                return tuple(both[len(before) :])
        return tuple(tokenizer.encode(completion, add_special_tokens=False)) if completion else ()

"""How the rows of a decoder are made."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from cosd_core.generation.call import Groups
from cosd_core.generation.detokenizer import Detokenizer, TextBuffer
from cosd_core.generation.requests import Prompts, Request, read_prompts
from cosd_core.generation.row import Row
from cosd_core.generation.shared_row import SharedRow
from cosd_core.generation.text_state import RowConfig, TextState
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.options import GenerationOptions
from cosd_core.sampling.grammar_matcher import GrammarMatcher
from cosd_core.sampling.sampler import RandomNumbers, Sampler
from cosd_core.verifiers import Verifier


class MakeRow(Protocol):
    """Makes the rows of one call."""

    def __call__(self, index: int, request: Request, verifier: Verifier | None = None) -> Row:
        """A row for the request of this number in its call; ``verifier`` replaces that of the call."""


class RowFactory(ABC):
    """Makes rows for some models and their verifier."""

    def __init__(self, models: Sequence[BaseLanguageModel], alignment: Alignment, config: RowConfig) -> None:
        """Make rows for a draft and its assistants, whose vocabularies are aligned."""
        self._models = models
        self._alignment = alignment
        self._config = config
        # An end-of-sequence token of one model is one for all models that share its vocabulary.
        differences = (None, *alignment.differences)
        sharing = [model for model, difference in zip(models, differences, strict=True) if not difference]
        self._shared_eos_ids = frozenset().union(*(model.eos_token_ids for model in sharing))

    @abstractmethod
    def for_call(self, options: GenerationOptions) -> MakeRow:
        """A maker of the rows of one call; their shared parts are made once, above all the compiled grammar.

        Raises:
            InvalidOptionError: The models' tokenizers cannot follow the grammar.
        """

    def groups(self, prompts: Prompts, options: GenerationOptions, size: int) -> Groups:
        """The rows of a call in groups of at most ``size``; those of a group are made when its turn comes.

        Raises:
            CoSDError: As :func:`read_prompts` and :meth:`for_call`.
        """
        for model in self._models:
            model.check_options(options)
        numbered = list(enumerate(read_prompts(prompts, options, self._models, self._alignment)))
        if len(numbered) > size:
            # Neighbours of like length waste little on padding, and tend to end together.
            numbered.sort(key=lambda entry: len(entry[1].ids))
        make = self.for_call(options)
        starts = range(0, len(numbered), size)
        return ([make(*entry) for entry in numbered[start : start + size]] for start in starts)

    def _config_with(self, verifier: Verifier | None) -> RowConfig:
        return replace(self._config, verifier=verifier) if verifier else self._config

    def _matcher(
        self, options: GenerationOptions, model: int, eos_token_ids: frozenset[int]
    ) -> GrammarMatcher | None:
        """The call's grammar in one model's tokens, at the start of the text."""
        if options.grammar is None:
            return None
        vocabulary = self._alignment.vocabularies[model]
        return GrammarMatcher(options.grammar, self._models[model].tokenizer, vocabulary, eos_token_ids)


class SharedRowFactory(RowFactory):
    """Makes rows of models with one vocabulary."""

    def for_call(self, options: GenerationOptions) -> MakeRow:
        """Rows in which every model reads the same tokens behind its prompt."""
        named = options.eos_token_id
        eos_token_ids = self._shared_eos_ids if named is None else frozenset(named)
        start = self._matcher(options, 0, eos_token_ids)
        allowed = self._alignment.admitted

        def make(index: int, request: Request, verifier: Verifier | None = None) -> Row:
            sampler = Sampler(
                request.options,
                eos_token_ids,
                RandomNumbers(request.options.seed),
                matcher=start.copy() if start else None,
                allowed=allowed,
            )
            detokenizer = Detokenizer(self._models[0].tokenizer, request.ids, request.visible)
            buffer = TextBuffer(detokenizer, request.options.stop)
            return SharedRow(TextState(index, request, self._config_with(verifier), buffer, sampler))

        return make

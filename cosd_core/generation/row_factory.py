"""How the rows of a decoder begin: with one vocabulary for all models, or with one for each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from cosd_core.cross_tokenizer.retokenizer import TokenizerView
from cosd_core.cross_tokenizer.row import CrossTokenizerRow
from cosd_core.generation.detokenizer import ByteDetokenizer, Detokenizer, TextBuffer
from cosd_core.generation.requests import Request
from cosd_core.generation.row import Row, RowConfig
from cosd_core.models.language_model import LanguageModel
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.options import GenerationOptions
from cosd_core.sampling.grammar_matcher import Matcher
from cosd_core.sampling.sampler import Sampler
from cosd_core.verifiers import Verifier


class MakeRow(Protocol):
    """Makes the rows of one call."""

    def __call__(self, index: int, request: Request, verifier: Verifier | None = None) -> Row:
        """The row of a request, from its number in the call; who judges it, if not whoever judges all."""
        ...


class Rows(ABC):
    """Makes rows for some models and their verifier."""

    def __init__(
        self,
        models: Sequence[LanguageModel],
        alignment: Alignment,
        verifier: Verifier,
        *,
        draft_length: int,
        lazy: bool,
        calibration: Sequence[float],
    ) -> None:
        self._models = models
        self._alignment = alignment
        self._verifier = verifier
        self._draft_length = draft_length
        self._lazy = lazy
        self._calibration = tuple(calibration)

    @abstractmethod
    def begin(self, options: GenerationOptions) -> MakeRow:
        """A maker of rows for one call: what they have in common is made once, the grammar's start above all.

        Raises:
            InvalidOptionError: The models' tokenizers cannot follow the grammar.
        """

    def _manner(self, ends: frozenset[int], matcher: Matcher | None) -> RowConfig:
        return RowConfig(
            verifier=self._verifier,
            draft_length=self._draft_length,
            lazy=self._lazy,
            eos_token_ids=ends,
            matcher=matcher,
            models=tuple(model.name for model in self._models),
            calibration=self._calibration,
        )

    def _matcher(self, options: GenerationOptions, at: int, ends: frozenset[int]) -> Matcher | None:
        if options.grammar is None:
            return None
        return Matcher(options.grammar, self._models[at].tokenizer, self._alignment.vocabularies[at], ends)

    @cached_property
    def _shared_ends(self) -> frozenset[int]:
        """An end-of-sequence token of one model is one for all that share its vocabulary."""
        differences = (None, *self._alignment.differences)
        sharing = [model for model, other in zip(self._models, differences, strict=True) if not other]
        return frozenset().union(*(model.eos_token_ids for model in sharing))


class SharedRows(Rows):
    """Rows of models with one vocabulary."""

    def begin(self, options: GenerationOptions) -> MakeRow:
        """Every model is shown the same tokens after its prompt."""
        named = options.eos_token_id
        ends = self._shared_ends if named is None else frozenset(named)
        manner = self._manner(ends, self._matcher(options, 0, ends))
        admitted = self._alignment.admitted

        def make(index: int, request: Request, verifier: Verifier | None = None) -> Row:
            own = replace(manner, verifier=verifier) if verifier else manner
            matcher = manner.matcher.copy() if manner.matcher else None
            detokenizer = Detokenizer(self._models[0].tokenizer, request.ids, request.visible)
            buffer = TextBuffer(detokenizer, request.options.stop)
            sampler = Sampler(request.options, ends, len(request.ids), matcher, admitted)
            return Row(index, request, own, buffer, sampler)

        return make


class CrossTokenizerRows(Rows):
    """Rows of models of which one at least has tokens of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._own_dialects = self._dialects(None)  # a tokenizer that cannot be followed is refused here

    def begin(self, options: GenerationOptions) -> MakeRow:
        """Models that have not the draft's tokens are shown the text in their own."""
        named = options.eos_token_id
        dialects = self._own_dialects if named is None else self._dialects(named)
        matchers = [self._matcher(options, at, dialect.eos_token_ids) for at, dialect in enumerate(dialects)]
        manner = self._manner(dialects[0].eos_token_ids, matchers[0])

        def make(index: int, request: Request, verifier: Verifier | None = None) -> Row:
            own = replace(manner, verifier=verifier) if verifier else manner
            first, *others = [matcher.copy() if matcher else None for matcher in matchers]
            sampler = Sampler(request.options, manner.eos_token_ids, len(request.ids), first)
            return CrossTokenizerRow(
                index,
                request,
                own,
                TextBuffer(ByteDetokenizer(), request.options.stop),
                sampler,
                draft=dialects[0],
                assistants=list(zip(dialects[1:], others, strict=True)),
            )

        return make

    def _dialects(self, named: Sequence[int] | None) -> list[TokenizerView]:
        differences = (None, *self._alignment.differences)
        sizes = self._alignment.vocabularies
        return [
            TokenizerView.of(
                model, size, self._ends(model, named, own_words=bool(other)), finishes_words=bool(other)
            )
            for model, size, other in zip(self._models, sizes, differences, strict=True)
        ]

    def _ends(self, model: LanguageModel, named: Sequence[int] | None, *, own_words: bool) -> frozenset[int]:
        """The ids that end a model's texts. Those that a user names are the draft's; others go by name."""
        if not own_words:
            return self._shared_ends if named is None else frozenset(named)
        if not named:
            return model.eos_token_ids if named is None else frozenset()
        vocabulary = model.tokenizer.get_vocab()
        known = [token for token in named if token < self._alignment.vocabularies[0]]
        tokens = self._models[0].tokenizer.convert_ids_to_tokens(known)
        return frozenset(vocabulary[token] for token in tokens if token in vocabulary) or model.eos_token_ids

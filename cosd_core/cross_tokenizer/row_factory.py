"""How rows are made whose models have different tokens."""

from collections.abc import Sequence

from cosd_core.cross_tokenizer.retokenizer import RetokenizedText
from cosd_core.cross_tokenizer.row import CrossTokenizerRow
from cosd_core.cross_tokenizer.tokenizer_view import TokenizerView
from cosd_core.cross_tokenizer.verification import BlockVerification
from cosd_core.generation.detokenizer import ByteDetokenizer, TextBuffer
from cosd_core.generation.requests import Request
from cosd_core.generation.row import Row
from cosd_core.generation.row_factory import MakeRow, RowFactory
from cosd_core.generation.text_state import RowConfig, TextState
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.options import GenerationOptions
from cosd_core.sampling.sampler import RandomNumbers, Sampler
from cosd_core.verifiers import Verifier


class CrossTokenizerRowFactory(RowFactory):
    """Makes rows of models of which at least one has tokens of its own.

    Attributes:
        views: The tokens of every model, the draft's first.

    Raises:
        VocabularyMismatchError: A tokenizer cannot be followed.
    """

    def __init__(
        self,
        models: Sequence[BaseLanguageModel],
        alignment: Alignment,
        config: RowConfig,
        verification: type[BlockVerification] = BlockVerification,
    ) -> None:
        super().__init__(models, alignment, config)
        self._verification = verification
        self.views = self._tokenizer_views(None)

    def for_call(self, options: GenerationOptions) -> MakeRow:
        """Rows in which models without the draft's tokens read the text in their own."""
        named = options.eos_token_id
        draft, *assistants = views = self.views if named is None else self._tokenizer_views(named)
        starts = [self._matcher(options, at, view.eos_token_ids) for at, view in enumerate(views)]

        def make(index: int, request: Request, verifier: Verifier | None = None) -> Row:
            numbers = RandomNumbers(request.options.seed)
            names = request.names | {draft.vocabulary.name(token) for token in request.visible}
            first, *others = [start.copy() if start else None for start in starts]
            sampler = Sampler(request.options, draft.eos_token_ids, numbers, matcher=first)
            retokenized = [
                RetokenizedText(
                    prompt,
                    view,
                    names,
                    Sampler(
                        request.options,
                        view.eos_token_ids,
                        numbers,
                        matcher=matcher,
                        allowed=view.transferable(names),
                    ),
                )
                for prompt, view, matcher in zip(request.prompts[1:], assistants, others, strict=True)
            ]
            buffer = TextBuffer(ByteDetokenizer(), request.options.stop)
            text = TextState(index, request, self._config_with(verifier), buffer, sampler)
            return CrossTokenizerRow(text, draft, names, retokenized, self._verification)

        return make

    def _tokenizer_views(self, named: Sequence[int] | None) -> list[TokenizerView]:
        """The tokens of every model; ``named`` are the draft's end tokens if a call names some."""
        differences = (None, *self._alignment.differences)
        of_draft = self._shared_eos_ids if named is None else frozenset(named)
        return [
            TokenizerView.of(
                model,
                size,
                self._eos_token_ids(model, named) if other else of_draft,
                finishes_words=bool(other),
            )
            for model, size, other in zip(
                self._models, self._alignment.vocabularies, differences, strict=True
            )
        ]

    def _eos_token_ids(self, model: BaseLanguageModel, named: Sequence[int] | None) -> frozenset[int]:
        """The ids that end the texts of a model with other tokens: those of the same names, if any."""
        if not named:
            return model.eos_token_ids if named is None else frozenset()
        vocabulary = model.tokenizer.get_vocab()
        known = [token for token in named if token < self._alignment.vocabularies[0]]
        tokens = self._models[0].tokenizer.convert_ids_to_tokens(known)
        return frozenset(vocabulary[token] for token in tokens if token in vocabulary) or model.eos_token_ids

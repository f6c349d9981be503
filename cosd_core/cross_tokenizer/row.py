"""A row whose assistants have other tokens than its draft: all models share the text, as bytes.

The draft writes until a word is complete. Every assistant reads the word in its own tokens, and where one of
these begins, its prediction is compared with the draft's text.
"""

from collections.abc import Sequence
from functools import partial

from cosd_core.cross_tokenizer.block_words import BlockWords
from cosd_core.cross_tokenizer.draft_text import DraftText
from cosd_core.cross_tokenizer.retokenizer import RetokenizedText
from cosd_core.cross_tokenizer.tokenizer_view import TokenizerView
from cosd_core.cross_tokenizer.trace import BlockTrace
from cosd_core.cross_tokenizer.verification import (
    BlockVerification,
    ContinuationRequest,
    TextEdit,
    Verification,
)
from cosd_core.generation.row import PassRequest
from cosd_core.generation.text_state import TextState
from cosd_core.outputs import Step
from cosd_core.prediction import Prediction
from cosd_core.verifiers.base import can_replace
from cosd_core.verifiers.types import Replacement, Verdict


class CrossTokenizerRow:
    """A :class:`~cosd_core.generation.row.Row` of models with different tokens.

    A word is verified when it is complete; until then its tokens wait in the block. The outcome at a position
    depends on the text before it and on the draft's text up to the end of the word, never on how the text is
    divided into blocks.
    """

    def __init__(
        self,
        text: TextState,
        draft: TokenizerView,
        names: frozenset[str],
        retokenized: Sequence[RetokenizedText],
        verification: type[BlockVerification],
    ) -> None:
        """Begin after the prompt of an empty text, whose buffer takes bytes.

        Args:
            text: The text in the draft's tokens.
            draft: These tokens.
            names: The names of special tokens that are part of the text.
            retokenized: The text in each assistant's tokens.
            verification: Decides about the words of a block.
        """
        self._text = text
        self._make_verification = verification
        self._draft = draft
        self._names = names
        self._retokenized = retokenized
        self._draft_text = DraftText()
        self._words = BlockWords(self._draft_text, retokenized, partial(can_replace, text.config.verifier))
        self._begin_round()

    def _begin_round(self) -> None:
        self._num_carried = len(self._draft_text.tokens)  # tokens of the block from earlier rounds
        self._text.begin_block()
        self._num_previewed = 0  # tokens of complete words in which stop strings were looked for
        self._needs_predictions: bool | None = None  # computed once per block, until the draft adds a token
        self._words.window_end = None
        self._predictions: dict[tuple[int, int], Prediction] = {}  # by assistant and number of ids before
        self._verification = self._make_verification(
            self._draft_text,
            self._retokenized,
            self._predictions,
            verifier=self._text.config.verifier,
            draft=self._draft,
            names=self._names,
            num_written=self._num_written,
        )
        self._run: Verification | None = None
        self._continuation: ContinuationRequest | None = None
        self._edit: TextEdit | None = None

    def _num_written(self, offset: int) -> int:
        return len(self._text.tokens) + self._draft_text.count_before(offset)

    @property
    def input_ids(self) -> list[int]:
        """Prompt, text and block in the draft's tokens."""
        return self._text.input_ids

    @property
    def is_finished(self) -> bool:
        """Whether the text has ended."""
        return self._text.finish_reason is not None

    @property
    def can_draft(self) -> bool:
        """Whether the block is neither ended nor full."""
        return not (self._room <= 0 or self._text.has_drafted_stop or self._is_last_block)

    @property
    def _room(self) -> int:
        """How many more tokens the block may hold."""
        block = len(self._draft_text.tokens)
        return min(self._text.config.draft_length + self._num_carried, self._text.room) - block

    @property
    def num_replaceable(self) -> int:
        """How many complete words the assistants might change."""
        if self._text.config.lazy:
            return self._words.num_replaceable(final=self._is_last_block)
        return len(self._words.ends(final=self._is_last_block))

    @property
    def is_final(self) -> bool:
        """Whether the block holds complete words, and no assistant could replace any of them."""
        if not self._text.config.lazy or self.num_replaceable:
            return False
        return bool(self._words.ends(final=self._is_last_block))

    def draft_request(self, width: int) -> PassRequest:
        """Where the draft writes its next token, and up to ``width`` further ones if they are as guessed."""
        return self._text.draft_request(min(width, self._room - 1))

    def propose(self, prediction: Prediction, *, passes: int = 1) -> None:
        """Add the draft's next token to the block, which took so many passes."""
        self._text.draft(prediction.id, passes)
        self._draft_text.add(prediction, self._draft.comparable_bytes(prediction.id, self._names))
        self._needs_predictions = self._words.window_end = None
        complete = self._draft_text.count_before(max(self._words.ends(final=False), default=0))
        for token in self._draft_text.tokens[self._num_previewed : complete]:
            self._text.preview(self._draft.text_bytes(token.id, self._names))
        self._num_previewed = max(self._num_previewed, complete)

    def assistant_ids(self, assistant: int) -> list[int]:
        """Prompt and text in an assistant's tokens, up to the last word that was encoded."""
        return self._retokenized[assistant].visible_ids

    def verify(self) -> list[PassRequest]:
        """Decide which words stand, or request the predictions that this takes first."""
        if request := self._continuation:
            ids, position = list(request.position.input_ids), request.position
            return [
                PassRequest(ids, [position])
                if at == request.assistant
                else PassRequest(self.assistant_ids(at))
                for at in range(len(self._retokenized))
            ]
        if self._run is not None or not self._should_run_assistants():
            return []
        return [
            PassRequest(each.visible_ids, each.positions(self._num_written)) for each in self._retokenized
        ]

    def add_predictions(self, predictions: Sequence[Sequence[Prediction]]) -> None:
        """Take the assistants' predictions, and verify up to the next request or to the end."""
        self._text.counts.assistant_passes += 1
        if request := self._continuation:
            [prediction] = predictions[request.assistant]
            self._advance(prediction)
            return
        for at, (each, found) in enumerate(zip(self._retokenized, predictions, strict=True)):
            positions = each.positions(self._num_written)
            self._predictions |= {
                (at, position.length): prediction
                for position, prediction in zip(positions, found, strict=True)
            }
        self._run = self._verification.run(self._words.ends(final=self._is_last_block))
        self._advance(None)

    def commit(self) -> Step:
        """Append what stands to the text; the tokens of an incomplete word stay in the block."""
        text, draft_text, edit = self._text, self._draft_text, self._edit
        first, is_full = len(text.tokens), self._words.window_end == draft_text.decided
        ends = self._words.ends(final=self._is_last_block)
        until = draft_text.decided if is_full or not ends else ends[-1]
        kept = edit.kept if edit else draft_text.count_before(until)
        block = tuple(draft_text.tokens)
        settled = len(block) if edit else kept
        trace = BlockTrace(draft_text, self._verification.candidates, self._draft, self._names)
        opinions = tuple(map(trace.opinions, range(settled)))
        waiting = text.input_ids[len(text.input_ids) - len(block) + settled :]
        del text.input_ids[len(text.input_ids) - len(block) :]
        self._append_kept(trace, kept)
        if edit and not self.is_finished:
            self._append_edit(trace, edit)
        if is_full and not self.is_finished:
            text.finish("length")
        text.input_ids += waiting
        text.counts.rounds += 1
        text.counts.drafted += len(block) if self.is_finished else settled
        draft_text.cut(*([edit.seam, len(draft_text.text)] if edit else [until]))
        draft_text.settle(settled)
        for each in self._retokenized:
            each.keep_until(edit.seam if edit else until)
        self._begin_round()
        replacement = Replacement(edit.candidate.ids[0], edit.candidate.assistant) if edit else None
        return text.step(block[:settled], opinions, Verdict(kept, replacement), first=first)

    def discard_block(self) -> None:
        """Drop the block and its predictions."""
        dropped = self._draft_text.drop()
        self._text.counts.drafted += dropped
        del self._text.input_ids[len(self._text.input_ids) - dropped :]
        self._begin_round()

    @property
    def _is_last_block(self) -> bool:
        """Whether the draft has ended the text, or there is no room for more."""
        block = self._draft_text.tokens
        return len(block) >= self._text.room or (bool(block) and self._text.is_over())

    def _should_run_assistants(self) -> bool:
        if self._needs_predictions is None:
            any_replaceable = self.num_replaceable > 0
            self._needs_predictions = any_replaceable and self._words.encode(final=self._is_last_block)
        return self._needs_predictions

    def _advance(self, prediction: Prediction | None) -> None:
        """Run the verification up to its next request, or to its end."""
        assert self._run is not None, "the verification has begun"
        try:
            self._continuation = next(self._run) if prediction is None else self._run.send(prediction)
        except StopIteration as end:
            self._continuation, self._edit = None, end.value
        if self._edit:
            # The grammar may refuse the replacement: raise before anything is committed.
            self._text.is_over(*self._edit.ids, without=len(self._draft_text.tokens) - self._edit.kept)

    def _append_kept(self, trace: BlockTrace, kept: int) -> None:
        """Append the block's first tokens, up to one that ends the text."""
        for at in range(kept):
            self._text.append(trace.kept(at, self._text.buffer))
            self._text.counts.kept += 1
            self._text.counts.assistant_skipped += not self._predictions
            if self.is_finished:
                return

    def _append_edit(self, trace: BlockTrace, edit: TextEdit) -> None:
        """Append the tokens of an edit, up to one that ends the text."""
        self._text.counts.replaced += 1
        for token in trace.edited(edit, self._text.buffer):
            self._text.append(token)
            if self.is_finished:
                return
        if edit.ends:
            self._text.finish("stop")

"""A row whose assistants have other tokens than its draft: what they agree on is text.

The text's bytes are the truth. The draft writes on until a word is whole, every assistant reads it in its own
tokens, and where one of these begins, its opinion is compared with what the draft wrote from there.
"""

from collections.abc import Generator, Sequence
from math import prod

from cosd_core.cross_tokenizer.draft_text import DraftText
from cosd_core.cross_tokenizer.retokenizer import RetokenizedText, TokenizerView
from cosd_core.cross_tokenizer.verification import (
    BlockVerification,
    ContinuationRequest,
    ReplacementCandidate,
    TextEdit,
)
from cosd_core.cross_tokenizer.word_boundaries import END
from cosd_core.generation.detokenizer import TextBuffer
from cosd_core.generation.requests import Request
from cosd_core.generation.row import Row, RowConfig
from cosd_core.outputs import Step, TracedToken
from cosd_core.prediction import Prediction
from cosd_core.sampling.grammar_matcher import Matcher
from cosd_core.sampling.sampler import Sampler, SamplingPosition
from cosd_core.verifiers.types import Replacement, Verdict


class CrossTokenizerRow(Row):
    """The state of one request where tokenizers differ.

    A word is judged when it is whole, so its draft tokens wait in the block until then. What becomes of a
    place depends on the text before it and on what the draft writes from there to the end of the word, never
    on how the text was divided into blocks.
    """

    _asking: bool | None
    _limit: int | None
    _heard: dict[tuple[int, int], Prediction]
    _inquiry: BlockVerification
    _walk: Generator[ContinuationRequest, Prediction, TextEdit | None] | None
    _change: TextEdit | None

    def __init__(
        self,
        index: int,
        request: Request,
        manner: RowConfig,
        buffer: TextBuffer,
        sampler: Sampler,
        *,
        draft: TokenizerView,
        assistants: Sequence[tuple[TokenizerView, Matcher | None]],
    ) -> None:
        """Begin after a prompt.

        Args:
            index: As for any row, like the next four.
            request: The prompts in every model's own tokens.
            manner: The draft's end tokens and grammar.
            buffer: Takes bytes.
            sampler: The draft's.
            draft: Its tokens.
            assistants: Theirs, and the text's grammar in them.
        """
        super().__init__(index, request, manner, buffer, sampler)
        self._draft = draft
        self._names = request.names | {draft.vocabulary.name(token) for token in request.visible}
        self._readings = [
            RetokenizedText(
                prompt,
                dialect,
                names=self._names,
                sampler=sampler,
                matcher=matcher,
                written=lambda offset: len(self._tokens) + self._spans.before(offset),
            )
            for prompt, (dialect, matcher) in zip(request.prompts[1:], assistants, strict=True)
        ]
        self._spans = DraftText()
        self.block = self._spans.tokens
        self._carried = 0  # tokens of the block that come from earlier rounds
        self._begin_round()

    # What the loop asks of it

    @property
    def writing(self) -> bool:
        """Whether the draft may add to the block."""
        return len(self.block) - self._carried < self._manner.draft_length and not self._is_final

    @property
    def doubts(self) -> int:
        """How many whole words the assistants might change."""
        ends = self._word_ends()
        begins = [self._spans.judged, *ends]
        return sum(map(self._is_doubtful, begins, ends)) if self._manner.lazy else len(ends)

    @property
    def asks(self) -> bool:
        """Whether the assistants must be asked before whole words can be judged, and can be."""
        if self._asking is None:
            self._asking = self.doubts > 0 and self._read()
        return self._asking

    def seen_by(self, assistant: int) -> list[int]:
        """Prompt and text as an assistant reads them, up to the last word that it was asked about."""
        return self._readings[assistant].seen

    def spots(self, assistant: int | None = None) -> list[SamplingPosition]:
        """The places of an assistant, and the one after what it has read."""
        assert assistant is not None, "the draft is asked token by token"
        return self._readings[assistant].spots()

    def propose(self, prediction: Prediction) -> None:
        """Take the draft's next token."""
        self._draft_passes += 1
        self.ids.append(prediction.id)
        self._spans.add(prediction, self._draft.spell(prediction.id, self._names))
        self._asking = self._limit = None

    def hear(self, opinions: Sequence[Sequence[Prediction]]) -> None:
        """Take every assistant's opinions on the places of its :meth:`spots`."""
        self._assistant_passes += 1
        for at, predictions in enumerate(opinions):
            spots = self._readings[at].spots()
            self._heard |= {(at, spot.length): said for spot, said in zip(spots, predictions, strict=True)}

    def judge(self) -> None:
        """Settle what stands, or find out what must be asked first."""
        if self._heard:
            self._walk = self._inquiry.walk(self._word_ends())
            self._walk_on(None)

    def answer(self, prediction: Prediction) -> None:
        """Take what an assistant said to :attr:`question`."""
        self._assistant_passes += 1
        self._walk_on(prediction)

    def commit(self) -> Step:
        """Take what stands into the text; the tokens of a word that is not whole yet stay in the block."""
        change, ends, before = self._change, self._word_ends(), len(self._tokens)
        is_full = self._is_full
        until = self._spans.judged if is_full or not ends else ends[-1]
        kept = change.kept if change else self._spans.before(until)
        settled = len(self.block) if change else kept
        proposal, opinions = tuple(self.block[:settled]), tuple(map(self._opinions_on, range(settled)))
        waiting = self.ids[len(self.ids) - len(self.block) + settled :]
        del self.ids[len(self.ids) - len(self.block) :]
        self._keep(kept)
        if change and not self.finished:
            self._rewrite(change)
        if is_full and not self.finished:
            self._finish("length")
        self.ids += waiting
        self._rounds += 1
        self._drafted += len(self.block) if self.finished else settled
        self._spans.cut(*([change.seam, len(self._spans.text)] if change else [until]))
        self._spans.settle(settled)
        for reading in self._readings:
            reading.keep(change.seam if change else until)
        self._begin_round()
        replacement = Replacement(change.claim.said[0], change.claim.assistant) if change else None
        return Step(
            index=self._index,
            proposal=proposal,
            opinions=opinions,
            verdict=Verdict(kept, replacement),
            tokens=tuple(self._tokens[before:]),
            text=self._buffer.release(final=self.finished is not None),
            generation=self._generation() if self.finished else None,
        )

    def abandon(self) -> None:
        """Throw away the block under way and what was thought of it; the next round proposes it again."""
        dropped = self._spans.drop()
        self._drafted += dropped
        del self.ids[len(self.ids) - dropped :]
        self._begin_round()

    # How it does it

    def _begin_round(self) -> None:
        self._carried = len(self.block)
        self._asking = None  # known until the draft writes on
        self._limit = None  # where a word begins that does not fit a window, and must be judged
        self._heard = {}  # by assistant and the length it had read
        self._inquiry = BlockVerification(
            self._spans,
            self._readings,
            self._heard,
            verifier=self._manner.verifier,
            draft=self._draft,
            names=self._names,
        )
        self._walk = self._change = self.question = None

    @property
    def _is_final(self) -> bool:
        """Whether the draft cannot write on: it has ended the text, or there is no room."""
        if self.block and self._sampler.is_over(self.ids, len(self.ids)):
            return True
        return len(self.block) >= self._request.options.max_new_tokens - len(self._tokens)

    def _read(self) -> bool:
        """Let the assistants read the whole words that all windows take, and say whether there are any.

        What comes after stands as long as nobody could change it, and no further, so that a text ends at the
        same word however it is divided into blocks.
        """
        ends = self._word_ends()
        begins = [self._spans.judged, *ends]
        for fitting in range(len(ends), -1, -1):
            for reading in self._readings:
                reading.read(self._spans.text, [*self._spans.cuts, *ends[:fitting]], self._spans.judged)
            if not any(reading.full for reading in self._readings):
                break
        beyond = range(fitting, len(ends))
        self._limit = next((begins[at] for at in beyond if self._is_doubtful(begins[at], ends[at])), None)
        return fitting > 0

    @property
    def _is_full(self) -> bool:
        return self._limit == self._spans.judged

    def _word_ends(self) -> list[int]:
        ends = self._spans.word_ends(final=self._is_final)
        return ends if self._limit is None else [end for end in ends if end <= self._limit]

    def _is_doubtful(self, begin: int, end: int) -> bool:
        """Whether an assistant could change a word: whatever it might claim of it and what follows."""
        own = [token.confidence for token in self._spans.reaching(begin, end + 1)]
        runs = (prod(own[first:last]) for first in range(len(own)) for last in range(first + 1, len(own) + 1))
        return any(map(self._manner.verifier.can_replace, runs))

    def _walk_on(self, said: Prediction | None) -> None:
        assert self._walk is not None, "judging has begun"
        try:
            self.question = self._walk.send(said)  # type: ignore[arg-type]  # None begins
        except StopIteration as end:
            self.question, self._change = None, end.value
        if self._change:
            # A grammar may give up at a token it has not read yet: here, where nothing is taken yet.
            text = [*self.ids[: len(self.ids) - len(self.block) + self._change.kept], *self._change.ids]
            self._sampler.is_over(text, len(text))

    def _keep(self, kept: int) -> None:
        """Append the block's first tokens, up to whatever ends the text."""
        for at in range(kept):
            self._append(self._trace(at))
            self._kept += 1
            self._skipped += not self._heard
            if self.finished:
                return

    def _rewrite(self, change: TextEdit) -> None:
        """Append what an assistant says, and before it what its first token has of the draft's words."""
        claim, text = change.claim, self._spans.text
        replaced = self.block[self._spans.before(claim.place.start)]
        other: str | None = self._show(self._lost(claim))
        del text[self._spans.begin(change.kept) :]
        self._replaced += 1
        for token_id, piece in zip(change.ids, change.pieces, strict=True):
            text += piece
            by_draft = len(text) <= claim.place.start and token_id != self._draft.end
            self._append(
                TracedToken(
                    id=token_id,
                    text=self._buffer.push(piece),
                    source="draft" if by_draft else "assistant",
                    assistant_index=None if by_draft else claim.assistant,
                    p=replaced.confidence if by_draft else claim.p,
                    q=None if by_draft else claim.q,
                    draft_id=token_id if by_draft else replaced.id,
                    assistant_id=None if by_draft else claim.said[0],
                    other_text=None if by_draft else other,
                )
            )
            if self.finished:
                return
            other = other if by_draft else ""  # told once
        if change.ends:
            self._finish("stop")

    def _lost(self, claim: ReplacementCandidate) -> bytes:
        """What of the draft's text a claim takes the place of, in whole characters."""
        text, start, end = self._spans.text, claim.place.start, claim.place.end
        if not self._spans.token_at(start, end):
            end = start + len(claim.text)
            while end < len(text) and text[end] & 0xC0 == 0x80:
                end += 1
        return bytes(text[start:end])

    def _trace(self, at: int) -> TracedToken:
        """Put a token of the block into the text and write down what was thought of it."""
        token = self.block[at]
        # Of several the most confident of those that disagree.
        claim = max(self._claims_in(at), key=lambda each: (not each.agrees, each.q), default=None)
        disagrees = claim is not None and not claim.agrees
        return TracedToken(
            id=token.id,
            text=self._buffer.push(self._draft.write(token.id, self._names)),
            source="draft",
            assistant_index=claim.assistant if claim else None,
            p=claim.p if claim and disagrees else token.confidence,
            q=claim.q if claim else None,
            draft_id=token.id,
            assistant_id=claim.said[0] if claim else None,
            other_text=self._show(claim.text) if claim and disagrees else None,
        )

    def _show(self, text: bytes) -> str:
        """Bytes as traces show them; the end of a text by the name of its token, or as its letters."""
        shown = text.removesuffix(END).decode("utf-8", "replace")
        if not text.endswith(END) or self._draft.end is None:
            return shown
        known = self._draft.vocabulary
        return shown + (
            known.name(self._draft.end) or known.bytes_of(self._draft.end).decode("utf-8", "replace")
        )

    def _claims_in(self, at: int) -> list[ReplacementCandidate]:
        """The claims on places within a token of the block."""
        extent = range(self._spans.begin(at), self._spans.ends[at])
        return [claim for claim in self._inquiry.claims if claim.place.start in extent]

    def _opinions_on(self, at: int) -> tuple[Prediction, ...] | None:
        claims = self._claims_in(at)
        return tuple(Prediction(claim.said[0], claim.q) for claim in claims) if claims else None

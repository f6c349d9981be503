"""One prompt on its way to a text: what it has, what is proposed, what was thought of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from cosd_core.cross_tokenizer.verification import ContinuationRequest
from cosd_core.generation.detokenizer import TextBuffer
from cosd_core.generation.requests import Request
from cosd_core.outputs import FinishReason, Generation, Stats, Step, TracedToken
from cosd_core.prediction import Opinions, Prediction
from cosd_core.sampling.grammar_matcher import Matcher
from cosd_core.sampling.sampler import Sampler, SamplingPosition
from cosd_core.verifiers.base import Verifier, verify_block
from cosd_core.verifiers.types import Position, Replacement, Verdict


@dataclass(frozen=True, slots=True)
class RowConfig:
    """What all rows of a call have in common.

    Attributes:
        verifier: Who judges.
        draft_length: Most tokens per block.
        lazy: Whether the assistants are asked only where the verifier could replace a token.
        eos_token_ids: The tokens that end a text.
        matcher: The start of the texts' grammar, if they have one.
        models: What the models are called, the draft first.
        calibration: The temperature of every model's confidences.
    """

    verifier: Verifier
    draft_length: int
    lazy: bool
    eos_token_ids: frozenset[int]
    matcher: Matcher | None
    models: tuple[str, ...]
    calibration: tuple[float, ...]


class Row:
    """The state of one request in a batch.

    Attributes:
        ids: Prompt, text and the block under way.
        block: What the draft proposed and nobody has judged.
        finished: Why the text ended, or None while it goes on.
        question: What must be known before the row is judged. Where all models share one vocabulary that is
            nothing.
    """

    def __init__(
        self, index: int, request: Request, manner: RowConfig, buffer: TextBuffer, sampler: Sampler
    ) -> None:
        self.ids = list(request.ids)
        self.block: list[Prediction] = []
        self.finished: FinishReason | None = None
        self.question: ContinuationRequest | None = None
        self._index = index
        self._request = request
        self._manner = manner
        self._buffer = buffer
        self._sampler = sampler
        self._opinions: list[Opinions | None] = []
        self._foreseen: Opinions | None = None
        self._settled: Verdict | None = None
        self._tokens: list[TracedToken] = []
        self._started = time.perf_counter()
        self._rounds = self._drafted = self._draft_passes = self._assistant_passes = 0
        self._kept = self._replaced = self._skipped = 0

    # What the loop asks of it

    @property
    def writing(self) -> bool:
        """Whether the draft may add to the block."""
        if self._settled or (self.block and self._sampler.is_over(self.ids, len(self.ids))):
            return False
        room = self._request.options.max_new_tokens - len(self._tokens)
        return len(self.block) < min(self._manner.draft_length, room)

    @property
    def doubts(self) -> int:
        """How many proposed tokens the assistants might replace and have not been asked about."""
        return sum(
            opinions is None and self._manner.verifier.can_replace(prediction.confidence)
            for prediction, opinions in zip(self.block, self._opinions, strict=True)
        )

    @property
    def asks(self) -> bool:
        """Whether the assistants must be asked before the block can be judged."""
        return self.doubts > 0 if self._manner.lazy else True

    def spot(self) -> SamplingPosition:
        """The place of the next proposal."""
        return SamplingPosition(self._sampler, self.ids, len(self.ids))

    def seen_by(self, assistant: int) -> list[int]:
        """Prompt, text and block as an assistant sees them: a chat's prompt is in every model's own words."""
        prompt = self._request.prompts[1 + assistant]
        return self.ids if prompt == self._request.ids else [*prompt, *self.ids[len(self._request.ids) :]]

    def spots(self, assistant: int | None = None) -> list[SamplingPosition]:
        """The places of the block, and the one after it, as the draft sees them, or an assistant."""
        ids, sampler = self.ids, self._sampler
        if assistant is not None and (ids := self.seen_by(assistant)) is not self.ids:
            sampler = sampler.after(len(self._request.prompts[1 + assistant]))
        end = len(ids)
        return [SamplingPosition(sampler, ids, length) for length in range(end - len(self.block), end + 1)]

    def propose(self, prediction: Prediction) -> None:
        """Take the draft's next token.

        What the assistants would write at the first place of a block is often known: they looked one
        place ahead when they were asked about the block before. If that replaces the token, the block is
        settled without asking again.
        """
        self._draft_passes += 1
        self.ids.append(prediction.id)
        self.block.append(prediction)
        self._opinions.append(self._foreseen)
        if self._foreseen is not None:
            self._foreseen = None
            verdict = self._verdict()
            self._settled = verdict if verdict.replacement else None

    def hear(self, opinions: Sequence[Sequence[Prediction]]) -> None:
        """Take every assistant's opinions on the places of its :meth:`spots`."""
        self._assistant_passes += 1
        *known, foreseen = zip(*opinions, strict=True)
        self._opinions = list(known)
        self._foreseen = foreseen if self._manner.lazy else None

    def answer(self, prediction: Prediction) -> None:
        """Take what an assistant said to :attr:`question`."""
        raise NotImplementedError("a row with one vocabulary asks nothing")

    def judge(self) -> None:
        """Settle what of the block stands."""
        self._settled = self._settled or self._verdict()

    def commit(self) -> Step:
        """Take what stands of the judged block into the text, and begin a new block."""
        assert self._settled is not None
        proposal, opinions, verdict = tuple(self.block), tuple(self._opinions), self._settled
        before = len(self._tokens)
        del self.ids[len(self.ids) - len(proposal) :]
        self._take(verdict)
        self._rounds += 1
        self._drafted += len(proposal)
        if verdict.replacement:
            self._foreseen = None
        self.block, self._opinions, self._settled = [], [], None
        return Step(
            index=self._index,
            proposal=proposal,
            opinions=opinions,
            verdict=verdict,
            tokens=tuple(self._tokens[before:]),
            text=self._buffer.release(final=self.finished is not None),
            generation=self._generation() if self.finished else None,
        )

    def abandon(self) -> None:
        """Throw away the block under way and what was thought of it; the next round proposes it again."""
        self._drafted += len(self.block)
        del self.ids[len(self.ids) - len(self.block) :]
        self.block, self._opinions, self._foreseen, self._settled = [], [], None, None

    # How it does it

    def _verdict(self) -> Verdict:
        verifier = self._manner.verifier
        spots = self.spots() if verifier.needs_logits else repeat(None)
        verdict = verify_block(verifier, list(map(Position, self.block, self._opinions, spots)))
        if verdict.replacement:
            # A grammar may give up at a token it has not read yet: here, where nothing is taken yet.
            text = [*self.ids[: len(self.ids) - len(self.block) + verdict.kept], verdict.replacement.id]
            self._sampler.is_over(text, len(text))
        return verdict

    def _take(self, verdict: Verdict) -> None:
        """Append the tokens that stand, up to whatever ends the text."""
        for place in range(verdict.kept + (verdict.replacement is not None)):
            replacement = verdict.replacement if place == verdict.kept else None
            self._append(_trace(self.block[place], self._opinions[place], replacement, self._buffer))
            self._skipped += self._opinions[place] is None
            self._kept += replacement is None
            self._replaced += replacement is not None
            if self.finished:
                return

    def _append(self, token: TracedToken) -> None:
        """Put a token whose text the buffer has into the text, and finish if it ends it."""
        self._tokens.append(token)
        self.ids.append(token.id)
        if self._buffer.stop_sequence is not None or self._sampler.is_over(self.ids, len(self.ids)):
            self._finish("stop")
        elif len(self._tokens) == self._request.options.max_new_tokens:
            self._finish("length")

    def _finish(self, reason: FinishReason) -> None:
        """End the text. What was held back for want of a whole character is the last token's."""
        self.finished = reason
        if rest := self._buffer.close():
            self._tokens[-1] = replace(self._tokens[-1], text=self._tokens[-1].text + rest)
        if self._buffer.stop_sequence is not None:  # which what was held back may have completed
            self.finished = "stop"

    def _generation(self) -> Generation:
        assert self.finished is not None
        return Generation(
            text=self._buffer.text,
            token_ids=tuple(token.id for token in self._tokens),
            tokens=tuple(self._tokens),
            finish_reason=self.finished,
            stop_sequence=self._buffer.stop_sequence,
            prompt=self._request.prompt,
            prompt_tokens=len(self._request.ids),
            stats=Stats(
                rounds=self._rounds,
                drafted=self._drafted,
                tokens=len(self._tokens),
                kept=self._kept,
                replaced=self._replaced,
                discarded=self._drafted - self._kept - self._replaced,
                draft_passes=self._draft_passes,
                assistant_passes=self._assistant_passes,
                assistant_skipped=self._skipped,
                seconds=time.perf_counter() - self._started,
            ),
            verifier=self._manner.verifier,
            models=self._manner.models,
            calibration=self._manner.calibration,
        )


def _trace(
    draft: Prediction, opinions: Opinions | None, replacement: Replacement | None, buffer: TextBuffer
) -> TracedToken:
    """Put a token into the text and write down how it came about."""
    token_id = replacement.id if replacement else draft.id
    index = opinion = other = None
    if opinions is not None:
        # Of several assistants the one that won, else the most confident of those that disagree.
        index = replacement.assistant_index if replacement else _loudest(draft, opinions)
        opinion = opinions[index]
    if replacement:
        other = buffer.peek(draft.id)
    elif opinion is not None and opinion.id != draft.id:
        other = buffer.peek(opinion.id)
    return TracedToken(
        id=token_id,
        text=buffer.push(token_id),
        source="assistant" if replacement else "draft",
        assistant_index=index,
        p=draft.confidence,
        q=opinion.confidence if opinion else None,
        draft_id=draft.id,
        assistant_id=opinion.id if opinion else None,
        other_text=other,
    )


def _loudest(draft: Prediction, opinions: Opinions) -> int:
    return max(range(len(opinions)), key=lambda at: (opinions[at].id != draft.id, opinions[at].confidence))

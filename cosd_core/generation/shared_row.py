"""A row whose models share one vocabulary: the paper's case."""

from collections.abc import Sequence
from itertools import repeat

from cosd_core.generation.detokenizer import TextBuffer
from cosd_core.generation.row import PassRequest
from cosd_core.generation.text_state import TextState
from cosd_core.outputs import Step, TracedToken
from cosd_core.prediction import Opinions, Prediction
from cosd_core.verifiers.base import can_replace, verify_block
from cosd_core.verifiers.types import Position, Replacement, Verdict


class SharedRow:
    """A :class:`Row` of models with one vocabulary.

    When the assistants run, they also predict the token after the block. If the block is kept whole, these
    predictions belong to the first position of the next block, at no further pass.

    Attributes:
        num_replaceable: How many drafted tokens an assistant could replace whose prediction is not known.
    """

    def __init__(self, text: TextState) -> None:
        """Begin after the prompt of an empty text."""
        self._text = text
        self._begin_block(None)

    def _begin_block(self, bonus_predictions: Opinions | None) -> None:
        self._block: list[Prediction] = []
        self._opinions: list[Opinions | None] = []  # the assistants' predictions at each position
        self._bonus_predictions = bonus_predictions
        self._verdict: Verdict | None = None
        self.num_replaceable = 0
        self._text.begin_block()

    @property
    def input_ids(self) -> list[int]:
        """Prompt, text and block."""
        return self._text.input_ids

    @property
    def is_finished(self) -> bool:
        """Whether the text has ended."""
        return self._text.finish_reason is not None

    @property
    def can_draft(self) -> bool:
        """Whether the block is neither decided, ended nor full."""
        if self._verdict or (self._block and (self._text.has_drafted_stop or self._text.is_over())):
            return False
        return self._room > 0

    @property
    def _room(self) -> int:
        """How many more tokens the block may hold."""
        return min(self._text.config.draft_length, self._text.room) - len(self._block)

    @property
    def is_final(self) -> bool:
        """Whether the block holds tokens, and no assistant could replace any of them."""
        return self._text.config.lazy and bool(self._block) and not self.num_replaceable

    def draft_request(self, width: int) -> PassRequest:
        """Where the draft writes its next token, and up to ``width`` further ones if they are as guessed."""
        return self._text.draft_request(min(width, self._room - 1))

    def propose(self, prediction: Prediction, *, passes: int = 1) -> None:
        """Add the draft's next token to the block, which took so many passes.

        If the bonus predictions of the last round replace it, the block is decided without another pass.
        """
        self._text.draft(prediction.id, passes)
        self._text.preview(prediction.id)
        self._block.append(prediction)
        self._opinions.append(self._bonus_predictions)
        if self._bonus_predictions is None:
            self.num_replaceable += can_replace(self._text.config.verifier, prediction.confidence)
        else:
            self._bonus_predictions = None
            verdict = self._decide()
            self._verdict = verdict if verdict.replacement else None

    def assistant_ids(self, assistant: int) -> list[int]:
        """Prompt, text and block behind the assistant's own prompt: a chat has one prompt per model."""
        request, ids = self._text.request, self._text.input_ids
        prompt = request.prompts[1 + assistant]
        return ids if prompt == request.ids else [*prompt, *ids[len(request.ids) :]]

    def verify(self) -> list[PassRequest]:
        """Decide which tokens of the block stand, or request the predictions at all of its positions."""
        lazy = self._text.config.lazy
        if self._verdict is None and (self.num_replaceable if lazy else None in self._opinions):
            every_ids = [self.assistant_ids(at) for at in range(len(self._text.request.prompts) - 1)]
            end = None if lazy else -1
            return [
                PassRequest(ids[:end], self._text.positions(len(self._block), ids)[:end]) for ids in every_ids
            ]
        self._verdict = self._verdict or self._decide()
        return []

    def add_predictions(self, predictions: Sequence[Sequence[Prediction]]) -> None:
        """Take every assistant's predictions at the positions of the block, and if lazy at the one behind."""
        self._text.counts.assistant_passes += 1
        known: list[Opinions] = list(zip(*predictions, strict=True))
        self._bonus_predictions = known.pop() if self._text.config.lazy else None
        self._opinions, self.num_replaceable = [*known], 0

    def commit(self) -> Step:
        """Append the tokens that stand to the text, up to one that ends it, and begin the next block."""
        assert self._verdict is not None, "verify decides before commit"
        text, verdict, first = self._text, self._verdict, len(self._text.tokens)
        proposal, opinions = tuple(self._block), tuple(self._opinions)
        del text.input_ids[len(text.input_ids) - len(proposal) :]
        for at in range(verdict.kept + (verdict.replacement is not None)):
            replacement = verdict.replacement if at == verdict.kept else None
            text.append(_trace(proposal[at], opinions[at], replacement, text.buffer))
            text.counts.kept += replacement is None
            text.counts.replaced += replacement is not None
            text.counts.assistant_skipped += opinions[at] is None
            if text.finish_reason:
                break
        text.counts.rounds += 1
        text.counts.drafted += len(proposal)
        self._begin_block(None if verdict.replacement else self._bonus_predictions)
        return text.step(proposal, opinions, verdict, first=first)

    def discard_block(self) -> None:
        """Drop the block and its predictions."""
        self._text.counts.drafted += len(self._block)
        del self._text.input_ids[len(self._text.input_ids) - len(self._block) :]
        self._begin_block(None)

    def _decide(self) -> Verdict:
        verifier = self._text.config.verifier
        samplers = self._text.positions(len(self._block)) if verifier.needs_logits else repeat(None)
        verdict = verify_block(verifier, list(map(Position, self._block, self._opinions, samplers)))
        if verdict.replacement:
            # The grammar may refuse the replacement: raise before anything is committed.
            self._text.is_over(verdict.replacement.id, without=len(self._block) - verdict.kept)
        return verdict


def _trace(
    draft: Prediction, opinions: Opinions | None, replacement: Replacement | None, buffer: TextBuffer
) -> TracedToken:
    """Push a token into the text, and record where it comes from."""
    token_id = replacement.id if replacement else draft.id
    index = opinion = other_text = None
    if opinions is not None:
        # Of several assistants the one that replaced the token, else the most confident that disagrees.
        index = replacement.assistant_index if replacement else _most_confident(draft, opinions)
        opinion = opinions[index]
    if replacement:
        other_text = buffer.peek(draft.id)
    elif opinion is not None and opinion.id != draft.id:
        other_text = buffer.peek(opinion.id)
    return TracedToken(
        id=token_id,
        text=buffer.push(token_id),
        source="assistant" if replacement else "draft",
        assistant_index=index,
        p=draft.confidence,
        q=opinion.confidence if opinion else None,
        draft_id=draft.id,
        assistant_id=opinion.id if opinion else None,
        other_text=other_text,
    )


def _most_confident(draft: Prediction, opinions: Opinions) -> int:
    """The most confident assistant of those that disagree with the draft, else of all."""
    return max(range(len(opinions)), key=lambda at: (opinions[at].id != draft.id, opinions[at].confidence))

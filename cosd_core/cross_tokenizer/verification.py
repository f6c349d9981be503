"""Verification by text: what assistants with other tokens would write where, and whether it stands.

A verification is a generator: where an assistant's first token is too short to compare, it yields a request
for one more token of that assistant.
"""

from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import mul

from cosd_core.cross_tokenizer.draft_text import DraftText
from cosd_core.cross_tokenizer.retokenizer import NumWritten, RetokenizedText, TokenPosition
from cosd_core.cross_tokenizer.tokenizer_view import TokenizerView
from cosd_core.cross_tokenizer.word_boundaries import END, continues_word, is_unfinished
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.verifiers.base import Verifier, can_replace, judge
from cosd_core.verifiers.types import Position

_MOST_RESOLVING = 3
"""The most tokens that an assistant writes until its text is compared with the draft's."""

_MOST_EXTENDING = 16
"""The most tokens that an assistant writes to finish a word."""


@dataclass(frozen=True, slots=True)
class ContinuationRequest:
    """One more token is needed of an assistant.

    Attributes:
        assistant: Its index.
        position: Behind the tokens that it has written so far.
    """

    assistant: int
    position: SamplingPosition


@dataclass(frozen=True, slots=True)
class ReplacementCandidate:
    """The text that an assistant would write from a position on, beside the draft's.

    Attributes:
        assistant: Its index.
        start: The position.
        ids: Its tokens.
        text: Their bytes.
        p: The draft's confidence in its own text there.
        q: The assistant's confidence in these tokens.
        agrees: Whether both texts are the same, as far as both go.
    """

    assistant: int
    start: TokenPosition
    ids: tuple[int, ...]
    text: bytes
    p: float
    q: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class TextEdit:
    """A candidate that replaces the draft's text, in the draft's tokens.

    Attributes:
        candidate: The candidate.
        kept: How many of the block's tokens are kept.
        seam: The offset of the character at which the new text begins: that of the candidate, or before it if
            it begins inside a character.
        ids: The draft's tokens of the new text. The first may begin with bytes that the draft wrote itself.
        pieces: The bytes that each of them adds to the text.
        ends: Whether the text ends then.
    """

    candidate: ReplacementCandidate
    kept: int
    seam: int
    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
    ends: bool


Verification = Generator[ContinuationRequest, Prediction, TextEdit | None]


class BlockVerification:
    """The verification of the complete words of a block.

    Attributes:
        candidates: What the assistants would write, in the order of the text.
    """

    def __init__(
        self,
        draft_text: DraftText,
        retokenized: Sequence[RetokenizedText],
        predictions: Mapping[tuple[int, int], Prediction],
        *,
        verifier: Verifier,
        draft: TokenizerView,
        names: frozenset[str],
        num_written: NumWritten,
    ) -> None:
        """Verify what the draft wrote.

        Args:
            draft_text: What the draft wrote.
            retokenized: The same text in each assistant's tokens.
            predictions: By assistant and number of ids before, the token that it would write there.
            verifier: Decides which candidates replace the draft's text.
            draft: The draft's tokens.
            names: The names of special tokens that are part of the text.
            num_written: The draft's tokens before an offset.
        """
        self.candidates: list[ReplacementCandidate] = []
        self._draft_text = draft_text
        self._retokenized = retokenized
        self._predictions = predictions
        self._verifier = verifier
        self._draft = draft
        self._names = names
        self._num_written = num_written

    def run(self, word_ends: Sequence[int]) -> Verification:
        """Verify the words that end at these offsets, from the left, up to the first edit (Algorithm 1)."""
        starts = [
            (start.start, at, start) for at, each in enumerate(self._retokenized) for start in each.starts
        ]
        starts.sort(key=lambda each: each[:2])
        for offset, here in groupby(starts, key=lambda each: each[0]):
            following = bisect_right(word_ends, offset)
            begin = word_ends[following - 1] if following else self._draft_text.decided
            word = range(begin, word_ends[following])
            candidates = []
            for _, at, start in here:
                candidates.append((yield from self._resolve(at, start, word)))
            self.candidates += candidates
            if edit := (yield from self._decide(candidates, word)):
                return edit
        return None

    def _decide(self, candidates: Sequence[ReplacementCandidate], word: range) -> Verification:
        """The edit at one position of the text, of the candidates that begin there."""
        for candidate in self._preferred([each for each in candidates if not each.agrees]):
            if edit := self._edit(candidate, (yield from self._extend(candidate, word))):
                return edit
        return None

    def _preferred(self, rivals: Sequence[ReplacementCandidate]) -> Sequence[ReplacementCandidate]:
        """Those of the candidates at one position that replace the draft's text, the most confident first."""
        return sorted(filter(self._replaces, rivals), key=lambda each: -each.q)  # stable: ties to the first

    def _resolve(
        self, at: int, start: TokenPosition, word: range
    ) -> Generator[ContinuationRequest, Prediction, ReplacementCandidate]:
        """An assistant's candidate at a position, of as many tokens as it takes to compare it."""
        retokenized, draft_text = self._retokenized[at], self._draft_text
        first = self._predictions[at, start.length]
        ids, text, q = [first.id], retokenized.comparable_bytes(first.id), first.confidence
        drafted = bytes(draft_text.text[start.start : word.stop + 1])
        own = drafted[: start.end - start.start]
        # Where the draft has one token of the same span, token is compared with token, as in the paper.
        token = draft_text.token_at(start.start, start.end)
        while (
            token is None
            and len(text) < len(own)
            and own.startswith(text)
            and len(ids) < _MOST_RESOLVING
            and self._is_replaceable(start.start, word)
        ):
            position = retokenized.continuation(start, ids, self._num_written)
            if not retokenized.can_continue(position):
                break
            following = yield ContinuationRequest(at, position)
            ids, q = [*ids, following.id], q * following.confidence
            text += retokenized.comparable_bytes(following.id)
        agrees = text == own or (ids == [start.id] and text != END)  # the unknown token may have the end's id
        if len(text) > len(own) or token is None:
            agrees |= drafted.startswith(text) or text.startswith(drafted)
        end = min(start.start + len(text), word.stop + 1)
        p = token.confidence if token else draft_text.confidence(start.start, end)
        return ReplacementCandidate(at, start, tuple(ids), text, p, q, agrees)

    def _is_replaceable(self, start: int, word: range) -> bool:
        """Whether the verifier could let a text of some length replace the draft's from an offset on."""
        own = [token.confidence for token in self._draft_text.overlapping(start, word.stop + 1)]
        return any(can_replace(self._verifier, p) for p in accumulate(own, mul))

    def _replaces(self, candidate: ReplacementCandidate) -> bool:
        """Whether the verifier lets a candidate replace the draft's text."""
        none = Prediction(0, 0.0)
        opinions = [none] * len(self._retokenized)
        opinions[candidate.assistant] = Prediction(1, candidate.q)
        return judge(self._verifier, Position(Prediction(0, candidate.p), tuple(opinions))) is not None

    def _extend(
        self, candidate: ReplacementCandidate, word: range
    ) -> Generator[ContinuationRequest, Prediction, bytes]:
        """The candidate's text, continued to the end of a character and of its word."""
        retokenized = self._retokenized[candidate.assistant]
        before = bytes(self._draft_text.text[word.start : candidate.start.start])
        ids, text = list(candidate.ids), candidate.text
        while len(ids) < _MOST_EXTENDING and not text.endswith(END):
            unfinished, shown = is_unfinished(before + text), (before + text).decode("utf-8", "ignore")
            if not unfinished and not (retokenized.view.finishes_words and continues_word(shown, "a")):
                break
            position = retokenized.continuation(candidate.start, ids, self._num_written)
            if not retokenized.can_continue(position):
                break
            following = yield ContinuationRequest(candidate.assistant, position)
            piece = retokenized.comparable_bytes(following.id)
            continues = unfinished or continues_word(shown, piece.decode("utf-8", "ignore") or "a")
            if piece == END or not continues:
                break
            ids, text = [*ids, following.id], text + piece
        return text

    def _edit(self, candidate: ReplacementCandidate, text: bytes) -> TextEdit | None:
        """A candidate's text in the draft's tokens; None if the draft has no tokens for it."""
        draft_text, seam = self._draft_text, candidate.start.start
        while seam > draft_text.decided and draft_text.text[seam] & 0xC0 == 0x80:  # inside a character
            seam -= 1
        kept = draft_text.count_before(seam)
        before = bytes(draft_text.text[draft_text.begin(kept) : candidate.start.start])
        try:
            new = (before + text.removesuffix(END)).decode()
        except UnicodeDecodeError:
            return None
        ids, ends = self._draft.encode(new, self._names) if new else ((), ())
        if new and not (ids and all(self._draft.text_bytes(token, self._names) for token in ids)):
            return None  # the tokenizer drops the text, or has the unknown token for it
        pieces = [new.encode()[begin:end] for begin, end in zip((0, *ends), ends, strict=False)]
        end_token = self._draft.eos_token_id
        if text.endswith(END) and end_token is not None:
            ids, pieces = (*ids, end_token), [*pieces, self._draft.text_bytes(end_token, self._names)]
        return TextEdit(candidate, kept, seam, ids, tuple(pieces), ends=text.endswith(END))

"""What assistants with other tokens make of what the draft wrote: the walk over places in words.

It is a conversation: where an assistant has only begun to say something, the walk holds up a question and
goes on with the answer.
"""

from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

from cosd_core.cross_tokenizer.draft_text import DraftText
from cosd_core.cross_tokenizer.retokenizer import RetokenizedText, TokenizerView, TokenPosition
from cosd_core.cross_tokenizer.word_boundaries import END, goes_on, is_unfinished
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.verifiers.base import Verifier
from cosd_core.verifiers.types import Position

_LONGEST_DOUBT = 3
"""The most tokens that an assistant writes to tell whether it means what the draft wrote."""

_LONGEST_WORD = 16
"""The most tokens that an assistant writes to finish a word."""


@dataclass(frozen=True, slots=True)
class ContinuationRequest:
    """What an assistant is to write on with.

    Attributes:
        assistant: Which one.
        spot: The end of the ids that it is shown.
    """

    assistant: int
    spot: SamplingPosition


@dataclass(frozen=True, slots=True)
class ReplacementCandidate:
    """What an assistant would write from a place on, and how sure both are of their own.

    Attributes:
        assistant: Which one.
        place: Where.
        said: Its tokens.
        text: Their bytes.
        p: The draft's confidence in what it wrote there.
        q: The assistant's in what it says.
        agrees: Whether that is what the draft wrote.
    """

    assistant: int
    place: TokenPosition
    said: tuple[int, ...]
    text: bytes
    p: float
    q: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class TextEdit:
    """A claim that stands, in the draft's tokens.

    Attributes:
        claim: What is said.
        kept: How many of the draft's tokens stay.
        seam: Where the character begins that the claim changes, at its place or before.
        ids: The draft's tokens instead of the others. The first may begin with what the draft wrote itself.
        pieces: What each of them adds to the text.
        ends: Whether the text is over then.
    """

    claim: ReplacementCandidate
    kept: int
    seam: int
    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
    ends: bool


class BlockVerification:
    """The judging of some words.

    Attributes:
        claims: What assistants said, in the order of the text.
    """

    def __init__(
        self,
        spans: DraftText,
        readings: Sequence[RetokenizedText],
        heard: Mapping[tuple[int, int], Prediction],
        *,
        verifier: Verifier,
        draft: TokenizerView,
        names: frozenset[str],
    ) -> None:
        """Begin when all assistants have been asked.

        Args:
            spans: What the draft wrote.
            readings: How each assistant reads it.
            heard: What each would write, by its number and the length of what it had read.
            verifier: Who judges.
            draft: The draft's tokens.
            names: Special tokens that are part of the text.
        """
        self.claims: list[ReplacementCandidate] = []
        self._spans = spans
        self._readings = readings
        self._heard = heard
        self._verifier = verifier
        self._draft = draft
        self._names = names

    def walk(self, ends: Sequence[int]) -> Generator[ContinuationRequest, Prediction, TextEdit | None]:
        """Judge words that end there, from the left, up to the first claim that stands (Algorithm 1)."""
        places = [
            (place.start, at, place) for at, reading in enumerate(self._readings) for place in reading.places
        ]
        for start, here in groupby(sorted(places, key=lambda each: each[:2]), key=lambda each: each[0]):
            following = bisect_right(ends, start)
            word = range(ends[following - 1] if following else self._spans.judged, ends[following])
            rivals = []
            for _, at, place in here:
                claim = yield from self._hear_out(at, place, word)
                self.claims.append(claim)
                if not claim.agrees and self._stands(claim):
                    rivals.append(claim)
            for claim in sorted(rivals, key=lambda rival: -rival.q):  # ties go to the first
                if change := self._translate(claim, (yield from self._finish_word(claim, word))):
                    return change
        return None

    def _hear_out(
        self, at: int, place: TokenPosition, word: range
    ) -> Generator[ContinuationRequest, Prediction, ReplacementCandidate]:
        """What an assistant claims at a place. If it has only begun to say what stands there, it goes on."""
        reading, spans = self._readings[at], self._spans
        first = self._heard[at, place.length]
        said, text, q = [first.id], reading.spell(first.id), first.confidence
        known = bytes(spans.text[place.start : word.stop + 1])
        own = known[: place.end - place.start]
        # Where the draft has one token of the same extent, token stands against token, as in the paper.
        token = spans.token_at(place.start, place.end)
        while (
            token is None
            and len(text) < len(own)
            and own.startswith(text)
            and len(said) < _LONGEST_DOUBT
            and self._verifier.can_replace(self._confidence(place.start, place.end))
            and reading.can_say_more(place, said)
        ):
            more = yield ContinuationRequest(at, reading.spot(place, said))
            said, text, q = [*said, more.id], text + reading.spell(more.id), q * more.confidence
        agrees = text == own or (said == [place.id] and text != END)  # what is unknown may bear the end's id
        if len(text) > len(own) or token is None:
            agrees |= known.startswith(text) or text.startswith(known)
        extent = min(place.start + len(text), word.stop + 1)
        p = token.confidence if token else self._confidence(place.start, extent)
        return ReplacementCandidate(at, place, tuple(said), text, p, q, agrees)

    def _confidence(self, start: int, end: int) -> float:
        return prod(token.confidence for token in self._spans.reaching(start, end))

    def _stands(self, claim: ReplacementCandidate) -> bool:
        """Whether the verifier lets a claim replace what the draft wrote."""
        nobody = Prediction(0, 0.0)
        opinions = [nobody] * len(self._readings)
        opinions[claim.assistant] = Prediction(1, claim.q)
        return self._verifier.judge(Position(Prediction(0, claim.p), tuple(opinions))) is not None

    def _finish_word(
        self, claim: ReplacementCandidate, word: range
    ) -> Generator[ContinuationRequest, Prediction, bytes]:
        """What an assistant that replaces something says, up to the end of a character, and of its word."""
        reading = self._readings[claim.assistant]
        before = bytes(self._spans.text[word.start : claim.place.start])
        said, text = list(claim.said), claim.text
        while len(said) < _LONGEST_WORD and not text.endswith(END):
            unfinished, shown = is_unfinished(before + text), (before + text).decode("utf-8", "ignore")
            if not unfinished and not (reading.dialect.finishes_words and goes_on(shown, "a")):
                break
            if not reading.can_say_more(claim.place, said):
                break
            more = yield ContinuationRequest(claim.assistant, reading.spot(claim.place, said))
            piece = reading.spell(more.id)
            if piece == END or not (unfinished or goes_on(shown, piece.decode("utf-8", "ignore") or "a")):
                break
            said, text = [*said, more.id], text + piece
        return text

    def _translate(self, claim: ReplacementCandidate, text: bytes) -> TextEdit | None:
        """Put what an assistant says into the draft's tokens; None if they cannot say it."""
        spans, seam = self._spans, claim.place.start
        while seam > spans.judged and spans.text[seam] & 0xC0 == 0x80:  # inside a character
            seam -= 1
        kept = spans.before(seam)
        try:
            new = (bytes(spans.text[spans.begin(kept) : claim.place.start]) + text.removesuffix(END)).decode()
        except UnicodeDecodeError:
            return None
        ids, ends = self._draft.encode(new, self._names) if new else ((), ())
        if new and not (ids and all(self._draft.write(token, self._names) for token in ids)):
            return None  # dropped, or an unknown token
        pieces = [new.encode()[begin:end] for begin, end in zip((0, *ends), ends, strict=False)]
        if text.endswith(END) and self._draft.end is not None:
            ids, pieces = (*ids, self._draft.end), [*pieces, self._draft.write(self._draft.end, self._names)]
        return TextEdit(claim, kept, seam, ids, tuple(pieces), ends=text.endswith(END))

"""The method for models with different tokenizers, written plainly from docs/different-tokenizers.md.

The text is written word by word, and everything is decided by full forward passes over whole texts. There is
no cache, no block, no schedule and no batch here. Of cosd_core it takes what the specification takes as
given: where words end, what a tokenizer's tokens stand for, and the numbers that a seed means.
"""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import pytest

from cosd_core import Generation, LanguageModel
from cosd_core.cross_tokenizer.vocabulary import vocabulary_of
from cosd_core.cross_tokenizer.word_boundaries import END, continues_word, is_unfinished, word_ends
from cosd_core.sampling.sampler import RandomNumbers
from tests.reference import _draw, _How, _logits, _masked, _odds, _penalised, _softmax

Fires = Callable[[float, float], bool]
"""Whether a claim of confidence q replaces what the draft wrote with confidence p, of these two."""


@dataclass(frozen=True)
class Token:
    """A token of the text, the draft's: who wrote it (None: the draft), p, and q of a replacement."""

    id: int
    piece: bytes
    writer: int | None
    p: float
    q: float | None = None


@dataclass(frozen=True)
class Written:
    """A finished text. ``whole`` is what all tokens say, ``text`` is cut before the stop sequence."""

    tokens: tuple[Token, ...]
    text: str
    whole: str
    finish_reason: str
    stop_sequence: str | None
    changes: int

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.tokens)


def write(
    draft: LanguageModel,
    assistants: Sequence[LanguageModel],
    fires: Fires | Sequence[Fires],
    prompt: str,
    *,
    eos_token_id: Sequence[Sequence[int]] = (),
    **options: object,
) -> Written:
    """What ``CoSDDecoder(draft, assistants, verifier=...).generate(prompt, **options)`` should give.

    Args:
        draft: As for the decoder.
        assistants: Those with the draft's own tokenizer object share its tokens.
        fires: The verifier, or one per assistant.
        prompt: Text.
        eos_token_id: Which tokens end a text, per model, where they are not the models' own.
        **options: As for :func:`tests.reference.write`.
    """
    how = _How(**options)  # type: ignore[arg-type]
    verifiers = list(fires) if isinstance(fires, (list, tuple)) else [fires] * len(assistants)
    models = (draft, *assistants)
    sharing = [model for model in models if model.tokenizer is draft.tokenizer]
    shared = frozenset().union(*(model.eos_token_ids for model in sharing))
    ends = [shared if model in sharing else model.eos_token_ids for model in models]
    speakers = [
        _Speaker(model, at, frozenset(eos_token_id[at]) if eos_token_id else ends[at], prompt, how)
        for at, model in enumerate(models)
    ]
    for speaker, model in zip(speakers, models, strict=True):
        speaker.finishes_words = model not in sharing
    return _Writing(speakers, verifiers, how).run()


def assert_agrees(generation: Generation, written: Written) -> None:
    """The decoder's text, and who wrote which token of it, are the reference's."""
    assert generation.text == written.text
    assert generation.token_ids == written.ids
    assert generation.finish_reason == written.finish_reason
    assert generation.stop_sequence == written.stop_sequence
    assert "".join(token.text for token in generation.tokens) == written.whole
    for ours, theirs in zip(generation.tokens, written.tokens, strict=True):
        assert ours.source == ("draft" if theirs.writer is None else "assistant")
        if theirs.writer is not None:
            assert ours.assistant_index == theirs.writer
            assert ours.p == pytest.approx(theirs.p, rel=1e-6)
            assert ours.q == pytest.approx(theirs.q, rel=1e-6)
    stats = generation.stats
    assert stats.tokens == len(generation.tokens)
    assert stats.drafted == stats.kept + stats.replaced + stats.discarded
    assert min(stats.kept, stats.replaced, stats.discarded) >= 0
    assert stats.replaced == written.changes


class _Speaker:
    """One model: what it would say next, and what its tokens stand for."""

    def __init__(self, model: LanguageModel, at: int, ends: frozenset[int], prompt: str, how: _How) -> None:
        self.model = model
        self.vocabulary = vocabulary_of(model.tokenizer, model.vocabulary_size)
        self.ends = ends
        own = model.tokenizer.eos_token_id
        self.end = own if own in ends else min(ends, default=None)
        self.finishes_words = True
        self._purpose = f"assistant {at - 1}" if at else "draft"
        self._prompt = tuple(model.encode(prompt))
        self._how = how
        self._uniform = RandomNumbers(how.seed).uniform
        # What is nothing that can be told to another model, no assistant names.
        self._mute = set(self.vocabulary.without_text) - ends if at else set()

    def spell(self, token: int) -> bytes:
        """For comparisons: every end is one and the same."""
        return END if token in self.ends else self.vocabulary.bytes_of(token).replace(END, b"\xfe")

    def say(self, ids: Sequence[int], written: int) -> tuple[int, float]:
        """The token after these, and its confidence; so many tokens of the draft's are written."""
        seen = (*self._prompt, *ids)
        banned = self._mute | (self.ends if written < self._how.min_new_tokens else set())
        masked = _masked(_logits(self.model, seen), banned)
        odds = _odds(_penalised(masked, seen, self._how), self._how)
        token = _draw(odds, self._uniform(len(ids), self._purpose), self._how)
        return token, float(_softmax(masked)[token])


@dataclass(frozen=True)
class _Place:
    """The beginning of an assistant's token (None: the text's end), what it read before, and its word."""

    start: int
    end: int
    id: int | None
    before: tuple[int, ...]
    word: tuple[int, int]


@dataclass(frozen=True)
class _Claim:
    assistant: int
    place: _Place
    said: tuple[int, ...]
    text: bytes
    p: float
    q: float
    agrees: bool


@dataclass(frozen=True)
class _Drafted:
    id: int
    p: float
    start: int
    end: int


class _Writing:
    def __init__(self, speakers: Sequence[_Speaker], fires: Sequence[Fires], how: _How) -> None:
        self.draft, *self.assistants = speakers
        self.fires = fires
        self.how = how
        self.tokens: list[Token] = []
        self.text = b""  # what these tokens say, an end as END
        self.cuts = [
            0
        ]  # ends of words and of replacements: to the last nothing changes; a drafted token may reach beyond
        self.changes = 0
        self.done: Written | None = None

    def run(self) -> Written:
        while not self.done:
            drafted, text, until = self._draft_word()
            claim = self._first_claim(drafted, text, until)
            if claim:
                self._change(*claim, drafted, text)
            else:
                self.cuts.append(until)
                self._take(drafted, until)
        return self.done

    @property
    def judged(self) -> int:
        return self.cuts[-1]

    def _draft_word(self) -> tuple[list[_Drafted], bytes, int]:
        """Write until something follows a word that was not judged yet, or nothing can."""
        drafted: list[_Drafted] = []
        text = self.text
        while True:
            count = len(self.tokens) + len(drafted)
            whole = list(word_ends(text, self.judged))
            if whole:
                return drafted, text, whole[0]
            if count == self.how.max_new_tokens or (drafted and drafted[-1].id in self.draft.ends):
                return drafted, text, len(text)
            ids = [token.id for token in (*self.tokens, *drafted)]
            token, p = self.draft.say(ids, count)
            start, text = len(text), text + self.draft.spell(token)
            drafted.append(_Drafted(token, p, start, len(text)))

    def _first_claim(
        self, drafted: Sequence[_Drafted], text: bytes, until: int
    ) -> tuple[_Claim, bytes] | None:
        """The leftmost claim that stands, with the word that it is finished to."""
        places = [
            (place.start, at, place)
            for at, speaker in enumerate(self.assistants)
            for place in _read(speaker, text, [*self.cuts, until])
            if place.start >= self.judged
        ]
        for start in sorted({start for start, _, _ in places}):
            claims = [self._claim(at, place, drafted, text) for begin, at, place in places if begin == start]
            rivals = [
                each for each in claims if not each.agrees and self.fires[each.assistant](each.p, each.q)
            ]
            for claim in sorted(rivals, key=lambda each: -each.q):
                finished = self._finish_word(claim, drafted, text)
                if self._in_drafts_words(claim, finished, drafted, text) is not None:
                    return claim, finished
        return None

    def _claim(self, at: int, place: _Place, drafted: Sequence[_Drafted], text: bytes) -> _Claim:
        own = text[place.start : place.end]
        known = text[place.start : place.word[1] + 1]  # up to the byte after the word
        token = next((each for each in drafted if (each.start, each.end) == (place.start, place.end)), None)
        said: list[int] = []
        y, q = b"", 1.0
        while not said or (token is None and len(said) < 3 and len(y) < len(own) and own.startswith(y)):
            more, confidence = self._say(at, place, said, drafted)
            said, y, q = [*said, more], y + self.assistants[at].spell(more), q * confidence
        extent = place.start + min(len(y), len(known))
        p = token.p if token else prod(
            each.p for each in drafted if each.start < extent and each.end > place.start
        )  # fmt: skip
        agrees = y == own or (said == [place.id] and y != END)
        if token is None or len(y) > len(own):
            agrees |= known.startswith(y) or y.startswith(known)
        return _Claim(at, place, tuple(said), y, p, q, agrees)

    def _say(
        self, at: int, place: _Place, said: Sequence[int], drafted: Sequence[_Drafted]
    ) -> tuple[int, float]:
        written = len(self.tokens) + sum(each.end <= place.start for each in drafted)
        return self.assistants[at].say([*place.before, *said], written)

    def _finish_word(self, claim: _Claim, drafted: Sequence[_Drafted], text: bytes) -> bytes:
        """What an assistant says, up to the end of a word or at least of a character."""
        speaker, said, y = self.assistants[claim.assistant], list(claim.said), claim.text
        before = text[claim.place.word[0] : claim.place.start]
        while len(said) < 16 and not y.endswith(END):
            unfinished = is_unfinished(before + y)
            shown = (before + y).decode("utf-8", "ignore")
            if not unfinished and not (speaker.finishes_words and continues_word(shown, "x")):
                break
            more, _ = self._say(claim.assistant, claim.place, said, drafted)
            piece = speaker.spell(more)
            follows = piece.decode("utf-8", "ignore") or "x"  # a part of a character may be one of a letter
            if piece == END or not (unfinished or continues_word(shown, follows)):
                break
            said, y = [*said, more], y + piece
        return y

    def _in_drafts_words(
        self, claim: _Claim, said: bytes, drafted: Sequence[_Drafted], text: bytes
    ) -> tuple[int, list[tuple[int, bytes]]] | None:
        """How many drafted tokens stay, and what the draft writes instead of others; None if it cannot."""
        start = self._seam(claim.place.start, text)
        kept = sum(each.end <= start for each in drafted)
        start = drafted[kept - 1].end if kept else len(self.text)
        try:
            new = (text[start : claim.place.start] + said.removesuffix(END)).decode()
        except UnicodeDecodeError:
            return None
        ids, ends = self.draft.vocabulary.encode(new) if new else ((), ())
        if new and (not ids or not all(map(self.draft.vocabulary.bytes_of, ids))):
            return None  # dropped, or an unknown token
        pieces = [new.encode()[begin:end] for begin, end in pairwise((0, *ends))]
        tokens = list(zip(ids, pieces, strict=True))
        if said.endswith(END) and self.draft.end is not None:
            tokens.append((self.draft.end, END))
        return kept, tokens

    def _seam(self, start: int, text: bytes) -> int:
        """Where the character begins that a claim changes."""
        while start > self.judged and 0x80 <= text[start] < 0xC0:
            start -= 1
        return start

    def _take(self, drafted: Sequence[_Drafted], until: int) -> None:
        """What ends by then stands; a token that reaches beyond is written again with the next word."""
        for each in drafted:
            if each.end <= until and not self.done:
                piece = END if each.id in self.draft.ends else self.draft.vocabulary.bytes_of(each.id)
                self._append(Token(each.id, piece, None, each.p))

    def _change(self, claim: _Claim, said: bytes, drafted: Sequence[_Drafted], text: bytes) -> None:
        changed = self._in_drafts_words(claim, said, drafted, text)
        assert changed is not None, "it was tried"
        kept, tokens = changed
        self._take(drafted[:kept], claim.place.start)
        if self.done:
            return
        self.changes += 1
        for token, piece in tokens:
            by_draft = len(self.text) + len(piece) <= claim.place.start and piece != END
            writer = None if by_draft else claim.assistant
            self._append(Token(token, piece, writer, claim.p, claim.q))
            if self.done:
                return
        for cut in (self._seam(claim.place.start, text), len(self.text)):
            self.cuts += [cut] if cut > self.judged else []
        if said.endswith(END):
            self._finish("stop")

    def _append(self, token: Token) -> None:
        self.tokens.append(token)
        self.text += token.piece.replace(END, b"\xfe") if token.piece != END else END
        if token.id in self.draft.ends or self._stop()[1] is not None:
            self._finish("stop")
        elif len(self.tokens) == self.how.max_new_tokens:
            self._finish("length")

    def _stop(self) -> tuple[int, str | None]:
        """Where the first stop string that is complete begins."""
        shown = codecs.getincrementaldecoder("utf-8")("replace").decode(self._bytes())
        found = [(shown.index(stop) + len(stop), stop) for stop in self.how.stop if stop in shown]
        end, stop = min(found, default=(0, None))
        return end - len(stop or ""), stop

    def _bytes(self) -> bytes:
        """The text; what ends it is said by the name of its token, which is none if that is special."""
        return b"".join(
            self.draft.vocabulary.bytes_of(token.id) if token.piece == END else token.piece
            for token in self.tokens
        )

    def _finish(self, reason: str) -> None:
        at, stop = self._stop()
        whole = self._bytes().decode("utf-8", "replace")
        if stop is not None:  # nothing is shown of a character that is not whole then
            whole = codecs.getincrementaldecoder("utf-8")("replace").decode(self._bytes())
        text = whole if stop is None else whole[:at]
        self.done = Written(tuple(self.tokens), text, whole, reason, stop, self.changes)


def _read(speaker: _Speaker, text: bytes, cuts: Sequence[int]) -> list[_Place]:
    """The places of a text in an assistant's tokens: of each word by itself."""
    ids: list[int] = []
    places = []
    for start, stop in pairwise(cuts):
        word = text[start:stop]
        if word == END:
            places.append(_Place(start, stop, None, tuple(ids), (start, stop)))
            continue
        shown = word.decode("utf-8", "replace")
        tokens, lasts = speaker.vocabulary.encode(shown)
        for token, (begin, end) in zip(tokens, pairwise((0, *lasts)), strict=True):
            # What is no text is shown to the assistant and not put to it.
            if shown.encode() == word and end > begin:
                places.append(_Place(start + begin, start + end, token, tuple(ids), (start, stop)))
            ids.append(token)
    return places

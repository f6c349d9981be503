"""How one assistant reads a text, word by word, in tokens of its own."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from cosd_core.cross_tokenizer.vocabulary import Vocabulary, vocabulary_of
from cosd_core.cross_tokenizer.word_boundaries import END
from cosd_core.models.language_model import LanguageModel
from cosd_core.sampling.grammar_matcher import Matcher
from cosd_core.sampling.sampler import Sampler, SamplingPosition

_NOT_END = b"\xfe"
"""What a byte-level token of the byte of :data:`END` is taken for. Neither is UTF-8, so no text has them."""


@dataclass(frozen=True, eq=False)
class TokenizerView:
    """The tokens of one model and what they mean, the same for all texts.

    Attributes:
        vocabulary: The tokens as bytes.
        size: How many of its ids take part.
        eos_token_ids: Those that end a text.
        end: The one of them that is written for another model's, or None if there is none.
        window: The most tokens that the model reads, or None.
        finishes_words: Whether its replacements go on to the end of a word: no model has learned to go on
            with half a word in someone else's tokens.
    """

    vocabulary: Vocabulary
    size: int
    eos_token_ids: frozenset[int]
    end: int | None
    window: int | None
    finishes_words: bool

    @classmethod
    def of(
        cls, model: LanguageModel, size: int, ends: frozenset[int], *, finishes_words: bool
    ) -> "TokenizerView":
        """That of a model, whose texts end with these ids."""
        own = model.tokenizer.eos_token_id
        return cls(
            vocabulary_of(model.tokenizer, size),
            size,
            ends,
            own if own in ends else min(ends, default=None),
            model.context_length,
            finishes_words,
        )

    def spell(self, token_id: int, names: Collection[str] = ()) -> bytes:
        """What a token stands for when texts are compared: every token that ends a text for :data:`END`.

        Args:
            token_id: The token.
            names: Special tokens that are part of the text.
        """
        if token_id in self.eos_token_ids:
            return END
        return self.write(token_id, names).replace(END, _NOT_END)

    def write(self, token_id: int, names: Collection[str] = ()) -> bytes:
        """What a token adds to the text."""
        if token_id in self.vocabulary.silent and names:
            name = self.vocabulary.name(token_id)
            return name.encode() if name in names else b""
        return self.vocabulary.bytes_of(token_id)

    def encode(self, text: str, names: Collection[str] = ()) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A text's tokens, as it continues another, and the offsets in bytes at which they end."""
        return self.vocabulary.encode(text, specials=any(name in text for name in names))

    @lru_cache(maxsize=8)  # noqa: B019 - a dialect lives as long as its decoder
    def admitted(self, names: frozenset[str] = frozenset()) -> torch.Tensor:
        """Which tokens can be told to other models, bool, ``[size]``: those that are text, and the ends."""
        mute = {
            token for token in self.vocabulary.silent if not names or self.vocabulary.name(token) not in names
        }
        admitted = torch.ones(self.size, dtype=torch.bool)
        admitted[[token for token in mute - self.eos_token_ids if token < self.size]] = False
        return admitted


@dataclass(frozen=True, slots=True)
class TokenPosition:
    """Where a token begins as an assistant reads a text.

    Attributes:
        start: The offset of its first byte.
        end: The offset behind its last.
        id: The token that the text has there, or None where the text ends.
        length: How many ids the assistant has read before it, the prompt's included.
    """

    start: int
    end: int
    id: int | None
    length: int


class RetokenizedText:
    """A text in the tokens of one assistant.

    A word is read once it is whole; what was read of words that stand is kept. So a token costs the same
    wherever in the text it stands.

    Attributes:
        ids: Prompt and words, as far as they were read.
        places: Where an opinion counts.
        dialect: The assistant's tokens.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        dialect: TokenizerView,
        *,
        names: frozenset[str],
        sampler: Sampler,
        matcher: Matcher | None,
        written: Callable[[int], int],
    ) -> None:
        """Begin after a prompt.

        Args:
            prompt: In the assistant's tokens.
            dialect: The assistant's tokens.
            names: Special tokens that are part of the text.
            sampler: The draft's.
            matcher: The grammar in the assistant's tokens.
            written: How many tokens of the draft end before an offset of the text.
        """
        self.ids = list(prompt)
        self.places: list[TokenPosition] = []
        self.dialect = dialect
        self._prompt = len(prompt)
        self._names = names
        self._sampler = sampler.for_reader(
            dialect.eos_token_ids,
            len(prompt),
            matcher,
            dialect.admitted(names),
            lambda length: written(self._offset(length)),
        )
        self._known = (
            0,
            len(prompt),
        )  # the end of the last word that stands, and how many ids there are then
        self._words: list[tuple[int, int]] = []  # the same after every other word that was read

    def read(self, text: bytes | bytearray, cuts: Sequence[int], after: int) -> None:
        """Read a text up to its last cut; places are the tokens that begin at ``after`` or later."""
        start, length = self._known
        del self.ids[length:]
        self.places, self._words = [], []
        for end in cuts[bisect_right(cuts, start) :]:
            self._read_word(bytes(text[start:end]), start, after)
            self._words.append((end, len(self.ids)))
            start = end

    def keep(self, until: int) -> None:
        """The text stands up to there: words that end by then need not be read again."""
        self._known = max((word for word in self._words if word[0] <= until), default=self._known)
        self._words = []

    def spots(self) -> list[SamplingPosition]:
        """Where the assistant is asked: from the first place to one ahead of all that was read."""
        if not self.places:
            return []
        return [
            SamplingPosition(self._sampler, self.ids, at)
            for at in range(self.places[0].length, len(self.ids) + 1)
        ]

    def spot(self, place: TokenPosition, said: Sequence[int]) -> SamplingPosition:
        """Where the assistant goes on after its own words at a place."""
        ids = [*self.ids[: place.length], *said]
        return SamplingPosition(self._sampler.from_place(place.length), ids, len(ids))

    def can_say_more(self, place: TokenPosition, said: Sequence[int]) -> bool:
        """Whether its window takes these words of its own at a place, and the grammar more than them."""
        spot = self.spot(place, said)
        fits = self.dialect.window is None or spot.length <= self.dialect.window
        return fits and not spot.sampler.is_over(spot.ids, spot.length)

    def spell(self, token_id: int) -> bytes:
        """What one of the assistant's tokens stands for."""
        return self.dialect.spell(token_id, self._names)

    @property
    def seen(self) -> list[int]:
        """As much of the ids as the window takes."""
        return self.ids[: self.dialect.window] if self.full else self.ids

    @property
    def full(self) -> bool:
        """Whether more was read than the assistant's window takes."""
        return self.dialect.window is not None and len(self.ids) > self.dialect.window

    def _read_word(self, word: bytes, start: int, after: int) -> None:
        if word == END:
            if start >= after:
                self.places.append(TokenPosition(start, start + 1, None, len(self.ids)))
            return
        text = word.decode("utf-8", "replace")
        ids, ends = self.dialect.encode(text, self._names)
        begin = start
        # What is no text, a broken character, is shown to the assistant and not put to it.
        judged = text.encode() == word
        for token, end in zip(ids, ends, strict=True):
            if judged and begin >= after and start + end > begin:
                self.places.append(TokenPosition(begin, start + end, token, len(self.ids)))
            self.ids.append(token)
            begin = start + end

    def _offset(self, length: int) -> int:
        """The offset of the last place that begins with so many ids read, or fewer."""
        at = bisect_right(self.places, length, key=lambda place: place.length)
        return self.places[at - 1].start if at else 0

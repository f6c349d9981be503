"""The text in one assistant's tokens, encoded word by word."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cosd_core.cross_tokenizer.tokenizer_view import TokenizerView
from cosd_core.cross_tokenizer.word_boundaries import END
from cosd_core.sampling.sampler import Sampler, SamplingPosition

NumWritten = Callable[[int], int]
"""How many tokens of the draft's end at an offset of the text or before it."""


@dataclass(frozen=True, slots=True)
class TokenPosition:
    """Where one of the assistant's tokens begins in the text.

    Attributes:
        start: The offset of its first byte.
        end: The offset behind its last byte.
        id: The token, or None at the end of the text.
        length: How many ids precede it, the prompt's included.
    """

    start: int
    end: int
    id: int | None
    length: int


class RetokenizedText:
    """A text in the tokens of one assistant.

    A word is encoded once it is complete, and stays encoded once it is decided. So a token costs the same
    wherever in the text it stands.

    Attributes:
        view: The assistant's tokens.
        ids: The prompt and the words encoded so far.
        starts: The tokens at which the assistant's prediction is compared with the draft's text.
    """

    def __init__(
        self, prompt: Sequence[int], view: TokenizerView, names: frozenset[str], sampler: Sampler
    ) -> None:
        """Begin after a prompt in the assistant's tokens; special tokens of ``names`` belong to the text."""
        self.view = view
        self.ids = list(prompt)
        self.starts: list[TokenPosition] = []
        self._prompt_length = len(prompt)
        self._names = names
        self._sampler = sampler
        self._decided = (0, len(prompt))  # the end of the last decided word, and the ids up to there
        self._undecided: list[tuple[int, int]] = []  # the same of every later word

    def encode(self, text: bytes | bytearray, cuts: Sequence[int], after: int) -> None:
        """Encode a text up to its last cut; :attr:`starts` are the tokens that begin not before ``after``."""
        start, length = self._decided
        del self.ids[length:]
        self.starts, self._undecided = [], []
        for end in cuts[bisect_right(cuts, start) :]:
            self._encode_word(bytes(text[start:end]), start, after)
            self._undecided.append((end, len(self.ids)))
            start = end

    def keep_until(self, offset: int) -> None:
        """Keep the words that end at an offset or before it: they need not be encoded again."""
        ended = (word for word in self._undecided if word[0] <= offset)
        self._decided = max(ended, default=self._decided)
        self._undecided = []

    def positions(self, num_written: NumWritten) -> list[SamplingPosition]:
        """Where the assistant's predictions are needed: from the first start to one behind all ids."""
        if not self.starts:
            return []
        return [
            self._position(self.ids, length, num_written(self._offset(length)))
            for length in range(self.starts[0].length, len(self.ids) + 1)
        ]

    def continuation(
        self, start: TokenPosition, written: Sequence[int], num_written: NumWritten
    ) -> SamplingPosition:
        """Where the assistant goes on behind tokens of its own that begin at ``start``."""
        ids = [*self.ids[: start.length], *written]
        return self._position(ids, len(ids), num_written(start.start))

    def can_continue(self, position: SamplingPosition) -> bool:
        """Whether the text goes on at a position and the assistant's window admits it."""
        fits = self.view.window is None or position.length <= self.view.window
        return fits and not position.is_over

    def comparable_bytes(self, token_id: int) -> bytes:
        """The bytes by which one of the assistant's tokens is compared."""
        return self.view.comparable_bytes(token_id, self._names)

    @property
    def visible_ids(self) -> list[int]:
        """The ids, as many as the assistant's window admits."""
        return self.ids[: self.view.window] if self.is_too_long else self.ids

    @property
    def is_too_long(self) -> bool:
        """Whether there are more ids than the assistant's window admits."""
        return self.view.window is not None and len(self.ids) > self.view.window

    def _position(self, ids: Sequence[int], length: int, num_written: int) -> SamplingPosition:
        return SamplingPosition(self._sampler, ids, self._prompt_length, length, num_written)

    def _encode_word(self, word: bytes, start: int, after: int) -> None:
        if word == END:
            if start >= after:
                self.starts.append(TokenPosition(start, start + 1, None, len(self.ids)))
            return
        text = word.decode("utf-8", "replace")
        ids, ends = self.view.encode(text, self._names)
        begin = start
        is_utf8 = text.encode() == word  # a broken character is encoded, but not compared
        for token, end in zip(ids, ends, strict=True):
            if is_utf8 and begin >= after and start + end > begin:
                self.starts.append(TokenPosition(begin, start + end, token, len(self.ids)))
            self.ids.append(token)
            begin = start + end

    def _offset(self, length: int) -> int:
        """The offset of the last start that has so many ids before it, or fewer."""
        at = bisect_right(self.starts, length, key=lambda start: start.length)
        return self.starts[at - 1].start if at else 0

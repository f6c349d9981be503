"""The text as the draft writes it: its tokens as spans of bytes."""

from bisect import bisect_right
from itertools import pairwise
from math import prod

from cosd_core.cross_tokenizer.word_boundaries import word_ends
from cosd_core.prediction import Prediction


class DraftText:
    """A text, and the draft tokens at its end that are not decided.

    Offsets are counted in bytes from the beginning of the text.

    Attributes:
        text: The decided text and the undecided tokens' bytes.
        tokens: The undecided draft tokens, in order.
        ends: The offset at which each of them ends.
        cuts: The offsets at which words, replacements and the texts before replacements end. The text before
            the last cut does not change any more; a token may reach beyond it.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self.tokens: list[Prediction] = []
        self.ends: list[int] = []
        self.cuts = [0]
        self._begin = 0

    @property
    def decided(self) -> int:
        """The last cut."""
        return self.cuts[-1]

    def add(self, token: Prediction, token_bytes: bytes) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.text += token_bytes
        self.ends.append(len(self.text))

    def cut(self, *offsets: int) -> None:
        """Add cuts; those that are not behind the last one are left out."""
        self.cuts += [after for before, after in pairwise([self.decided, *offsets]) if after > before]

    def settle(self, count: int) -> None:
        """Remove the first tokens: they are decided, or replaced."""
        if count:
            self._begin = self.ends[count - 1] if count < len(self.tokens) else len(self.text)
        del self.tokens[:count], self.ends[:count]

    def drop(self) -> int:
        """Remove the tokens that begin behind the last cut, and their text; returns how many there were."""
        kept = sum(self.begin(at) < self.decided for at in range(len(self.tokens)))
        dropped = len(self.tokens) - kept
        del self.text[self.begin(kept) :], self.tokens[kept:], self.ends[kept:]
        return dropped

    def begin(self, at: int) -> int:
        """The offset at which a token begins; behind the last token, that of the next one."""
        return self.ends[at - 1] if at else self._begin

    def count_before(self, offset: int) -> int:
        """How many tokens end at an offset or before it."""
        return bisect_right(self.ends, offset)

    def overlapping(self, start: int, end: int) -> list[Prediction]:
        """The tokens that overlap a span of the text."""
        spans = enumerate(zip(self.tokens, self.ends, strict=True))
        return [token for at, (token, last) in spans if last > start and self.begin(at) < end]

    def confidence(self, start: int, end: int) -> float:
        """P of a span: the product over the tokens that overlap it."""
        return prod(token.confidence for token in self.overlapping(start, end))

    def token_at(self, start: int, end: int) -> Prediction | None:
        """The token of exactly this span, if there is one."""
        at = self.count_before(start)
        same = at < len(self.tokens) and (self.begin(at), self.ends[at]) == (start, end)
        return self.tokens[at] if same else None

    def word_ends(self, *, final: bool) -> list[int]:
        """Where the complete words behind the last cut end; if nothing follows the text, all are complete."""
        ends = list(word_ends(self.text, self.decided))
        if final and len(self.text) > max(self.decided, *ends, 0):
            ends.append(len(self.text))
        return ends

"""The draft's tokens as parts of a text: which of them lie where, and how sure the draft was of them."""

from bisect import bisect_right
from itertools import pairwise

from cosd_core.cross_tokenizer.word_boundaries import word_ends
from cosd_core.prediction import Prediction


class DraftText:
    """A text, and those of the draft's tokens at its end that are not settled.

    Offsets are counted in bytes from the beginning of the text.

    Attributes:
        text: What stands, and the tokens.
        tokens: The draft's, in their order.
        ends: Where each of them ends.
        cuts: Where words end, and where replacements begin and end. Before the last cut nothing changes any
            more; a token may reach beyond it.
    """

    def __init__(self) -> None:
        self.text = bytearray()
        self.tokens: list[Prediction] = []
        self.ends: list[int] = []
        self.cuts = [0]
        self._begin = 0

    @property
    def judged(self) -> int:
        """The last cut."""
        return self.cuts[-1]

    def add(self, token: Prediction, spelt: bytes) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.text += spelt
        self.ends.append(len(self.text))

    def cut(self, *places: int) -> None:
        """Settle the text up to these offsets; those before the last cut do not count."""
        self.cuts += [place for before, place in pairwise([self.judged, *places]) if place > before]

    def settle(self, count: int) -> None:
        """The first tokens stand, or others stand in their place."""
        if count:
            self._begin = self.ends[count - 1] if count < len(self.tokens) else len(self.text)
        del self.tokens[:count], self.ends[:count]

    def drop(self) -> int:
        """Throw away the tokens that begin after the last cut, and return how many there were."""
        kept = sum(begin < self.judged for begin in (self.begin(at) for at in range(len(self.tokens))))
        dropped = len(self.tokens) - kept
        del self.text[self.begin(kept) :], self.tokens[kept:], self.ends[kept:]
        return dropped

    def begin(self, at: int) -> int:
        """Where a token begins, or would, behind the last."""
        return self.ends[at - 1] if at else self._begin

    def before(self, offset: int) -> int:
        """How many tokens end by an offset."""
        return bisect_right(self.ends, offset)

    def reaching(self, start: int, end: int) -> list[Prediction]:
        """The tokens that reach into a part of the text."""
        places = enumerate(zip(self.tokens, self.ends, strict=True))
        return [token for at, (token, last) in places if last > start and self.begin(at) < end]

    def token_at(self, start: int, end: int) -> Prediction | None:
        """The token of exactly this extent, if there is one."""
        at = self.before(start)
        same = at < len(self.tokens) and (self.begin(at), self.ends[at]) == (start, end)
        return self.tokens[at] if same else None

    def word_ends(self, *, final: bool) -> list[int]:
        """Where the words behind the last cut end that are whole; if nothing follows the text, all are."""
        ends = list(word_ends(self.text, self.judged))
        if final and len(self.text) > max(self.judged, *ends, 0):
            ends.append(len(self.text))
        return ends

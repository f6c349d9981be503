"""The complete words of a block: which an assistant could change, and which fit every assistant's window."""

from collections.abc import Callable, Sequence
from math import prod

from cosd_core.cross_tokenizer.draft_text import DraftText
from cosd_core.cross_tokenizer.retokenizer import RetokenizedText


class BlockWords:
    """The complete words behind the decided text.

    Attributes:
        window_end: The offset of the first replaceable word that a window does not admit, or None. The text
            cannot go on there.
    """

    def __init__(
        self,
        draft_text: DraftText,
        retokenized: Sequence[RetokenizedText],
        can_replace: Callable[[float], bool],
    ) -> None:
        """Begin with an empty block.

        Args:
            draft_text: What the draft writes.
            retokenized: The text in each assistant's tokens.
            can_replace: Whether the verifier could replace a text of this confidence.
        """
        self.window_end: int | None = None
        self._draft_text = draft_text
        self._retokenized = retokenized
        self._can_replace = can_replace

    def ends(self, *, final: bool) -> list[int]:
        """Where the words end; if nothing follows the block, its last word is complete, too."""
        ends = self._draft_text.word_ends(final=final)
        return ends if self.window_end is None else [end for end in ends if end <= self.window_end]

    def num_replaceable(self, *, final: bool) -> int:
        """How many words an assistant could change."""
        ends = self.ends(final=final)
        return sum(map(self._is_replaceable, [self._draft_text.decided, *ends], ends))

    def encode(self, *, final: bool) -> bool:
        """Encode the words that all windows admit, and return whether there are any.

        Later words stand up to the first that an assistant could still replace: so a text ends at the same
        word for any division into blocks.
        """
        draft_text, ends = self._draft_text, self.ends(final=final)
        begins = [draft_text.decided, *ends]
        for fitting in range(len(ends), -1, -1):
            for each in self._retokenized:
                each.encode(draft_text.text, [*draft_text.cuts, *ends[:fitting]], draft_text.decided)
            if not any(each.is_too_long for each in self._retokenized):
                break
        beyond = zip(begins[fitting:], ends[fitting:], strict=False)
        self.window_end = next((begin for begin, end in beyond if self._is_replaceable(begin, end)), None)
        return fitting > 0

    def _is_replaceable(self, begin: int, end: int) -> bool:
        """Whether an assistant could change a word, whichever span of it and of what follows it replaces."""
        own = [token.confidence for token in self._draft_text.overlapping(begin, end + 1)]
        spans = (
            prod(own[first:last]) for first in range(len(own)) for last in range(first + 1, len(own) + 1)
        )
        return any(map(self._can_replace, spans))

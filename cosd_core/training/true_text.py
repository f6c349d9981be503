"""A true text in place of a verifier: it notes what models would write, and replaces what is not true."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cosd_core.cross_tokenizer.retokenizer import TokenPosition
from cosd_core.cross_tokenizer.verification import (
    BlockVerification,
    ReplacementCandidate,
    TextEdit,
    Verification,
)
from cosd_core.cross_tokenizer.word_boundaries import continues_word
from cosd_core.errors import TrainingDataError
from cosd_core.generation.requests import Request
from cosd_core.utils import agreed_prefix
from cosd_core.verifiers.base import Verifier
from cosd_core.verifiers.types import Position, Replacement

RIGHT, WRONG, OTHER = 0, 1, 2
"""What :class:`Observations` hold in place of tokens: the true text, the draft's wrong one, another."""


@dataclass(eq=False)
class TrueText(Verifier):
    """The true continuation of one prompt, and what the models would have written in it.

    Attributes:
        number: The example's number.
        request: Its prompt.
        text: The continuation, with :data:`END` if it ends there.
        cut: Whether a context window admits only its beginning.
        seen: Per position and assistant: the assistant, p, q, and what x and y are.
    """

    number: int
    request: Request
    text: bytes
    cut: bool
    seen: list[tuple[int, float, float, int, int]] = field(default_factory=list)

    name = "true text"

    def judge(self, position: Position) -> Replacement | None:
        """Never called: whole texts are compared, by :class:`TrueVerification`."""
        raise NotImplementedError


class TrueVerification(BlockVerification):
    """Replaces the draft's text where the true text differs."""

    _verifier: TrueText

    def run(self, word_ends: Sequence[int]) -> Verification:
        """As :meth:`BlockVerification.run`; also corrects words that are no valid text."""
        edit = yield from super().run(word_ends)
        return edit or self._correction(self._difference(word_ends[-1]), word_ends[-1])

    def _decide(self, candidates: Sequence[ReplacementCandidate], word: range) -> Verification:
        """Note what the models would write at a position whose text before is true."""
        yield from ()  # no assistant is asked for more
        start = candidates[0].start.start
        if (difference := self._difference(start)) < start:  # in a word without positions: it is no text
            return self._correction(difference, start)
        if rest := self._verifier.text[start:]:
            for each in candidates:
                self._verifier.seen.append(
                    (each.assistant, each.p, each.q, *self._outcomes(each, rest, word))
                )
        others = (each.start for view in self._retokenized for each in view.starts if each.start > start)
        return self._correction(start, min([*others, word.stop]))

    def _outcomes(self, candidate: ReplacementCandidate, rest: bytes, word: range) -> tuple[int, int]:
        """What x and y of a candidate are, beside the true text from there on."""
        begin, end = candidate.start.start, candidate.start.end
        token = self._draft_text.token_at(begin, end)
        drafted = bytes(self._draft_text.text[begin : word.stop + 1])
        x = drafted[: end - begin] if token else drafted[: len(candidate.text)]
        draft = RIGHT if rest.startswith(x[: len(rest)]) else WRONG
        if candidate.agrees:
            return draft, draft
        right = draft == WRONG and rest.startswith(candidate.text[: len(rest)])
        return draft, RIGHT if right else OTHER

    def _difference(self, end: int) -> int:
        """The first offset before ``end`` at which the draft's text is not the true one, or ``end``."""
        decided = self._draft_text.decided
        return decided + agreed_prefix(self._draft_text.text[decided:end], self._verifier.text[decided:])

    def _correction(self, start: int, end: int) -> TextEdit | None:
        """The edit from an offset on, if the draft's text up to ``end`` is not the true one."""
        truth = self._verifier.text
        drafted = bytes(self._draft_text.text[start:end])
        same = agreed_prefix(drafted, truth[start:])
        if same == len(drafted):
            return None
        written = truth[start : _completed(truth, start + same)]
        here = TokenPosition(start, start + 1, None, 0)
        edit = self._edit(ReplacementCandidate(0, here, (0,), written, 0.0, 0.0, agrees=False), written)
        if edit is None:  # the draft has no tokens for the true text
            raise TrainingDataError(
                f"example {self._verifier.number}: the draft's tokenizer cannot represent the completion"
            )
        return replace(edit, ends=edit.ends or start + len(written) == len(truth))


def _completed(truth: bytes, at: int) -> int:
    """Where a replacement ends that holds the byte at an offset: at the end of a character and of a word."""
    end = at + 1
    while end < len(truth) and (
        truth[end] & 0xC0 == 0x80
        or continues_word(
            truth[max(end - 4, 0) : end].decode("utf-8", "ignore"),
            truth[end : end + 4].decode("utf-8", "ignore"),
        )
    ):
        end += 1
    return min(end, len(truth))

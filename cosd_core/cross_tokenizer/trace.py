"""Traces of a block whose assistants have other tokens: one entry per token of the draft's vocabulary."""

from collections.abc import Iterator, Sequence

from cosd_core.cross_tokenizer.draft_text import DraftText
from cosd_core.cross_tokenizer.tokenizer_view import TokenizerView
from cosd_core.cross_tokenizer.verification import ReplacementCandidate, TextEdit
from cosd_core.cross_tokenizer.word_boundaries import END
from cosd_core.generation.detokenizer import TextBuffer
from cosd_core.outputs import TracedToken
from cosd_core.prediction import Opinions, Prediction


class BlockTrace:
    """Pushes the tokens of a block into the text, and records where each comes from."""

    def __init__(
        self,
        draft_text: DraftText,
        candidates: Sequence[ReplacementCandidate],
        draft: TokenizerView,
        names: frozenset[str],
    ) -> None:
        """Trace a block.

        Args:
            draft_text: What the draft wrote.
            candidates: What the assistants would have written.
            draft: The draft's tokens.
            names: The names of special tokens that are part of the text.
        """
        self._draft_text = draft_text
        self._candidates = candidates
        self._draft = draft
        self._names = names

    def opinions(self, at: int) -> Opinions | None:
        """The assistants' predictions within a token of the block, or None where there are none."""
        candidates = self._within(at)
        return tuple(Prediction(each.ids[0], each.q) for each in candidates) if candidates else None

    def kept(self, at: int, buffer: TextBuffer) -> TracedToken:
        """A token of the block that stands."""
        token = self._draft_text.tokens[at]
        # Of several the most confident of those that disagree.
        candidate = max(self._within(at), key=lambda each: (not each.agrees, each.q), default=None)
        disagrees = candidate is not None and not candidate.agrees
        return TracedToken(
            id=token.id,
            text=buffer.push(self._draft.text_bytes(token.id, self._names)),
            source="draft",
            assistant_index=candidate.assistant if candidate else None,
            p=candidate.p if candidate and disagrees else token.confidence,
            q=candidate.q if candidate else None,
            draft_id=token.id,
            assistant_id=candidate.ids[0] if candidate else None,
            other_text=self._show(candidate.text) if candidate and disagrees else None,
        )

    def edited(self, edit: TextEdit, buffer: TextBuffer) -> Iterator[TracedToken]:
        """The tokens of an edit, as they are written in place of the draft's text.

        The first may hold only bytes that the draft wrote itself.
        """
        candidate, draft_text = edit.candidate, self._draft_text
        replaced = draft_text.tokens[draft_text.count_before(candidate.start.start)]
        other_text = self._show(self._replaced_text(candidate))
        del draft_text.text[draft_text.begin(edit.kept) :]
        for token_id, piece in zip(edit.ids, edit.pieces, strict=True):
            draft_text.text += piece
            text = buffer.push(piece)
            is_end = token_id == self._draft.eos_token_id
            if len(draft_text.text) <= candidate.start.start and not is_end:
                yield TracedToken(
                    token_id, text, "draft", None, replaced.confidence, None, token_id, None, None
                )
                continue
            yield TracedToken(
                id=token_id,
                text=text,
                source="assistant",
                assistant_index=candidate.assistant,
                p=candidate.p,
                q=candidate.q,
                draft_id=replaced.id,
                assistant_id=candidate.ids[0],
                other_text=other_text,
            )
            other_text = ""  # the first token of a replacement shows it

    def _replaced_text(self, candidate: ReplacementCandidate) -> bytes:
        """The draft's text that a candidate replaces, in whole characters."""
        text, start, end = self._draft_text.text, candidate.start.start, candidate.start.end
        if not self._draft_text.token_at(start, end):
            end = start + len(candidate.text)
            while end < len(text) and text[end] & 0xC0 == 0x80:
                end += 1
        return bytes(text[start:end])

    def _show(self, text: bytes) -> str:
        """Bytes as text; the end of the text by the name of the draft's end token, or by its characters."""
        shown = text.removesuffix(END).decode("utf-8", "replace")
        end = self._draft.eos_token_id
        if not text.endswith(END) or end is None:
            return shown
        vocabulary = self._draft.vocabulary
        return shown + (vocabulary.name(end) or vocabulary.bytes_of(end).decode("utf-8", "replace"))

    def _within(self, at: int) -> list[ReplacementCandidate]:
        """The candidates that begin within a token of the block."""
        span = range(self._draft_text.begin(at), self._draft_text.ends[at])
        return [each for each in self._candidates if each.start.start in span]

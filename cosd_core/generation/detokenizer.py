"""From committed tokens to text: UTF-8 safe, one token at a time, with stop strings that never leak."""

import codecs
from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol, Self, cast

from transformers import PreTrainedTokenizerBase

from cosd_core.generation.stop_automaton import stop_automaton

_CONTEXT = 4
"""Tokens decoded again before new ones, so that a token's leading space is kept."""

_LOST = "\N{REPLACEMENT CHARACTER}"
_LONGEST_UNFINISHED = 3
"""Bytes: a UTF-8 character has at most four."""


class IncrementalDecoder(Protocol):
    """Turns tokens, or their bytes, into text, one after another."""

    def push(self, token: Any) -> str:
        """The text that is final with this token."""

    def peek(self, token: Any) -> str:
        """The text that another token would add."""

    def flush(self) -> str:
        """The text that is still held back; it ends here."""

    def copy(self) -> Self:
        """One that goes on from here by itself."""


class ByteDetokenizer:
    """Turns pieces of UTF-8 into text; an unfinished character is held back until it is whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: bytes) -> str:
        """The text that is final with these bytes."""
        return self._decoder.decode(token)

    def peek(self, token: bytes) -> str:
        """The text that other bytes would add, unfinished characters included."""
        before, _ = self._decoder.getstate()
        return (before + token).decode("utf-8", "replace")

    def flush(self) -> str:
        """The text that is still held back, as replacement characters; it ends here."""
        return self._decoder.decode(b"", final=True)

    def copy(self) -> "ByteDetokenizer":
        """One that goes on from here by itself."""
        copied = ByteDetokenizer()
        copied._decoder.setstate(self._decoder.getstate())
        return copied


class Detokenizer:
    """Turns token ids into text pieces whose concatenation is the decoded text.

    A piece is the text that a token adds to the decoding of the tokens before it. While the text ends in an
    unfinished UTF-8 character, that end is held back.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_ids: Sequence[int],
        visible: frozenset[int] = frozenset(),
    ) -> None:
        """Begin after a prompt. Special tokens are left out, except those that are ``visible``."""
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items() if visible else ()
        self._hidden = frozenset(at for at, token in added if token.special) - visible
        self._shows_special = bool(visible)
        self._window: list[int] = []
        self._shown = ""
        self._held = 0
        self._begin(list(prompt_ids))

    def push(self, token_id: int) -> str:
        """The text that is final with this token."""
        self._window.append(token_id)
        text = self._decode(self._window)
        trailing = len(text) - len(text.rstrip(_LOST))
        if trailing and self._ends_in_lost_character():
            trailing = 0
        self._held = self._held + 1 if trailing else 0
        if self._held > _LONGEST_UNFINISHED:  # too long for an unfinished character: the bytes are not UTF-8
            trailing = min(trailing, _LONGEST_UNFINISHED)
        if not trailing and not text.startswith(self._shown):  # a character that the prompt began is complete
            self._shown = self._shown.rstrip(_LOST)
        piece = text[len(self._shown) : len(text) - trailing]
        self._shown += piece
        if not trailing and len(self._window) > 4 * _CONTEXT:
            self._begin(self._window)
        return piece

    def peek(self, token_id: int) -> str:
        """The text that another token would add: unfinished characters too, special tokens by their names."""
        piece = self._decode([*self._window, token_id])[len(self._shown) :]
        return piece or cast(str, self._tokenizer.convert_ids_to_tokens(token_id) or "")

    def flush(self) -> str:
        """The text that is still held back, replacement characters included; it ends here."""
        text = self._decode(self._window)
        piece = text[len(self._shown) :]
        self._shown = text
        return piece

    def copy(self) -> Self:
        """One that goes on from here by itself."""
        copied = copy(self)
        copied._window = list(self._window)
        return copied

    def _begin(self, ids: list[int]) -> None:
        """Keep the last tokens as context: more of them until their decoding is text."""
        length = _CONTEXT
        while length < min(len(ids), 64) and not self._is_text(ids[-length:]):
            length += 1
        self._window, self._held = ids[-length:], 0
        self._shown = self._decode(self._window)

    def _ends_in_lost_character(self) -> bool:
        """Whether the last three tokens are the bytes of the replacement character itself, which is whole.

        Tokenizers with byte tokens decode each byte of an unfinished character to one of it.
        """
        last = self._window[-3:]
        return self._decode(last) == _LOST and self._decode(last[:2]) == 2 * _LOST

    def _is_text(self, ids: list[int]) -> bool:
        text = self._decode(ids)
        return bool(text) and _LOST not in text

    def _decode(self, ids: list[int]) -> str:
        if self._shows_special:
            ids = [token for token in ids if token not in self._hidden]
        text = self._tokenizer.decode(
            ids, skip_special_tokens=not self._shows_special, clean_up_tokenization_spaces=False
        )
        return cast(str, text)


class TextBuffer:
    """The text of one generation: it takes tokens, finds stop strings and releases what can no longer change.

    Attributes:
        text: Everything decoded so far, cut before the stop sequence once one was found.
        stop_sequence: The stop string that ended the text, or None.
    """

    def __init__(self, detokenizer: IncrementalDecoder, stop: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._automaton = stop_automaton(tuple(stop))
        self._state = 0
        self._released = 0
        self.text = ""
        self.stop_sequence: str | None = None

    def push(self, token: int | bytes) -> str:
        """Take one token, its id or its bytes as the detokenizer takes it, and return the text it adds."""
        piece = self._detokenizer.push(token)
        self._append(piece)
        return piece

    def peek(self, token: int | bytes) -> str:
        """The text that another token would add."""
        return self._detokenizer.peek(token)

    def close(self) -> str:
        """End the text and return the piece of an unfinished character that was held back."""
        piece = self._detokenizer.flush() if self.stop_sequence is None else ""
        self._append(piece)
        return piece

    def release(self, *, final: bool = False) -> str:
        """The text since the last release that no stop string can cut any more; all of it if final."""
        end = len(self.text)
        if not final and self.stop_sequence is None:
            end -= self._automaton.depth[self._state]
        released = self.text[self._released : end]
        self._released = max(self._released, end)
        return released

    def copy(self) -> Self:
        """One that goes on from here by itself."""
        copied = copy(self)
        copied._detokenizer = self._detokenizer.copy()
        return copied

    def _append(self, piece: str) -> None:
        end = len(self.text)
        self.text += piece
        # The stop string that is complete first ends the text, for any division into tokens.
        for character in piece:
            end += 1
            self._state = self._automaton.step(self._state, character)
            if length := self._automaton.found[self._state]:
                self.stop_sequence = self.text[end - length : end]
                self.text = self.text[: end - length]
                return

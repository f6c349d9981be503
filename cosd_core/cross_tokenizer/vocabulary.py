"""The tokens of one tokenizer as bytes, and the encoding of a text that continues another."""

import json
import re
from copy import deepcopy
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import VocabularyMismatchError, quoted

Encoded: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids, and for each the byte of the text at which it ends."""
Spans: TypeAlias = list[tuple[int, int]]
"""For each token the first character it stands for, and the one after its last."""

_ANCHORS = ("\n", ".", ")", "a", "1")
"""Texts put before another to encode it as a continuation. Letters come last: they join the next word."""
_LOST = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_CACHED = 65_536
_LONGEST_CACHED = 64
"""In characters. Words are encoded often, whole texts once."""
_NO_LIMIT = 10**9


class Vocabulary:
    """The tokens of one tokenizer as bytes, and the encoding of a text that continues another.

    It uses a copy of the tokenizer, which it does not change, and may be used by many threads.

    Attributes:
        size: How many token ids the model scores and the tokenizer knows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
        """Read a tokenizer.

        Raises:
            VocabularyMismatchError: It changes ordinary text and gives no offsets, or lacks an attribute of
                tokenizers.
        """
        self.size = size
        self._name = tokenizer.name_or_path or type(tokenizer).__name__
        try:
            backend = getattr(tokenizer, "backend_tokenizer", None)
            self._backend = (
                _FastBackend(backend) if isinstance(backend, Tokenizer) else _SlowBackend(tokenizer)
            )
            added = tokenizer.added_tokens_decoder
        except Exception as error:  # parts cannot be copied, or tokens have no names
            raise VocabularyMismatchError(
                f"tokenizer {self._name!r} does not give the text of its tokens: {quoted(error)}; models "
                "with different tokenizers need those of the tokenizers library (use_fast=True)"
            ) from error
        self._added = {at: str(token.content) for at, token in added.items()}
        specials = {at for at, token in added.items() if token.special}
        self._special_ids = specials | set(tokenizer.all_special_ids) | self._backend.unknown
        self._bytes: dict[int, bytes] = {}
        self._encode_cached = lru_cache(_CACHED)(self._encode)
        self.encode("The (quick) fox's 37\n  hats")  # so that it is refused now, not in the middle of a text

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text: `b" Paris"`, `b"ing"`, or one byte of a character.

        Empty for special tokens, the unknown token, and ids that the tokenizer does not know.
        """
        if (known := self._bytes.get(token_id)) is None:
            known = self._bytes[token_id] = self._token_bytes(token_id)
        return known

    def name(self, token_id: int) -> str:
        """The name of a special or added token; empty for any other."""
        return self._added.get(token_id, "")

    def encode(self, text: str, *, specials: bool = False) -> Encoded:
        """The tokens of a text that continues another, and the offsets in its bytes at which they end.

        Nothing is put before the text, neither a beginning-of-sequence token nor a space. The offsets never
        decrease, and the last is the length of the text. Characters that the tokenizer changes or drops
        belong to the next token that has any, and those at the end of the text to the last.

        Args:
            text: It should begin where a word, a space or a line may begin.
            specials: Whether names of special tokens become these tokens, instead of being split as text.

        Raises:
            VocabularyMismatchError: The tokenizer changes the text and gives no offsets, or uses a token that
                its model does not have.
        """
        return (self._encode_cached if len(text) <= _LONGEST_CACHED else self._encode)(text, specials)

    @cached_property
    def without_text(self) -> frozenset[int]:
        """The ids that add no text: special tokens, the unknown token, padding, and gaps in the numbering."""
        return frozenset(token for token in range(self.size) if not self.bytes_of(token))

    def _encode(self, text: str, specials: bool) -> Encoded:
        ids, ends = self._continuation(text, specials)
        if ids and max(ids) >= self.size:
            raise VocabularyMismatchError(
                f"tokenizer {self._name!r} writes {quoted(text)} with token {max(ids)}, which its model does "
                f"not have: it scores {self.size}"
            )
        cuts = [] if specials else self._cuts(text, ids, ends)
        return self._encode_parts(text, cuts) if cuts else (tuple(ids), tuple(ends))

    def _cuts(self, text: str, ids: list[int], ends: list[int]) -> list[int]:
        """Where to cut a text such as "</s>" that became the token of that name, which Unigram allows."""
        raw, cuts = text.encode(), []
        for token, (start, end) in zip(ids, pairwise([0, *ends]), strict=True):
            name = self._names.get(token, "")
            if len(name) > 1 and raw[start:end].endswith(name.encode()):
                cuts.append(len(raw[:end].decode()) - len(name) + 1)
        return cuts

    def _encode_parts(self, text: str, cuts: list[int]) -> Encoded:
        ids: list[int] = []
        ends: list[int] = []
        done = 0
        for start, end in pairwise([0, *cuts, len(text)]):
            more_ids, more_ends = self._encode(text[start:end], False)
            ids += more_ids
            ends += [done + at for at in more_ends]
            done += len(text[start:end].encode())
        return tuple(ids), (*ends[:-1], done) if ends else ()

    def _continuation(self, text: str, specials: bool) -> tuple[list[int], list[int]]:
        for anchor, known in self._anchors:
            ids, spans = self._backend.encode(anchor + text, specials)
            if ids[: len(known)] == known:
                ends = self._ends(text, ids[len(known) :], spans, anchor)
                if ends is not None:
                    return ids[len(known) :], ends
        ids, spans = self._backend.encode(text, specials)
        ends = self._ends(text, ids, spans, "")
        if ends is None:
            raise VocabularyMismatchError(
                f"tokenizer {self._name!r} changes text and gives no offsets, as in {quoted(text)}; "
                "models with different tokenizers need fast ones (use_fast=True) or such that keep every byte"
            )
        return ids, ends

    def _ends(self, text: str, ids: list[int], spans: Spans | None, anchor: str) -> list[int] | None:
        """The offsets at which the tokens end, or None if the anchor's end is inside a token or unknown."""
        pieces = [self.bytes_of(token) for token in ids]
        if b"".join(pieces) == text.encode():
            return list(accumulate(map(len, pieces)))
        if spans is None:
            return None
        before, spans = spans[: len(spans) - len(ids)], spans[len(spans) - len(ids) :]
        if any(end > len(anchor) for _, end in before):
            return None  # an unknown token covers the anchor and what follows
        sizes = [0, *accumulate(len(character.encode()) for character in text)]
        ends = list(accumulate((sizes[end - len(anchor)] for _, end in spans), max))
        return [*ends[:-1], sizes[-1]] if ends else []

    @cached_property
    def _anchors(self) -> list[tuple[str, list[int]]]:
        """The anchors that the tokenizer has tokens for, and these."""
        encoded = [(anchor, self._backend.encode(anchor, specials=False)[0]) for anchor in _ANCHORS]
        return [(anchor, ids) for anchor, ids in encoded if ids]

    @cached_property
    def _names(self) -> dict[int, str]:
        """Tokens whose name is not their text: special ones, and single bytes."""
        names = {at: self._backend.token(at) for at in self._special_ids}
        if self._backend.falls_back_to_bytes:
            names |= {at: name for at in range(self.size) if _is_byte(name := self._backend.token(at))}
        return {at: name for at, name in names.items() if isinstance(name, str)}

    def _token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special_ids:
            return b""
        token = self._backend.token(token_id)
        if not token or isinstance(token, bytes):
            return token or b""
        if self._backend.byte_map:
            values = [self._backend.byte_map.get(character) for character in token]
            whole = bytes(value for value in values if value is not None)
            return token.encode() if token_id in self._backend.added or None in values else whole
        if self._backend.falls_back_to_bytes and _is_byte(token):
            return bytes([int(token[3:5], 16)])
        return self._bytes_in_context(token_id, token)

    def _bytes_in_context(self, token_id: int, token: str) -> bytes:
        """The text that a token adds behind another: the tokenizer itself decodes its markers of spaces."""
        before, decoded = self._context
        piece = self._backend.decode([*before, token_id])
        piece = piece[len(decoded) :] if piece.startswith(decoded) else self._backend.decode([token_id])
        # A part of a character whose bytes are not known cannot be distinguished from any other part.
        return b"" if _LOST in piece and _LOST not in token else piece.encode()

    @cached_property
    def _context(self) -> tuple[list[int], str]:
        for anchor in ("a", "1", "."):
            ids = self._backend.encode(anchor, specials=False)[0]
            if (decoded := self._backend.decode(ids)) and _LOST not in decoded:
                return ids, decoded
        return [], ""


class _FastBackend:
    """A tokenizer of the `tokenizers` library.

    Attributes:
        byte_map: The byte that each character of a token represents; empty if its tokens are not byte-level.
        falls_back_to_bytes: Whether characters without a token become tokens of single bytes.
        added: Tokens beyond the learned vocabulary, plain text. Some families add learned pieces again.
        unknown: The id of the unknown token, if there is one.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._splitting = _copy(backend)
        self._splitting.encode_special_tokens = True
        steps = _steps(backend.decoder)
        self.byte_map = _byte_level() if "ByteLevel" in steps else {}
        self.falls_back_to_bytes = "ByteFallback" in steps
        pieces = backend.get_vocab(with_added_tokens=False)
        self.added = set(backend.get_added_tokens_decoder()) - set(pieces.values())
        unknown = getattr(backend.model, "unk_token", None)
        self.unknown = {pieces[unknown]} if unknown in pieces else set()

    @cached_property
    def _naming(self) -> Tokenizer:
        return _copy(self._splitting)

    def encode(self, text: str, specials: bool) -> tuple[list[int], Spans | None]:
        encoding = (self._naming if specials else self._splitting).encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: list[int]) -> str:
        return self._splitting.decode(ids, skip_special_tokens=False)

    def token(self, token_id: int) -> str | None:
        return self._splitting.id_to_token(token_id) if token_id >= 0 else None


class _SlowBackend:
    """The same for a tokenizer written in Python, which gives no offsets."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = deepcopy(tokenizer)
        self._tokenizer.model_max_length = _NO_LIMIT
        self._names = {at: token for token, at in self._tokenizer.get_vocab().items()}
        self.byte_map: dict[str, int] = dict(getattr(self._tokenizer, "byte_decoder", {}))
        self.falls_back_to_bytes = "<0x00>" in self._names.values()
        self.added = set(self._tokenizer.added_tokens_decoder)
        self.unknown: set[int] = set()

    def encode(self, text: str, specials: bool) -> tuple[list[int], Spans | None]:
        ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not specials)
        return list(ids), None

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def token(self, token_id: int) -> str | bytes | None:
        return self._names.get(token_id)


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    """A copy without truncation and padding."""
    copied = Tokenizer.from_str(tokenizer.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


def _is_byte(token: str | bytes | None) -> bool:
    return isinstance(token, str) and _BYTE.fullmatch(token) is not None


def _steps(decoder: Any) -> set[str]:
    """The types of a decoder's steps."""
    if decoder is None:
        return set()
    content = json.loads(decoder.__getstate__())
    return {step["type"] for step in content.get("decoders", [content])}


def _byte_level() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary represents.

    Printable characters of Latin-1 represent themselves; those from U+0100 on the other bytes, in order.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    itself = {character: ord(character) for character in alphabet if ord(character) < 0x100}
    others = sorted(set(range(0x100)) - set(itself.values()))
    return itself | dict(zip(alphabet[len(itself) :], others, strict=True))


_vocabularies: WeakKeyDictionary[Any, dict[int, Vocabulary]] = WeakKeyDictionary()


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer, made once per tokenizer.

    Raises:
        VocabularyMismatchError: As :class:`Vocabulary`.
    """
    known = _vocabularies.setdefault(tokenizer, {})
    if size not in known:
        known[size] = Vocabulary(tokenizer, size)
    return known[size]

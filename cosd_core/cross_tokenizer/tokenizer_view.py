"""The tokens of one model, as other models must read them."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import torch

from cosd_core.cross_tokenizer.vocabulary import Encoded, Vocabulary, vocabulary_of
from cosd_core.cross_tokenizer.word_boundaries import END
from cosd_core.models.base import BaseLanguageModel

_NOT_END = b"\xfe"
"""Replaces the byte of :data:`END` where a byte-level token has it. Neither byte occurs in UTF-8."""


@dataclass(frozen=True, eq=False)
class TokenizerView:
    """The tokens of one model and the bytes they represent, the same for all texts.

    Attributes:
        vocabulary: The tokens as bytes.
        size: How many of its ids take part.
        eos_token_ids: The ids that end a text.
        eos_token_id: The one of them that replaces another model's, or None if there is none.
        window: The most tokens that the model reads, or None.
        finishes_words: Whether its replacements are continued to the end of a word: no model was trained on
            half a word in another model's tokens.
    """

    vocabulary: Vocabulary
    size: int
    eos_token_ids: frozenset[int]
    eos_token_id: int | None
    window: int | None
    finishes_words: bool

    @classmethod
    def of(
        cls, model: BaseLanguageModel, size: int, eos_token_ids: frozenset[int], *, finishes_words: bool
    ) -> "TokenizerView":
        """The view of a model whose texts end with these ids.

        Raises:
            VocabularyMismatchError: The tokenizer cannot be followed.
        """
        own = model.tokenizer.eos_token_id
        return cls(
            vocabulary_of(model.tokenizer, size),
            size,
            eos_token_ids,
            own if own in eos_token_ids else min(eos_token_ids, default=None),
            model.context_length,
            finishes_words,
        )

    def comparable_bytes(self, token_id: int, names: Collection[str] = ()) -> bytes:
        """The bytes by which a token is compared: :data:`END` for every token that ends a text.

        Args:
            token_id: The token.
            names: The names of special tokens that are part of the text.
        """
        if token_id in self.eos_token_ids:
            return END
        return self.text_bytes(token_id, names).replace(END, _NOT_END)

    def text_bytes(self, token_id: int, names: Collection[str] = ()) -> bytes:
        """The bytes that a token adds to the text."""
        if token_id in self.vocabulary.without_text and names:
            name = self.vocabulary.name(token_id)
            return name.encode() if name in names else b""
        return self.vocabulary.bytes_of(token_id)

    def encode(self, text: str, names: Collection[str] = ()) -> Encoded:
        """The tokens of a text that continues another, and the offsets in bytes at which they end."""
        return self.vocabulary.encode(text, specials=any(name in text for name in names))

    @lru_cache(maxsize=8)  # noqa: B019 - a view lives as long as its decoder
    def transferable(self, names: frozenset[str] = frozenset()) -> torch.Tensor:
        """The tokens that other models can read, bool, ``[size]``: those with text, and the end tokens."""
        silent = {
            token
            for token in self.vocabulary.without_text
            if not names or self.vocabulary.name(token) not in names
        }
        mask = torch.ones(self.size, dtype=torch.bool)
        mask[[token for token in silent - self.eos_token_ids if token < self.size]] = False
        return mask

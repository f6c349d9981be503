"""The fewest tokens of a text, from its length alone, so that a text that cannot fit is not encoded.

Encoding 10 MB takes seconds and gigabytes. A token stands for a bounded number of characters, if nothing in
the tokenizer deletes text: then a text of n characters has at least n / longest tokens.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import ContextOverflowError
from cosd_core.models.base import BaseLanguageModel

_WHITESPACE = [character for character in map(chr, range(0x3001)) if character.isspace()]
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_KEEPING = {
    "NFD", "NFKD", "Lowercase", "Prepend", "ByteLevel", "Metaspace", "Digits", "UnicodeScripts",
    "FixedLength",
}  # fmt: skip
"""Normalizers and pre-tokenizers that never make a text shorter, in characters."""
_COMPOSING = {"NFC", "NFKC"}
_DROPPING_SPACES = {"Strip", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"}


@dataclass(frozen=True, slots=True)
class TokenBound:
    """How much text one token of a tokenizer stands for, at most.

    Attributes:
        longest: The most characters of a token.
        drops_spaces: Whether white space may be deleted, so that only other characters count.
        composes: Whether characters may be composed to fewer, so that only ASCII counts: it never is.
    """

    longest: int
    drops_spaces: bool
    composes: bool

    def fewest(self, text: str) -> int:
        """The fewest tokens of a text."""
        if self.composes:
            text = text.encode("ascii", "ignore").decode()
        spaces = sum(map(text.count, _WHITESPACE)) if self.drops_spaces else 0
        return -(-(len(text) - spaces) // self.longest)


def check_text_length(
    text: str, model: BaseLanguageModel, window: float, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Refuse a text that has too many tokens whatever they are. A text that passes may still be too long.

    Args:
        text: The prompt, or the part of it that is encoded.
        model: The model that reads it, for the message.
        window: The most tokens that the prompt may have.
        tokenizer: The one that encodes the text; None: the model's.

    Raises:
        ContextOverflowError: It is too long.
    """
    if len(text) <= window:
        return
    bound = token_bound(tokenizer or model.tokenizer)
    if bound is not None and (fewest := bound.fewest(text)) > window:
        raise ContextOverflowError(
            f"the prompt has {len(text)} characters, which are at least {fewest} tokens (one of model "
            f"{model.name!r} has at most {bound.longest} characters), but only {window:.0f} fit into its "
            "context window with the answer; shorten the prompt, or set truncation=True"
        )


def token_bound(tokenizer: PreTrainedTokenizerBase) -> TokenBound | None:
    """The bound of a tokenizer, or None where one token may stand for a text of any length.

    That is so where unknown text becomes a single token or none (WordPiece, WordLevel, Unigram without
    bytes), where a normalizer may delete text (Precompiled, Nmt, BertNormalizer, StripAccents, a replacement
    that is shorter), and for tokenizers that are not of the tokenizers library.
    """
    known = _bounds.setdefault(tokenizer, {})
    size = len(tokenizer)  # tokens may be added
    if size not in known:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        known[size] = _bound_of(backend) if isinstance(backend, Tokenizer) else None
    return known[size]


_bounds: WeakKeyDictionary[Any, dict[int, TokenBound | None]] = WeakKeyDictionary()


def _bound_of(backend: Tokenizer) -> TokenBound | None:
    try:
        steps = [*_steps(backend.normalizer), *_steps(backend.pre_tokenizer)]
    except Exception:  # a part that is written in Python has no description
        return None
    kinds = {step["type"] for step in steps}
    if not all(map(_keeps_text, steps)) or not _encodes_all(backend, kinds):
        return None
    added = backend.get_added_tokens_decoder().values()
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    names = {*backend.get_vocab(), *(normalize(token.content) for token in added)}
    return TokenBound(
        longest=max(map(len, names)),
        drops_spaces=bool(kinds & _DROPPING_SPACES) or any(token.lstrip or token.rstrip for token in added),
        composes=bool(kinds & _COMPOSING),
    )


def _steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as tokenizer.json describes them."""
    if part is not None:
        waiting = [json.loads(part.__getstate__())]
        while waiting:
            step = waiting.pop()
            waiting += step.get("normalizers", []) + step.get("pretokenizers", [])
            if step["type"] != "Sequence":
                yield step


def _keeps_text(step: Mapping[str, Any]) -> bool:
    """Whether a step deletes nothing but white space, and composes no ASCII character with another."""
    kind = step["type"]
    if kind == "Replace":
        text, content = step["pattern"].get("String", ""), step["content"]
        return 0 < len(text) <= len(content) and not any(map(str.isspace, content))
    if kind in ("Split", "Punctuation"):
        return bool(step["behavior"] != "Removed")
    return kind in _KEEPING | _COMPOSING | _DROPPING_SPACES


def _encodes_all(backend: Tokenizer, kinds: set[str]) -> bool:
    """Whether every character becomes tokens, none of which stands for several unknown ones."""
    model, vocabulary = backend.model, backend.get_vocab(with_added_tokens=False).keys()
    if isinstance(model, models.Unigram):
        return vocabulary >= _BYTES and bool(json.loads(model.__getstate__())["byte_fallback"])
    if not isinstance(model, models.BPE) or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    if "ByteLevel" in kinds and vocabulary >= set(pre_tokenizers.ByteLevel.alphabet()):
        return True
    if model.byte_fallback and vocabulary >= _BYTES:
        return True
    return model.unk_token in vocabulary and not model.fuse_unk

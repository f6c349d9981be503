"""Where a text stands in its grammar, and which tokens may follow."""

import json
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import GenerationError, InvalidOptionError, quoted
from cosd_core.grammar import Grammar
from cosd_core.utils import agreed_prefix

if TYPE_CHECKING:
    import llguidance

_KEPT_MASKS = 256
"""Every model asks for the masks of a block. Older ones only take memory; they can be made again."""


class Matcher:
    """A grammar followed along one text.

    As a model's session does, it is given all tokens of the text, keeps what agrees with those it has read,
    takes the rest back and reads what is missing. So nobody tells it about rejected tokens.
    """

    def __init__(
        self,
        grammar: Grammar,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: int,
        eos_token_ids: frozenset[int],
    ) -> None:
        """Begin at the start of the text.

        Raises:
            InvalidOptionError: The grammar or the tokenizer cannot be used.
        """
        import llguidance  # here: most generations need no grammar

        self._vocabulary = vocabulary
        self._ends = torch.tensor(
            sorted(token for token in eos_token_ids if token < vocabulary), dtype=torch.long
        )
        tokens = _read(tokenizer, vocabulary, grammar.spelt)
        self._matcher = llguidance.LLMatcher(tokens, grammar.compiled(), log_level=0)
        if self._matcher.is_error():
            raise InvalidOptionError(
                f"grammar {quoted(grammar.source)} is not usable: {quoted(self._matcher.get_error(), 300)}"
            )
        self._tokens: list[int] = []
        self._whole = [self._is_whole_here()]  # after each token, and before the first
        self._masks: dict[int, torch.Tensor] = {}  # by the number of tokens before

    def copy(self) -> "Matcher":
        """One for another text; the grammar is not compiled again."""
        other = copy(self)
        other._matcher = self._matcher.deep_copy()
        other._tokens, other._whole = list(self._tokens), list(self._whole)
        other._masks = dict(self._masks)
        return other

    def allowed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Which tokens may come after these, bool, ``[vocabulary]``; end tokens where the text is whole.

        Raises:
            GenerationError: The tokens are not of the grammar, or it became too complex.
        """
        self._read_on(tokens)
        length = len(tokens)
        if length not in self._masks:
            self._go_back(length)
            self._masks[length] = self._mask()
            self._masks.pop(length - _KEPT_MASKS, None)
        return self._masks[length]

    def is_whole(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens are a text of the grammar that no other token can continue.

        Raises:
            GenerationError: As :meth:`allowed`.
        """
        self._read_on(tokens)
        return self._whole[len(tokens)]

    def _read_on(self, tokens: Sequence[int]) -> None:
        """Make these tokens the first that have been read; what was read after them may stay."""
        kept = agreed_prefix(tokens, self._tokens)
        if kept == len(tokens):
            return
        self._go_back(kept)
        for token in tokens[kept:]:
            if not self._matcher.consume_token(token):
                raise self._stuck()
            self._tokens.append(token)
            self._whole.append(self._is_whole_here())

    def _go_back(self, length: int) -> None:
        self._matcher.rollback(len(self._tokens) - length)
        for gone in range(length + 1, len(self._tokens) + 1):
            self._masks.pop(gone, None)
        del self._tokens[length:], self._whole[length + 1 :]

    def _is_whole_here(self) -> bool:
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _mask(self) -> torch.Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise self._stuck()
        mask = np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(bool)
        allowed = torch.from_numpy(mask)
        allowed[self._ends] = self._matcher.is_accepting()
        if not allowed.any():
            raise GenerationError(
                f"after {len(self._tokens)} tokens the grammar can only go on with tokens that end a text "
                "(eos_token_id) or that the models do not have"
            )
        return allowed

    def _stuck(self) -> GenerationError:
        said = self._matcher.get_error().partition("\n")[0]  # the parser's whole state follows
        return GenerationError(f"the grammar cannot go on after {len(self._tokens)} tokens: {quoted(said)}")


_readings: WeakKeyDictionary[Any, "dict[tuple[int, frozenset[str]], llguidance.LLTokenizer]"]
_readings = WeakKeyDictionary()


def _plain(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> "llguidance.LLTokenizer":
    """The tokenizer as llguidance reads it, but for a space before every text: answers go on."""
    import llguidance.hf

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "add_prefix_space=True" not in repr(backend.pre_tokenizer):
        return llguidance.hf.from_tokenizer(cast(Any, tokenizer), n_vocab=vocabulary)
    said = json.loads(backend.to_str())
    first = said["pre_tokenizer"]
    for each in (first, *first.get("pretokenizers", ())):
        if "add_prefix_space" in each:
            each["add_prefix_space"] = False
    said |= {"padding": None, "truncation": None}
    return llguidance.LLTokenizer(json.dumps(said), n_vocab=vocabulary, eos_token=tokenizer.eos_token_id)


def _read(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int, spelt: frozenset[str]
) -> "llguidance.LLTokenizer":
    """The bytes of every token; read once per tokenizer, for it takes a second where there are many."""
    import llguidance

    known = _readings.setdefault(tokenizer, {})
    if (vocabulary, spelt) not in known:
        try:
            plain = _plain(tokenizer, vocabulary)
            if spelt:
                written = llguidance.TokenizerWrapper(_Spelling(tokenizer, plain, spelt))
                plain = llguidance.LLTokenizer(written, n_vocab=vocabulary)
            known[vocabulary, spelt] = plain
        except Exception as error:  # whatever it dislikes in a tokenizer, it says by an error of its own kind
            raise InvalidOptionError(
                f"tokenizer {type(tokenizer).__name__} cannot follow a grammar: {quoted(error)}; a fast "
                "byte-level BPE or byte-fallback tokenizer can"
            ) from error
    return known[vocabulary, spelt]


class _Spelling:
    """A tokenizer's tokens as llguidance asks for them, with some special ones as pieces of text.

    By itself it takes every token with a name in brackets for no text, and knows it by number only.
    """

    def __init__(self, tokenizer: Any, plain: "llguidance.LLTokenizer", spelt: frozenset[str]) -> None:
        names = {at: str(token.content) for at, token in tokenizer.added_tokens_decoder.items()}
        self._plain = plain
        self.eos_token_id = plain.eos_token
        self.bos_token_id = tokenizer.bos_token_id
        special = filter(plain.is_special_token, range(plain.vocab_size))
        self.special_token_ids = [at for at in special if names.get(at) not in spelt]
        self.tokens = [
            names[at].encode() if names.get(at) in spelt else plain.decode_bytes([at])
            for at in range(plain.vocab_size)
        ]

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text, where it is clear how it goes on."""
        return self._plain.tokenize_str(text, parse_special=True)

"""Where a text stands in its grammar, and which tokens may follow."""

from collections.abc import Sequence
from copy import copy
from typing import Any, cast
from weakref import WeakKeyDictionary

import llguidance
import llguidance.hf
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import GenerationError, InvalidOptionError, quoted
from cosd_core.grammar import Grammar
from cosd_core.prefix import agreed_prefix


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
        self._vocabulary = vocabulary
        self._ends = torch.tensor(
            sorted(token for token in eos_token_ids if token < vocabulary), dtype=torch.long
        )
        self._matcher = llguidance.LLMatcher(_read(tokenizer, vocabulary), grammar.compiled(), log_level=0)
        if self._matcher.is_error():
            raise InvalidOptionError(
                f"grammar {quoted(grammar.source)} is not usable: {quoted(self._matcher.get_error(), 300)}"
            )
        self._tokens: list[int] = []
        self._masks: list[torch.Tensor | None] = [None]

    def copy(self) -> "Matcher":
        """One for another text; the grammar is not compiled again."""
        other = copy(self)
        other._matcher = self._matcher.deep_copy()
        other._tokens, other._masks = list(self._tokens), list(self._masks)
        return other

    def allowed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Which tokens may come after these, bool, ``[vocabulary]``; end tokens where the text is whole.

        Raises:
            GenerationError: The tokens are not of the grammar, or it became too complex.
        """
        length = len(tokens)
        if length > len(self._tokens) or self._tokens[:length] != tokens or self._masks[length] is None:
            self._go_to(tokens)
            self._masks[length] = self._mask()
        return cast(torch.Tensor, self._masks[length])

    def is_whole(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens are a text of the grammar that no other token can continue."""
        self._go_to(tokens)
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _go_to(self, tokens: Sequence[int]) -> None:
        kept = agreed_prefix(tokens, self._tokens)
        if kept < len(self._tokens):
            self._matcher.rollback(len(self._tokens) - kept)
            del self._tokens[kept:], self._masks[kept + 1 :]
        missing = list(tokens[kept:])
        if missing and not self._matcher.consume_tokens(missing):
            raise GenerationError(f"the grammar cannot go on: {quoted(self._matcher.get_error(), 300)}")
        self._tokens += missing
        self._masks += [None] * len(missing)

    def _mask(self) -> torch.Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise GenerationError(f"the grammar cannot go on: {quoted(self._matcher.get_error(), 300)}")
        mask = np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(bool)
        allowed = torch.from_numpy(mask)
        allowed[self._ends] = self._matcher.is_accepting()
        return allowed


_readings: WeakKeyDictionary[Any, dict[int, llguidance.LLTokenizer]] = WeakKeyDictionary()


def _read(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> llguidance.LLTokenizer:
    """The bytes of every token; read once per tokenizer, for it takes a second where there are many."""
    known = _readings.setdefault(tokenizer, {})
    if vocabulary not in known:
        try:
            known[vocabulary] = llguidance.hf.from_tokenizer(cast(Any, tokenizer), n_vocab=vocabulary)
        except Exception as error:
            raise InvalidOptionError(
                f"tokenizer {type(tokenizer).__name__} cannot follow a grammar: {quoted(error)}; a fast "
                "byte-level BPE or byte-fallback tokenizer can"
            ) from error
    return known[vocabulary]

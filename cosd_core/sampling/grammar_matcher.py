"""A grammar followed along one text: which tokens may come next, and whether the text is complete."""

import json
from collections.abc import Sequence
from copy import copy
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import GenerationError, InvalidOptionError, quoted
from cosd_core.grammar import Grammar
from cosd_core.grammar.compilation import start_matcher
from cosd_core.utils import agreed_prefix

_KEPT_MASKS = 256
"""Every model needs the masks of a block. Older masks only take memory; they can be computed again."""


class GrammarMatcher:
    """A grammar followed along one text.

    As a model's session does, it is given all tokens of the text, keeps the agreed prefix, rolls back the
    rest and consumes what is missing. So no caller reports rejected tokens.
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
        self._eos_token_ids = torch.tensor(
            sorted(token for token in eos_token_ids if token < vocabulary), dtype=torch.long
        )
        tokens = _guided_tokenizer(tokenizer, vocabulary, grammar.spelt)
        self._matcher = start_matcher(tokens, grammar.compiled())
        if self._matcher.is_error():
            raise InvalidOptionError(
                f"grammar {quoted(grammar.source)} is not usable: {quoted(self._matcher.get_error(), 300)}"
            )
        self._tokens: list[int] = []
        self._complete = [self._is_complete_here()]  # after each token, and before the first
        self._masks: dict[int, torch.Tensor] = {}  # by the number of tokens before

    def copy(self) -> "GrammarMatcher":
        """A matcher for another text; the grammar is not compiled again."""
        other = copy(self)
        other._matcher = self._matcher.deep_copy()
        other._tokens, other._complete = list(self._tokens), list(self._complete)
        other._masks = dict(self._masks)
        return other

    def allowed(self, tokens: Sequence[int]) -> torch.Tensor:
        """The tokens that may follow these, bool, ``[vocabulary]``; end tokens where the text may end.

        Raises:
            GenerationError: The grammar does not allow the tokens, or became too complex.
        """
        self._consume(tokens)
        length = len(tokens)
        if length not in self._masks:
            self._roll_back(length)
            self._masks[length] = self._compute_mask()
            self._masks.pop(length - _KEPT_MASKS, None)
        return self._masks[length]

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens are a text of the grammar that no token can continue.

        Raises:
            GenerationError: As :meth:`allowed`.
        """
        self._consume(tokens)
        return self._complete[len(tokens)]

    def count_admitted(self, tokens: Sequence[int], more: list[int]) -> int:
        """How many of the first of ``more`` the grammar admits behind these tokens.

        Raises:
            GenerationError: As :meth:`allowed`.
        """
        self._consume(tokens)
        self._roll_back(len(tokens))
        return int(self._matcher.validate_tokens(more))

    def _consume(self, tokens: Sequence[int]) -> None:
        """Make these tokens the first that were consumed; more may stay behind them."""
        kept = agreed_prefix(tokens, self._tokens)
        if kept == len(tokens):
            return
        self._roll_back(kept)
        for token in tokens[kept:]:
            if not self._matcher.consume_token(token):
                raise self._stuck()
            self._tokens.append(token)
            self._complete.append(self._is_complete_here())

    def _roll_back(self, length: int) -> None:
        self._matcher.rollback(len(self._tokens) - length)
        for dropped in range(length + 1, len(self._tokens) + 1):
            self._masks.pop(dropped, None)
        del self._tokens[length:], self._complete[length + 1 :]

    def _is_complete_here(self) -> bool:
        return bool(self._matcher.is_stopped() and self._matcher.is_accepting())

    def _compute_mask(self) -> torch.Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise self._stuck()
        mask = np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(bool)
        allowed = torch.from_numpy(mask)
        allowed[self._eos_token_ids] = self._matcher.is_accepting()
        if not allowed.any():
            raise GenerationError(
                f"after {len(self._tokens)} tokens the grammar can only go on with tokens that end a text "
                "(eos_token_id) or that the models do not have"
            )
        return allowed

    def _stuck(self) -> GenerationError:
        error = self._matcher.get_error().partition("\n")[0]  # the parser's whole state follows
        return GenerationError(f"the grammar cannot go on after {len(self._tokens)} tokens: {quoted(error)}")


_guided_tokenizers: WeakKeyDictionary[Any, dict[tuple[int, frozenset[str]], Any]] = WeakKeyDictionary()


def _guided_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int, spelt: frozenset[str]) -> Any:
    """A tokenizer as llguidance takes it; made once per tokenizer, which takes a second if it is large.

    Raises:
        InvalidOptionError: llguidance cannot use it.
    """
    import llguidance

    known = _guided_tokenizers.setdefault(tokenizer, {})
    if (vocabulary, spelt) not in known:
        try:
            guided = _from_transformers(tokenizer, vocabulary)
            if spelt:
                wrapper = llguidance.TokenizerWrapper(_SpeltTokenizer(tokenizer, guided, spelt))
                guided = llguidance.LLTokenizer(wrapper, n_vocab=vocabulary)
            known[vocabulary, spelt] = guided
        except Exception as error:  # llguidance raises errors of several kinds
            raise InvalidOptionError(
                f"tokenizer {type(tokenizer).__name__} cannot follow a grammar: {quoted(error)}; a fast "
                "byte-level BPE or byte-fallback tokenizer can"
            ) from error
    return known[vocabulary, spelt]


def _from_transformers(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Any:
    """The tokenizer for llguidance, without a space before every text: an answer continues a prompt."""
    import llguidance.hf

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "add_prefix_space=True" not in repr(backend.pre_tokenizer):
        return llguidance.hf.from_tokenizer(cast(Any, tokenizer), n_vocab=vocabulary)
    content = json.loads(backend.to_str())
    first = content["pre_tokenizer"]
    for each in (first, *first.get("pretokenizers", ())):
        if "add_prefix_space" in each:
            each["add_prefix_space"] = False
    content |= {"padding": None, "truncation": None}
    return llguidance.LLTokenizer(json.dumps(content), n_vocab=vocabulary, eos_token=tokenizer.eos_token_id)


class _SpeltTokenizer:
    """A tokenizer for llguidance in which some special tokens are the letters of their names.

    By default llguidance takes every token with a name in angle brackets for a token without text.
    """

    def __init__(self, tokenizer: Any, guided: Any, spelt: frozenset[str]) -> None:
        names = {at: str(token.content) for at, token in tokenizer.added_tokens_decoder.items()}
        self._guided = guided
        self.eos_token_id = guided.eos_token
        self.bos_token_id = tokenizer.bos_token_id
        special = filter(guided.is_special_token, range(guided.vocab_size))
        self.special_token_ids = [at for at in special if names.get(at) not in spelt]
        self.tokens = [
            names[at].encode() if names.get(at) in spelt else guided.decode_bytes([at])
            for at in range(guided.vocab_size)
        ]

    def __call__(self, text: str) -> Any:
        """Token ids of a text."""
        return self._guided.tokenize_str(text, parse_special=True)

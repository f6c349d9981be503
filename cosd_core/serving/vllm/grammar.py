"""Structured outputs: vLLM's grammars, followed in the worker so that the draft is masked too.

vLLM follows a grammar in its scheduler, and masks the assistant alone. The worker compiles the same grammar
with the same library, and follows it along the text and the draft's block.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.request import StructuredOutputRequest

from cosd_core.errors import GenerationError
from cosd_core.utils import agreed_prefix

_KEPT_MASKS = 256
"""The assistant needs those of the draft's block, which has at most 128 tokens."""


class Grammars:
    """Compiles the grammars of requests."""

    def __init__(self, vllm_config: Any, vocabulary: int) -> None:
        """Prepare vLLM's own compiler, for masks of ``vocabulary`` tokens."""
        self._vocabulary = vocabulary
        self._manager = StructuredOutputManager(vllm_config)

    def matcher(self, request: Any) -> "FollowedGrammar | None":
        """The grammar of a ``CachedRequestState``, at the start of the text; None if it has none."""
        structured = StructuredOutputRequest.from_sampling_params(request.sampling_params)
        if structured is None:
            return None
        self._manager.grammar_init(
            SimpleNamespace(
                request_id=request.req_id,
                sampling_params=request.sampling_params,
                structured_output_request=structured,
            )
        )
        compiled = structured._grammar
        # The scheduler compiled it first, and ended the request if that failed.
        grammar = compiled.result() if hasattr(compiled, "result") else compiled
        return FollowedGrammar(grammar, self._vocabulary, self._manager.backend.allocate_token_bitmask(1))


class FollowedGrammar:
    """A grammar along one text, with the methods of :class:`GrammarMatcher` that a sampler calls.

    It is given all tokens of the text, keeps the agreed prefix, rolls back the rest and reads the new ones.
    """

    def __init__(self, grammar: Any, vocabulary: int, bits: torch.Tensor) -> None:
        """Begin at the start of the text.

        Args:
            grammar: vLLM's ``StructuredOutputGrammar``.
            vocabulary: The length of masks.
            bits: A buffer for one mask, int32, with a bit per token, ``[1, ...]``.
        """
        self._vocabulary = vocabulary
        self._grammar = grammar
        self._bits = bits
        self._tokens: list[int] = []
        self._complete = [bool(grammar.is_terminated())]  # after each token, and before the first
        self._masks: dict[int, torch.Tensor] = {}  # as bits, by the number of tokens before

    def allowed(self, tokens: Sequence[int]) -> torch.Tensor:
        """The tokens that may follow these, bool, ``[vocabulary]``."""
        self._read(tokens)
        if len(tokens) not in self._masks:
            self._roll_back(len(tokens))
            self._grammar.fill_bitmask(self._bits, 0)
            self._masks[len(tokens)] = self._bits[0].clone()
            self._masks.pop(len(tokens) - _KEPT_MASKS, None)
        packed = self._masks[len(tokens)].numpy().view(np.uint8)
        bits = np.unpackbits(packed, count=self._vocabulary, bitorder="little")
        return torch.from_numpy(bits.view(bool))

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether the grammar has ended with these tokens, or before the last of them."""
        self._read(tokens)
        return self._complete[min(len(tokens), len(self._tokens))]

    def _read(self, tokens: Sequence[int]) -> None:
        kept = agreed_prefix(tokens, self._tokens)
        if kept == len(tokens):
            return
        self._roll_back(kept)
        for token in tokens[kept:]:
            if self._complete[-1]:
                return  # the draft has written past the end
            if not self._grammar.accept_tokens("cosd", [token]):
                raise GenerationError(f"token {token} breaks the grammar after {len(self._tokens)} tokens")
            self._tokens.append(token)
            self._complete.append(bool(self._grammar.is_terminated()))

    def _roll_back(self, length: int) -> None:
        dropped = len(self._tokens) - length
        if dropped > 0:
            self._grammar.rollback(dropped)
        for at in range(length + 1, len(self._tokens) + 1):
            self._masks.pop(at, None)
        del self._tokens[length:], self._complete[length + 1 :]

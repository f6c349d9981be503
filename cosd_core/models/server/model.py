"""A model behind vLLM's OpenAI-compatible server, as a backend."""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Self

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.models.base import BaseLanguageModel, Session
from cosd_core.models.fingerprint import tokenizer_facts
from cosd_core.models.loading import hub_access, load_tokenizer
from cosd_core.models.server.client import Client
from cosd_core.models.server.session import ServerSession
from cosd_core.options import GenerationOptions, LoadingOptions, check_counts


class ServerModel(BaseLanguageModel):
    """A causal language model behind a server, and its tokenizer, which runs here.

    Only token probabilities come over the network: as a draft the server writes tokens with theirs, and as an
    assistant it returns its own token and probability at every drafted position (``prompt_logprobs``).

    Attributes:
        client: Sends the requests.
        ahead: How many tokens a draft writes per request.
    """

    def __init__(
        self, client: Client, tokenizer: PreTrainedTokenizerBase, *, eos_token_ids: Iterable[int], ahead: int
    ) -> None:
        """Put the parts together."""
        self.client = client
        self.tokenizer = tokenizer
        self.name = client.model
        self.source = f"{client.url} {client.model}"
        self.ahead = ahead
        self._eos_token_ids = frozenset(eos_token_ids)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        model: str | None,
        tokenizer: str | PreTrainedTokenizerBase | None,
        ahead: int,
        **connection: Any,
    ) -> Self:
        """Find the model and load its tokenizer. As :meth:`LanguageModel.from_server`."""
        check_counts(ahead=ahead)
        client = Client(url, model, **connection)
        if tokenizer is not None and not isinstance(tokenizer, str):
            return cls(client, tokenizer, eos_token_ids=(), ahead=ahead)
        name = tokenizer or client.model
        loaded = load_tokenizer(name, hub_access(LoadingOptions()))
        return cls(client, loaded, eos_token_ids=_end_ids(name), ahead=ahead)

    @cached_property
    def vocabulary_size(self) -> int:
        """The number of ids that the tokenizer knows."""
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def context_length(self) -> int | None:
        """One token less than the server admits, which the prediction behind the last one takes."""
        return self.client.max_length and self.client.max_length - 1

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end a text: those of the generation config beside the tokenizer, or else its own."""
        own = self.tokenizer.eos_token_id
        return self._eos_token_ids or frozenset(() if own is None else (own,))

    @property
    def device(self) -> torch.device:
        """The CPU: there are no logits."""
        return torch.device("cpu")

    @property
    def batchable(self) -> bool:
        """True: a request takes several prompts."""
        return True

    @property
    def returns_logits(self) -> bool:
        """False: a server returns probabilities of single tokens."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """A key of address, name and tokenizer; the weights behind them are not known."""
        facts = [self.source, tokenizer_facts(self.tokenizer), sorted(self.eos_token_ids)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def check_options(self, options: GenerationOptions) -> None:
        """Refuse what needs more than the most probable token. As :meth:`BaseLanguageModel.check_options`."""
        refused = {
            "temperature": options.temperature != 0,
            "repetition_penalty": options.repetition_penalty != 1,
            "min_new_tokens": options.min_new_tokens > 0,
            "logits_processor": bool(options.logits_processor),
            "grammar": options.grammar is not None,
        }
        for name in (each for each, is_refused in refused.items() if is_refused):
            raise InvalidOptionError(
                f"{name}={quoted(getattr(options, name))} is not possible with model {self.name!r}: its "
                "server returns the most probable token and its probability only"
            )

    def open_session(
        self,
        *,
        vocabulary: int,
        role: str = "draft",
        calibration: float = 1.0,  # noqa: ARG002 - 1, as without logits
        prefix_caching: bool = True,  # noqa: ARG002 - so it has with its cache
    ) -> Session:
        """Start to work on the rows of one batch. As :meth:`BaseLanguageModel.open_session`."""
        return ServerSession(self.client, vocabulary=vocabulary, ahead=self.ahead if role == "draft" else 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.client.url!r})"


def _end_ids(name: str) -> list[int]:
    """The end tokens in a generation config; none if there is no such file."""
    try:
        ids = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError:
        return []
    return [ids] if isinstance(ids, int) else list(ids or ())

"""The contract of a model backend: what decoding needs of a language model, wherever it runs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.options import GenerationOptions
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition

Rows = Sequence[list[int]]
"""The token ids of every row."""

Positions = Sequence[Sequence[SamplingPosition]]
"""The positions to predict, per row."""


class PendingPredictions(ABC):
    """The predictions of a pass that may still be running."""

    @abstractmethod
    def result(self) -> list[list[Prediction]]:
        """Wait for the pass, and return one prediction per row and position.

        Raises:
            GenerationError: The pass failed.
            ModelOutputError: The model returned something that is no prediction.
            LogitsProcessorError: A user's logits processor failed.
        """


class Session(ABC):
    """A model at work on the rows of one batch.

    A session has no commit and no rollback: every pass gets all ids of every row. The session compares them
    with those that it has processed, keeps its state up to the longest common prefix, and processes the rest.
    """

    @abstractmethod
    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:
        """Start one pass. The passes of models on different devices or servers run at the same time.

        Args:
            rows: All token ids of every row, prompt included; none is empty. New rows come after the others.
                They must not change before the result is there.
            positions: Per row the positions to predict, at least one in all: the last one is behind the row's
                last id, the one before it is behind the last id but one, and so on.
            keep_logits: Whether the predictions carry their logits. Backends without logits cannot.

        Raises:
            GenerationError: The pass failed.
            ModelOutputError: The model returned something that is no prediction.
        """

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Keep only the rows of these indices, in this order."""

    # These defaults are right for a session that holds no state of its rows.

    @property
    def num_rows(self) -> int:
        """The rows that it holds a state of; they are the first rows of the batch."""
        return 0

    def read(self, rows: Rows, most: int) -> bool:  # noqa: ARG002
        """Process some ids in a pass of their own, so that the next pass has fewer to process.

        Args:
            rows: As in :meth:`submit`.
            most: About how many ids to process, over all rows.

        Returns:
            Whether the next pass has no more than that to process; then this one processes nothing.

        Raises:
            GenerationError: The pass failed.
        """
        return True

    def join(self, other: Self) -> None:  # noqa: B027
        """Hold the rows of another session of the same model after the present ones; the other one ends."""

    def share(self) -> None:  # noqa: B027
        """Keep what was processed for other sessions too; what a session drops is kept anyway."""

    def predict(
        self, rows: Rows, positions: Positions, *, keep_logits: bool = False
    ) -> list[list[Prediction]]:
        """Run one pass, and return its predictions. As :meth:`submit`."""
        return self.submit(rows, positions, keep_logits=keep_logits).result()


class OpensSessions(ABC):
    """A model, as the decoding of a batch uses it."""

    @abstractmethod
    def open_session(
        self,
        *,
        vocabulary: int,
        role: str = "draft",
        calibration: float = 1.0,
        prefix_caching: bool = True,
    ) -> Session:
        """Start to work on the rows of one batch.

        Args:
            vocabulary: How many token ids take part.
            role: ``"draft"`` or ``"assistant 0"``; it selects the random numbers of sampled tokens.
            calibration: The temperature of the model's confidences.
            prefix_caching: Whether the session may use what the model has computed for earlier texts, and
                keeps what it computes.

        Raises:
            UnsupportedModelError: The model cannot take part.
            GenerationError: It cannot be run.
        """


class BaseLanguageModel(OpensSessions):
    """A causal language model and its tokenizer.

    Attributes:
        name: Its name in messages and traces, as :func:`with_adapter` composes it: a hub id, or the name of a
            local folder without its path.
        source: The hub id or path that it was loaded from, likewise; None if that is unknown.
        tokenizer: Its tokenizer. Models with equal vocabularies can share theirs.
    """

    name: str
    source: str | None = None
    tokenizer: PreTrainedTokenizerBase

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """The number of ids that the model scores and the tokenizer knows."""

    @property
    @abstractmethod
    def context_length(self) -> int | None:
        """The most tokens that prompt and answer may have together, or None if the model has no limit."""

    @property
    @abstractmethod
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end a text."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the model's logits, or the CPU where it returns none."""

    @property
    @abstractmethod
    def batchable(self) -> bool:
        """Whether rows of different lengths share passes, so that larger batches are faster.

        Raises:
            UnsupportedModelError: The model cannot take part.
            GenerationError: It cannot be run.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A key of everything that its predictions depend on; caches on disk use it in their keys."""

    @property
    def returns_logits(self) -> bool:
        """Whether its sessions can return logits, which some verifiers, and calibration, need."""
        return True

    def check_options(self, options: GenerationOptions) -> None:
        """Refuse options of a call that the backend cannot follow.

        Raises:
            InvalidOptionError: It cannot.
        """

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text.

        With ``add_special_tokens`` they begin with the tokens that the tokenizer puts before a text, such as
        BOS, once: a rendered chat, whose template has written them, gets no second ones.
        """
        ids = list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
        if add_special_tokens and text.startswith(tuple(self.tokenizer.all_special_tokens)):
            added = self.added_prefix()
            if added and ids[: 2 * len(added)] == 2 * added:
                return ids[len(added) :]
        return ids

    def added_prefix(self) -> list[int]:
        """The ids that the tokenizer puts before a text, such as BOS."""
        without = self.encode("a", add_special_tokens=False)
        ids = self.encode("a")
        return ids[: ids.index(without[0])]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of token ids."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )


def with_adapter(name: str, adapter: str | None) -> str:
    """The name of a model with an adapter, ``model[adapter]``, or with none."""
    return name if adapter is None else f"{name}[{adapter}]"


def without_adapter(name: str) -> tuple[str, str | None]:
    """Split such a name into the model and its adapter, or None."""
    base, bracket, adapter = name.removesuffix("]").partition("[")
    return (base, adapter) if bracket and name.endswith("]") else (name, None)

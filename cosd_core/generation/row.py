"""The contract of a row: one request in a batch, whatever vocabularies its models have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cosd_core.outputs import Step
from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import SamplingPosition


@dataclass(frozen=True, slots=True)
class PassRequest:
    """A row's request to one model for its next pass.

    Attributes:
        input_ids: All token ids that the model reads, prompt included.
        positions: The last positions of these ids whose predictions are needed; none if the row takes part in
            the pass only because other rows need it.
    """

    input_ids: list[int]
    positions: Sequence[SamplingPosition] = ()


class Row(Protocol):
    """One request in a batch: its block goes through draft, verify and commit, round by round."""

    @property
    def input_ids(self) -> list[int]:
        """Prompt, text and block in the draft's token ids."""

    @property
    def is_finished(self) -> bool:
        """Whether the text has ended."""

    @property
    def can_draft(self) -> bool:
        """Whether the draft may add a token to the block."""

    @property
    def num_replaceable(self) -> int:
        """How many drafted tokens an assistant could replace whose prediction is not known."""

    @property
    def is_final(self) -> bool:
        """Whether the block holds text, and no assistant could replace any of it."""

    def draft_request(self, width: int) -> PassRequest:
        """Where the draft writes its next token, and up to ``width`` further ones if they are as guessed."""

    def propose(self, prediction: Prediction, *, passes: int = 1) -> None:
        """Add the draft's next token to the block, which took so many passes."""

    def assistant_ids(self, assistant: int) -> list[int]:
        """Prompt, text and block in an assistant's token ids."""

    def verify(self) -> list[PassRequest]:
        """Decide which tokens of the block stand.

        Returns:
            Nothing once that is decided; before, the predictions that are needed first, one request per
            assistant. They are given to :meth:`add_predictions`, and the row verifies again.
        """

    def add_predictions(self, predictions: Sequence[Sequence[Prediction]]) -> None:
        """Take the predictions of every assistant at the positions that :meth:`verify` requested."""

    def commit(self) -> Step:
        """Append what stands to the text and begin the next block."""

    def discard_block(self) -> None:
        """Drop the block and its predictions; the next round drafts it again."""

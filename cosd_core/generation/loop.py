"""The method: the paper's Algorithm 1 over a batch of rows, round by round."""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import zip_longest

import torch

from cosd_core.generation.lookup import GuessWidth
from cosd_core.generation.prompt_reading import PromptReading
from cosd_core.generation.row import PassRequest, Row
from cosd_core.generation.scheduling import Schedule, start
from cosd_core.generation.text_state import RowConfig
from cosd_core.models.base import OpensSessions
from cosd_core.outputs import Step
from cosd_core.prediction import Prediction
from cosd_core.verifiers.base import can_replace

_FREE_PADDING = 256
"""Slots per row that may be padding whatever the lengths: they cost little beside a pass."""


class Batch:
    """Rows that one draft model and its assistants decode together.

    Attributes:
        rows: The unfinished rows, in the order in which they joined.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        models: Sequence[OpensSessions],
        vocabularies: Sequence[int],
        config: RowConfig,
        schedule: Schedule,
        deterministic: bool = False,
        lookup: bool = False,
        prefill_chunk_size: int = sys.maxsize,
    ) -> None:
        """Open a session of every model. The first model drafts.

        Args:
            rows: What is to be decoded; at least one row.
            models: The draft, then the assistants.
            vocabularies: Per model, how many token ids take part.
            config: The settings of the rows: the verifier above all.
            schedule: How far to draft.
            deterministic: Whether nothing depends on measured times and on earlier texts.
            lookup: Whether the next text is guessed, copied from the prompt and the text.
            prefill_chunk_size: About how many ids of prompts a model processes in one round.
        """
        self.rows = list(rows)
        roles = ("draft", *(f"assistant {at}" for at in range(len(models) - 1)))
        self._sessions = [
            model.open_session(
                vocabulary=vocabulary, role=role, calibration=temperature, prefix_caching=not deterministic
            )
            for model, vocabulary, role, temperature in zip(
                models, vocabularies, roles, config.calibration, strict=True
            )
        ]
        self._draft, *self._assistants = self._sessions
        self._keep_logits = config.verifier.needs_logits
        self._vocabulary = vocabularies[0]
        self._schedule = start(schedule, len(rows), partial(can_replace, config.verifier))
        self._steps: list[Step] = []  # of the last round
        self._num_known = 0  # rows that have been through a round
        self._prefills = True  # whether the next pass of the draft reads a prompt
        is_long = sum(len(row.input_ids) for row in rows) > prefill_chunk_size
        readers = self._sessions if can_replace(config.verifier, 0.0) else [self._draft]
        self._reading = PromptReading(readers if is_long else (), prefill_chunk_size)
        self._is_drafted = False  # whether the blocks wait for assistants that read the prompts
        self._guess_width = GuessWidth(measured=not deterministic) if lookup else None

    def rounds(self) -> Iterator[Step]:
        """Run to the end: one step per unfinished row and round."""
        while self.rows:
            yield from self.round()
            self.remove([row for row in self.rows if row.is_finished])

    @torch.inference_mode()
    def round(self) -> list[Step]:
        """One round of the paper's Algorithm 1: one step per row, in their order.

        Or no step: long prompts are read in chunks, one per call.

        All rows are verified before the first commits, because a verifier may raise, and what is committed
        must be reported. For the same reason the schedule gets the steps when the next round begins.
        """
        if not self._is_drafted:
            if self._reading.read_chunk(self._draft, [row.input_ids for row in self.rows]):
                return []
            self._begin_round()
            self._draft_blocks()
        if self._assistants_read_on():
            return []
        self._verify_blocks()
        return self._commit_blocks()

    @property
    def is_reading(self) -> bool:
        """Whether the next round may read a chunk of long prompts."""
        return self._draft in self._reading.unread or self._is_drafted

    def _assistants_read_on(self) -> bool:
        """Whether the blocks wait for assistants, which read the prompts when they are first needed."""
        waits = bool(self._reading.unread) and any(row.verify() for row in self.rows)
        if waits and self._is_drafted:  # otherwise the draft has had this turn
            waits = any(
                self._reading.read_chunk(session, [row.assistant_ids(at) for row in self.rows])
                for at, session in enumerate(self._assistants)
            )
        self._is_drafted = waits
        return waits

    def _begin_round(self) -> None:
        self._schedule.begin_round(len(self.rows), len(self.rows) - self._num_known, self._steps)
        self._steps = []
        self._prefills = self._num_known < len(self.rows)

    def _draft_blocks(self) -> None:
        """The draft adds a token to every block, until they are full or the schedule stops.

        Text that no assistant could replace is not held back until then.
        """
        self._propose_forced()
        while any(can_draft := [row.can_draft for row in self.rows]):
            if any(row.is_final for row in self.rows) and not any(row.num_replaceable for row in self.rows):
                return
            drafting = [row for row, can in zip(self.rows, can_draft, strict=True) if can]
            if not self._schedule.should_draft([row.num_replaceable for row in drafting]):
                return
            started = time.perf_counter()
            width = self._guess_width.value if self._guess_width else 0
            requests = [
                row.draft_request(width) if can else PassRequest(row.input_ids)
                for row, can in zip(self.rows, can_draft, strict=True)
            ]
            ids, positions = [each.input_ids for each in requests], [each.positions for each in requests]
            predictions = self._draft.predict(ids, positions, keep_logits=self._keep_logits)
            written = sum(map(_propose, self.rows, requests, predictions))
            spent = time.perf_counter() - started
            self._schedule.drafted(spent)
            if self._guess_width and not self._prefills:
                self._guess_width.add(written / len(drafting), spent)
            self._prefills = False
            self._propose_forced()

    def _propose_forced(self) -> None:
        """Add tokens to which the grammar leaves no alternative; they take no pass."""
        if self._keep_logits:  # the verifier wants the draft's logits
            return
        for row in self.rows:
            while row.can_draft:
                [position] = row.draft_request(0).positions
                token = position.forced_token(self._vocabulary)
                if token is None:
                    break
                row.propose(Prediction(token, 1.0), passes=0)

    def _verify_blocks(self) -> None:
        """Every row decides which tokens stand; the assistants make the predictions that this takes."""
        while any(requests := [row.verify() for row in self.rows]):
            self._run_assistants(requests)

    def _run_assistants(self, requests: Sequence[Sequence[PassRequest]]) -> None:
        """One pass of every assistant from which a row needs predictions; ``requests[row][assistant]``."""
        started = time.perf_counter()
        pending = []
        for at, session in enumerate(self._assistants):
            asked = [
                each[at] if each else PassRequest(row.assistant_ids(at))
                for row, each in zip(self.rows, requests, strict=True)
            ]
            positions = [request.positions for request in asked]
            ids = [request.input_ids for request in asked]
            wanted = any(positions)
            pending.append(session.submit(ids, positions, keep_logits=self._keep_logits) if wanted else None)
        # All passes have started before the first result is awaited: devices and servers work side by side.
        nothing: list[list[Prediction]] = [[] for _ in self.rows]
        results = [nothing if each is None else each.result() for each in pending]
        for row, each, *predictions in zip(self.rows, requests, *results, strict=True):
            if each:
                row.add_predictions(predictions)
        self._schedule.verified(time.perf_counter() - started)

    def _commit_blocks(self) -> list[Step]:
        """Every row appends what stands to its text."""
        self._steps = [row.commit() for row in self.rows]
        self._num_known = len(self.rows)
        self._reading.share()
        return self._steps

    def can_join(self, rows: Sequence[Row]) -> bool:
        """Whether these rows are of like length, and no long prompts are to be read.

        Every row is padded to the longest: in the caches, which all rows share, and in the first pass over
        the prompts of new rows.
        """
        new = [*self.rows[self._num_known :], *rows]
        is_short = sum(len(row.input_ids) for row in new) <= self._reading.chunk_size
        return is_short and not self._reading.unread and all(map(_of_like_length, ([*self.rows, *rows], new)))

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows between two rounds."""
        self.rows = [*self.rows, *rows]

    def can_merge(self, other: "Batch") -> bool:
        """Whether the rows of another batch, with all that the models hold of them, can be added."""
        # A session holds the first rows of its batch.
        in_order = all(
            mine.num_rows == len(self.rows) or not others.num_rows
            for mine, others in zip(self._sessions, other._sessions, strict=True)
        )
        is_new = self._num_known < len(self.rows) or other._num_known < len(other.rows)
        is_read = not (self._reading.unread or other._reading.unread or is_new)
        return in_order and is_read and _of_like_length([*self.rows, *other.rows])

    def merge(self, other: "Batch") -> None:
        """Add the rows of another batch between two rounds of both; the other one ends."""
        for mine, others in zip(self._sessions, other._sessions, strict=True):
            mine.join(others)
        self.rows = [*self.rows, *other.rows]
        self._num_known = len(self.rows)

    def remove(self, rows: Collection[Row]) -> None:
        """Drop rows between two rounds, and the models' caches of them."""
        kept = [at for at, row in enumerate(self.rows) if row not in rows]
        if len(kept) == len(self.rows):
            return
        for session in self._sessions:
            session.select(kept)
        self.rows = [self.rows[at] for at in kept]
        self._num_known = sum(at < self._num_known for at in kept)


def _propose(row: Row, request: PassRequest, predictions: Sequence[Prediction]) -> int:
    """Add the draft's predictions up to the first that is not as guessed; returns how many."""
    guess = request.input_ids[len(row.input_ids) :]
    for count, (prediction, guessed) in enumerate(zip_longest(predictions, guess), 1):
        row.propose(prediction, passes=count == 1)
        if prediction.id != guessed or not row.can_draft:
            return count
    return 0


def _of_like_length(rows: Sequence[Row]) -> bool:
    """Whether at most about half of the slots of these rows would be padding, or few of them."""
    lengths = [len(row.input_ids) for row in rows]
    return max(lengths) * len(rows) <= 2 * sum(lengths) + _FREE_PADDING * len(rows)

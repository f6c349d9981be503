"""The method itself: some rows on their way together, round by round."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import torch

from cosd_core.generation.row import Row
from cosd_core.generation.scheduling import Schedule
from cosd_core.models.language_model import LanguageModel
from cosd_core.outputs import Step
from cosd_core.prediction import Prediction
from cosd_core.verifiers.base import Verifier

_SPARE = 256
"""Slots per row that may be padding whatever the lengths: they cost little beside a pass."""


class Batch:
    """Rows that are decoded together by one draft model and its assistants.

    Attributes:
        rows: Those on their way, in the order in which they joined.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        models: Sequence[LanguageModel],
        vocabularies: Sequence[int],
        verifier: Verifier,
        schedule: Schedule,
        calibration: Sequence[float],
    ) -> None:
        """Begin with these rows, at least one. The first model drafts.

        Args:
            rows: What is to be decoded.
            models: The draft, then the assistants.
            vocabularies: How many token ids of each take part.
            verifier: Who judges.
            schedule: How far to draft.
            calibration: The temperature of every model's confidences.
        """
        self.rows = list(rows)
        roles = ("draft", *(f"assistant {at}" for at in range(len(models) - 1)))
        self._draft, *self._assistants = [
            model.open_session(vocabulary=vocabulary, role=role, calibration=temperature)
            for model, vocabulary, role, temperature in zip(
                models, vocabularies, roles, calibration, strict=True
            )
        ]
        self._known = 0  # so many have been through a round
        self._pace = schedule.start(len(rows), verifier.can_replace)
        self._news: list[Callable[[], None]] = []  # what the pace has not been told yet
        self._keep_logits = verifier.needs_logits

    def suits(self, rows: Sequence[Row]) -> bool:
        """Whether these rows are of like length: every row is padded to the longest.

        That goes for the caches, which all rows share, and for the prompts that newcomers read together.
        """
        return all(_alike([*old, *rows]) for old in (self.rows, self.rows[self._known :]))

    def add(self, rows: Sequence[Row]) -> None:
        """Let more rows join between two rounds."""
        self.rows = [*self.rows, *rows]
        self._resized()

    def remove(self, rows: Collection[Row]) -> None:
        """Go on without these rows."""
        going_on = [at for at, row in enumerate(self.rows) if row not in rows]
        if len(going_on) == len(self.rows):
            return
        for session in (self._draft, *self._assistants):
            session.select(going_on)
        self.rows = [self.rows[at] for at in going_on]
        self._known = sum(at < self._known for at in going_on)
        if self.rows:
            self._resized()

    def rounds(self) -> Iterator[Step]:
        """Run to the end, one step per unfinished row and round."""
        while self.rows:
            yield from self.round()
            self.remove([row for row in self.rows if row.finished])

    @torch.inference_mode()
    def round(self) -> list[Step]:
        """Propose, ask, judge and commit (paper, Algorithm 1): one step per row, in their order.

        All are judged before the first commits: a verifier may raise, and what is committed must be told.
        For the same reason the schedule hears of a round when the next one begins: it may raise, too.
        """
        for tell in self._news:
            tell()
        self._news.clear()
        self._propose()
        if any(row.asks for row in self.rows):
            self._ask()
        for row in self.rows:
            row.judge()
        while any(row.question for row in self.rows):
            self._ask_on()
        steps = [row.commit() for row in self.rows]
        self._known = len(self.rows)
        self._news += [partial(self._pace.judged, step) for step in steps]
        return steps

    def _resized(self) -> None:
        self._news.append(partial(self._pace.resized, len(self.rows)))

    def _propose(self) -> None:
        """Let the draft write until the blocks are full or the schedule wants an opinion."""
        while (doubts := [row.doubts for row in self.rows if row.writing]) and self._pace.should_draft(
            doubts
        ):
            started = time.perf_counter()
            spots = [[row.spot()] if row.writing else [] for row in self.rows]
            proposals = self._draft.predict(
                [row.ids for row in self.rows], spots, keep_logits=self._keep_logits
            )
            for row, proposal in zip(self.rows, proposals, strict=True):
                if proposal:
                    row.propose(proposal[0])
            self._pace.drafted(time.perf_counter() - started)

    def _ask(self) -> None:
        """Let every assistant look at all places of the blocks, and one ahead, in one pass."""
        started = time.perf_counter()
        spots = [
            [row.spots(at) if row.asks else [] for row in self.rows] for at in range(len(self._assistants))
        ]
        # Assistants on different devices run side by side: all passes start before the first answer is read.
        pending = {
            at: assistant.submit(
                [row.seen_by(at) for row in self.rows], spots[at], keep_logits=self._keep_logits
            )
            for at, assistant in enumerate(self._assistants)
            if any(spots[at])
        }
        silence: list[list[Prediction]] = [[] for _ in self.rows]
        answers = [pending[at].result() if at in pending else silence for at in range(len(self._assistants))]
        for row, *opinions in zip(self.rows, *answers, strict=True):
            if row.asks:
                row.hear(opinions)
        self._pace.asked(time.perf_counter() - started)

    def _ask_on(self) -> None:
        """Let every assistant write one more token where a row wants to hear it out."""
        started = time.perf_counter()
        for at, assistant in enumerate(self._assistants):
            questions = [row.question for row in self.rows]
            spots = [[each.spot] if each and each.assistant == at else [] for each in questions]
            if not any(spots):
                continue
            ids = [
                list(spot[0].ids) if spot else row.seen_by(at)
                for row, spot in zip(self.rows, spots, strict=True)
            ]
            answers = assistant.predict(ids, spots, keep_logits=self._keep_logits)
            for row, answer in zip(self.rows, answers, strict=True):
                if answer:
                    row.answer(answer[0])
        self._pace.asked(time.perf_counter() - started)


def _alike(rows: Sequence[Row]) -> bool:
    """Whether at most about half of the slots of these rows would be padding, or not many."""
    lengths = [len(row.ids) for row in rows]
    return max(lengths) * len(rows) <= 2 * sum(lengths) + _SPARE * len(rows)

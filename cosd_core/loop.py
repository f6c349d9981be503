"""The method itself: some rows on their way together, round by round."""

import time
from collections.abc import Iterator, Sequence

import torch

from cosd_core.models.local import Session
from cosd_core.records import Prediction, Step
from cosd_core.row import Row
from cosd_core.sampling import Spot, predict
from cosd_core.scheduling import Pace


class Batch:
    """Rows that are decoded together by one draft model and its assistants."""

    def __init__(
        self,
        rows: Sequence[Row],
        draft: Session,
        assistants: Sequence[Session],
        pace: Pace,
        *,
        keep_logits: bool,
    ) -> None:
        self._rows = list(rows)
        self._draft = draft
        self._assistants = list(assistants)
        self._pace = pace
        self._keep_logits = keep_logits

    def rounds(self) -> Iterator[Step]:
        """Run to the end, one step per unfinished row and round."""
        while self._rows:
            yield from self._round()
            self._drop_finished()

    @torch.inference_mode()
    def _round(self) -> list[Step]:
        """Propose, ask, judge and commit (paper, Algorithm 1)."""
        self._propose()
        if any(row.asks for row in self._rows):
            self._ask()
        steps = [row.commit() for row in self._rows]
        for step in steps:
            self._pace.judged(step)
        return steps

    def _propose(self) -> None:
        """Let the draft write until the blocks are full or the schedule wants an opinion."""
        while (doubts := [row.doubts for row in self._rows if row.writing]) and self._pace.drafts_on(doubts):
            started = time.perf_counter()
            spots = [[row.spot()] if row.writing else [] for row in self._rows]
            logits = self._draft.logits([row.ids for row in self._rows], last=1)
            for row, proposal in zip(self._rows, self._predict(logits, spots, "draft"), strict=True):
                if proposal:
                    row.propose(proposal[0])
            self._pace.drafted(time.perf_counter() - started)

    def _ask(self) -> None:
        """Let every assistant look at all places of the blocks, and one ahead, in one pass."""
        started = time.perf_counter()
        last = max(len(row.block) + 1 for row in self._rows if row.asks)
        # Assistants on different devices run side by side: all passes start before the first answer is read.
        logits = [
            assistant.logits([row.seen_by(at) for row in self._rows], last=last)
            for at, assistant in enumerate(self._assistants)
        ]
        answers = [
            self._predict(each, [row.spots(at) if row.asks else [] for row in self._rows], f"assistant {at}")
            for at, each in enumerate(logits)
        ]
        for row, *opinions in zip(self._rows, *answers, strict=True):
            if row.asks:
                row.hear(list(zip(*opinions, strict=True)))
        self._pace.asked(time.perf_counter() - started)

    def _predict(
        self, logits: torch.Tensor, spots: Sequence[Sequence[Spot]], purpose: str
    ) -> list[list[Prediction]]:
        """Read the logits, ``[rows, places, vocabulary]``, at the last places of every row."""
        places = logits.shape[1]
        wanted = [row[places - len(each) :] for row, each in zip(logits, spots, strict=True) if each]
        flat = [spot for each in spots for spot in each]
        predictions = iter(predict(torch.cat(wanted), flat, purpose, keep_logits=self._keep_logits))
        return [[next(predictions) for _ in each] for each in spots]

    def _drop_finished(self) -> None:
        going_on = [at for at, row in enumerate(self._rows) if not row.finished]
        if len(going_on) == len(self._rows):
            return
        self._rows = [self._rows[at] for at in going_on]
        if going_on:
            for session in (self._draft, *self._assistants):
                session.select(going_on)

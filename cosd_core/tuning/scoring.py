"""Candidates answer the questions, by what was learned without them, and it is known what is right."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cosd_core.decoder import CoSDDecoder
from cosd_core.evaluation.answers import AnswerFile
from cosd_core.evaluation.methods import Method
from cosd_core.evaluation.runner import run
from cosd_core.evaluation.tasks import Task
from cosd_core.tuning.candidates import Candidate
from cosd_core.tuning.folds import Folds, Learned, left_out
from cosd_core.tuning.prefix_trie import Setting
from cosd_core.tuning.replay import ReplayCache
from cosd_core.tuning.selection import Flags
from cosd_core.verifiers import AverageVerifier

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""


class CandidateScorer:
    """Lets candidates answer, and knows what is right.

    Attributes:
        averaged: Tokens that averages wrote.
    """

    def __init__(
        self,
        pair: CoSDDecoder,
        task: Task,
        *,
        options: Mapping[str, Any],
        memo: ReplayCache,
        fold_of: Sequence[int],
        folds: int,
        learned: Mapping[Folds, Learned],
        answers: AnswerFile,
    ) -> None:
        """Prepare.

        Args:
            pair: What answers.
            task: The questions.
            options: How texts are written.
            memo: The replay over the task's prompts.
            fold_of: The fold of every question.
            folds: How many there are.
            learned: What was learned without some folds.
            answers: Where what averages write is kept.
        """
        self._pair, self._task, self._options, self._memo = pair, task, options, memo
        self._folds, self._learned, self._answers = folds, learned, answers
        self._of_fold = [[at for at, each in enumerate(fold_of) if each == fold] for fold in range(folds)]
        self._known: dict[tuple[int, str], bool] = {}
        self.averaged = 0

    def judge(self, candidates: Sequence[Candidate], progress: Progress) -> tuple[Flags, Flags]:
        """What they get right: by what was learned without a question's fold, and without another one, too.

        Returns:
            ``[candidates, questions]`` and ``[folds, candidates, questions]``, the other fold first.
        """
        shape = (len(candidates), len(self._task.items))
        right, inner = np.zeros(shape, np.bool_), np.zeros((self._folds, *shape), np.bool_)
        averages = [at for at, each in enumerate(candidates) if isinstance(each.verifier, AverageVerifier)]
        for number, at in enumerate(averages):
            progress("averaging", number, len(averages))
            right[at] = inner[:, at] = self._decoded(candidates[at])
        progress("averaging", len(averages), len(averages))
        places = [
            place
            for at, each in enumerate(candidates)
            if at not in averages
            for place in self._places(at, each)
        ]
        written = self._memo.write_all(
            [(place.setting, place.item) for place in places], partial(progress, "replaying")
        )
        for place, ending in zip(places, written, strict=True):
            found = self._is_right(place.item, ending.text)
            if place.outer:
                right[place.candidate, place.item] = found
            inner[[*place.inner], place.candidate, place.item] = found
        return right, inner

    def _places(self, at: int, candidate: Candidate) -> Iterator["_Place"]:
        """Where a candidate is to answer, and what its answers are for."""
        every = tuple(range(self._folds))
        if not candidate.learns:
            setting = candidate.setting(Learned())
            for item in range(len(self._task.items)):
                yield _Place(at, setting, item, outer=True, inner=every)
            return
        for without in filter(None, left_out(self._folds)):
            setting = candidate.setting(self._learned[without])
            for fold in without:
                others = tuple(without - {fold})
                for item in self._of_fold[fold]:
                    yield _Place(at, setting, item, outer=not others, inner=others)

    def _decoded(self, candidate: Candidate) -> Flags:
        """An average is written by itself: it sees both distributions, of which the memo keeps too little."""
        parts = {
            "verifier": candidate.verifier,
            "schedule": self._pair.schedule,
            "draft_length": self._pair.draft_length,
            "batch_size": self._pair.batch_size,
            "calibration": (1.0, 1.0),
        }
        method = Method(candidate.name, parts)
        [outcome] = run(self._pair, [method], [self._task], answers=self._answers, options=self._options)
        self.averaged += sum(answer.tokens for answer in outcome.answers)
        return np.array(outcome.right)

    def _is_right(self, at: int, text: str) -> bool:
        """Thousands of settings write the same few texts."""
        if (at, text) not in self._known:
            self._known[at, text] = self._task.items[at].is_right(text)
        return self._known[at, text]


@dataclass(frozen=True, slots=True)
class _Place:
    """One answer of one candidate.

    Attributes:
        candidate: Its number.
        setting: What it comes to here.
        item: The question.
        outer: Whether the answer judges the candidate.
        inner: The folds for which it helps to choose.
    """

    candidate: int
    setting: Setting
    item: int
    outer: bool
    inner: tuple[int, ...]

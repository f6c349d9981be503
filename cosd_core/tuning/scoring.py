"""Scores every candidate by cross-validation."""

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
from cosd_core.tuning.decision_trie import Setting
from cosd_core.tuning.folds import Fit, Folds, left_out
from cosd_core.tuning.replay import ReplayCache
from cosd_core.tuning.selection import Flags
from cosd_core.verifiers import AverageVerifier

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, its finished parts and all its parts."""


class CandidateScorer:
    """Answers the questions with candidates, scores the answers, and counts the tokens ``averaged``."""

    def __init__(
        self,
        pair: CoSDDecoder,
        task: Task,
        *,
        options: Mapping[str, Any],
        cache: ReplayCache,
        fold_of: Sequence[int],
        fits: Mapping[Folds, Fit],
        answers: AnswerFile,
    ) -> None:
        """Score with a replay over the task's prompts; ``answers`` is the file of the averages' answers."""
        self._pair, self._task, self._options, self._cache = pair, task, options, cache
        self._folds, self._fits, self._answers = max(fold_of) + 1, fits, answers
        self._of_fold = [np.flatnonzero(np.equal(fold_of, fold)).tolist() for fold in range(self._folds)]
        self._scored: dict[tuple[int, str], bool] = {}
        self.averaged = 0

    def score(self, candidates: Sequence[Candidate], progress: Progress) -> tuple[Flags, Flags]:
        """Whether each answer is right, with fits without the question's fold, and without one fold more.

        Returns:
            ``[candidates, questions]`` and ``[folds, candidates, questions]``, where the first axis is the
            other fold.
        """
        shape = (len(candidates), len(self._task.items))
        right, inner = np.zeros(shape, np.bool_), np.zeros((self._folds, *shape), np.bool_)
        averages = [at for at, each in enumerate(candidates) if isinstance(each.verifier, AverageVerifier)]
        for number, index in enumerate(averages):
            progress("averaging", number, len(averages))
            right[index] = inner[:, index] = self._decode(candidates[index])
        progress("averaging", len(averages), len(averages))
        replayed = (at for at in range(len(candidates)) if at not in averages)
        trials = [trial for at in replayed for trial in self._trials(at, candidates[at])]
        endings = self._cache.generate(
            [(trial.setting, trial.item) for trial in trials], partial(progress, "replaying")
        )
        for trial, ending in zip(trials, endings, strict=True):
            found = self._is_right(trial.item, ending.text)
            if trial.outer:
                right[trial.candidate, trial.item] = found
            inner[[*trial.inner], trial.candidate, trial.item] = found
        return right, inner

    def _trials(self, index: int, candidate: Candidate) -> Iterator["_Trial"]:
        """All answers that a candidate needs, with the fits they use."""
        every = tuple(range(self._folds))
        if not candidate.fitted:
            setting = candidate.setting(Fit())
            for item in range(len(self._task.items)):
                yield _Trial(index, setting, item, outer=True, inner=every)
            return
        for without in filter(None, left_out(self._folds)):
            setting = candidate.setting(self._fits[without])
            for fold in without:
                others = tuple(without - {fold})
                for item in self._of_fold[fold]:
                    yield _Trial(index, setting, item, outer=not others, inner=others)

    def _decode(self, candidate: Candidate) -> Flags:
        """Answer with an average, which cannot be replayed: it needs both whole distributions."""
        parts = {name: getattr(self._pair, name) for name in ("schedule", "draft_length", "batch_size")}
        parts |= {"verifier": candidate.verifier, "calibration": (1.0,) * len(self._pair.models)}
        method = Method(candidate.name, parts)
        [outcome] = run(self._pair, [method], [self._task], answers=self._answers, options=self._options)
        self.averaged += sum(answer.tokens for answer in outcome.answers)
        return np.array(outcome.right)

    def _is_right(self, item: int, text: str) -> bool:
        """The score of a text; thousands of settings write the same few texts."""
        if (item, text) not in self._scored:
            self._scored[item, text] = self._task.items[item].is_right(text)
        return self._scored[item, text]


@dataclass(frozen=True, slots=True)
class _Trial:
    """One answer of one candidate.

    It counts in the candidate's score if ``outer``, and in the choices for the folds ``inner``.
    """

    candidate: int
    setting: Setting
    item: int
    outer: bool
    inner: tuple[int, ...]

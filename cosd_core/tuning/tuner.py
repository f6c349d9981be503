"""Tuning from beginning to end: learn, write or replay, choose, recommend."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidOptionError, TrainingDataError
from cosd_core.evaluation.answers import AnswerFile
from cosd_core.evaluation.tasks import Item, Task
from cosd_core.frontend.settings import settings_of_names
from cosd_core.models.vocabulary_alignment import require_one_vocabulary
from cosd_core.training.calibration import Calibration, Reliability
from cosd_core.training.teacher_forcing import observe
from cosd_core.tuning.candidates import (
    ALPHAS,
    BETAS,
    DEFAULT,
    WEIGHTS,
    make_candidates,
)
from cosd_core.tuning.folds import ALL, Folds, Learned, divide, learn, temperatures_of
from cosd_core.tuning.prefix_trie import Setting
from cosd_core.tuning.recommendation import recommend, warn
from cosd_core.tuning.replay import ReplayCache, processes_logits
from cosd_core.tuning.report import CalibrationSummary, Line, ReplacementRate, Tuning
from cosd_core.tuning.scoring import CandidateScorer, Progress
from cosd_core.tuning.selection import Table, accuracy, choose_nested, difference
from cosd_core.verifiers.observations import Observations


def tune(
    pair: CoSDDecoder,
    task: Task,
    *,
    folder: str | Path,
    options: Mapping[str, Any] | None = None,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    weights: Sequence[float] = WEIGHTS,
    wide: bool = False,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Tuning:
    """Find out whether fusing a pair helps on a task, with which verifier, and how sure that is.

    Both models alone, averages, and rules and trees in both roles, calibrated and not, are judged by
    cross-validation over questions. Trees and temperatures are learned from the questions' completions, never
    from those that they are judged on.

    Args:
        pair: Two loaded models. How they work together is what is looked for.
        task: Questions with answers; those with completions are learned from.
        folder: Where what is written is kept, so that an interrupted run goes on.
        options: Fields of :class:`GenerationOptions`; they go before those of the task.
        alphas: What rules are tried with.
        betas: The same.
        weights: The first model's shares in averages.
        wide: Whether to try :class:`WideTreeVerifier`, too.
        folds: Into how many parts the questions are divided.
        seed: How.
        progress: Told what is done, how much of it, and of how much.

    Raises:
        InvalidOptionError: There are more than two models, the options sample, or a value is wrong.
        VocabularyMismatchError: They have different tokenizers.
        EvaluationFileError: What is kept cannot be read or written.
        CoSDError: As :meth:`CoSDDecoder.generate` and :func:`observe`.
    """
    if len(pair.models) != 2:
        raise InvalidOptionError(f"roles are tried between two models, not {len(pair.models)}")
    require_one_vocabulary(pair.models, "tuning")
    wanted = {**task.options, **(options or {})}
    names = _short([model.name for model in pair.models])
    grid = partial(make_candidates, names, alphas=alphas, betas=betas, weights=weights)
    grid(learns=False)  # wrong values are found before the work
    fold_of = divide(task.items, folds, seed)
    observations, learned, notes = _learn(pair, task.items, fold_of, folds, Path(folder), progress, wide=wide)
    if learned and processes_logits(wanted):
        learned, notes = {}, ("Trees and calibration were not tried, since logits are processed.",)
    candidates = grid(learns=ALL in learned, wide=wide)
    memo = ReplayCache(
        pair.models,
        [item.prompt for item in task.items],
        wanted,
        temperatures=temperatures_of(learned),
        wide=wide and ALL in learned,
        draft_length=pair.draft_length,
        batch_size=pair.batch_size,
        notes=Path(folder) / "notes.jsonl",
    )
    judge = CandidateScorer(
        pair,
        task,
        options=wanted,
        memo=memo,
        fold_of=fold_of,
        folds=folds,
        learned=learned,
        answers=AnswerFile(Path(folder) / "answers.jsonl"),
    )
    right, inner = judge.judge(candidates, progress)
    table = Table(candidates, np.array(fold_of), right, inner)
    firings = tuple(_firing(memo, names, swapped, len(task.items)) for swapped in (False, True))
    honesty = tuple(_honesty(observations, names)) if observations else ()
    choice = choose_nested(table)
    advice = recommend(table, choice)
    single = table.better_single
    models = [model.name for model in pair.models]
    lines = [_line(table, at, single, models, learned.get(ALL, Learned())) for at in range(len(candidates))]
    return Tuning(
        names=names,
        task=task.name,
        questions=len(task.items),
        folds=folds,
        lines=tuple(lines),
        better_single=candidates[single].name,
        chosen=tuple(candidates[at].name for at in choice.chosen),
        accuracy=accuracy(choice.right),
        gain=difference(choice.right, table.right[single]),
        fuse=advice.fuse,
        recommended=lines[advice.recommended].name,
        settings=lines[advice.recommended].settings,
        advice=advice.said,
        warnings=warn(table, firings, honesty),
        notes=notes,
        firings=firings,
        honesty=honesty,
        computed=memo.computed,
        replayed=memo.replayed,
        averaged=judge.averaged,
    )


def _learn(
    pair: CoSDDecoder,
    items: Sequence[Item],
    fold_of: Sequence[int],
    folds: int,
    folder: Path,
    progress: Progress,
    *,
    wide: bool,
) -> tuple[Observations | None, dict[Folds, Learned], tuple[str, ...]]:
    """What both models think of the completions, what is learned of that, and what could not be."""
    taught = [at for at, item in enumerate(items) if item.completion is not None]
    if not taught:
        return None, {}, ("No question has a completion, so trees and calibration were not tried.",)
    lessons = [(items[at].prompt, items[at].completion) for at in taught]
    said = [
        [model.name for model in pair.models],
        [(items[at].identity, items[at].completion) for at in taught],
    ]
    key = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    observations = observe(
        pair.models,
        lessons,
        checkpoint=folder / f"observations-{key[:12]}",
        progress=lambda done, total: progress("reading", done, total),
    )
    try:
        learned = learn(
            observations,
            [fold_of[at] for at in taught],
            folds,
            lambda done, total: progress("learning", done, total),
            wide=wide,
        )
    except TrainingDataError as error:
        return observations, {}, (f"Trees and calibration were not tried: {error}.",)
    missing = len(items) - len(taught)
    return observations, learned, (f"{missing} questions have no completion.",) if missing else ()


def _line(table: Table, at: int, single: int, models: Sequence[str], learned: Learned) -> Line:
    candidate, right = table.candidates[at], table.right[at]
    rule = candidate.rule
    return Line(
        name=candidate.name,
        verifier=candidate.verifier_of(learned).name,
        swapped=candidate.swapped,
        calibrated=candidate.calibrated,
        alpha=rule.alpha if rule else None,
        beta=rule.beta if rule else None,
        right=int(right.sum()),
        accuracy=accuracy(right),
        gain=None if candidate.single else difference(right, table.right[single]),
        settings={
            **settings_of_names(models[candidate.swapped], models[not candidate.swapped]),
            **candidate.fields(learned),
        },
    )


def _firing(memo: ReplayCache, names: Sequence[str], swapped: bool, items: int) -> ReplacementRate:
    counts: Counter[str] = Counter()
    for thought, token in memo.thoughts(Setting(DEFAULT, swapped), range(items)):
        counts["positions"] += 1
        counts["differing"] += thought.picks[0] != thought.picks[1]
        counts["replaced"] += token != thought.picks[swapped]
    return ReplacementRate(names[swapped], counts["positions"], counts["differing"], counts["replaced"])


def _honesty(observations: Observations, names: Sequence[str]) -> Iterator[CalibrationSummary]:
    temperatures = Calibration.fit(observations).temperatures
    kept = ~observations.agreement[:, 0]
    arrays = [each.name for each in fields(observations) if each.name != "names"]
    differing = replace(observations, **{name: getattr(observations, name)[kept] for name in arrays})
    sure, right = differing.confidences(), differing.right
    for at, name in enumerate(names if len(differing) else ()):
        yield CalibrationSummary(
            model=name,
            sure=float(sure[:, at].mean(dtype=np.float64)),
            right=float(right[:, at].mean()),
            error=Reliability.of(differing, at).error,
            temperature=temperatures[at],
            calibrated_error=Reliability.of(differing, at, temperatures[at]).error,
        )


def _short(names: Sequence[str]) -> tuple[str, str]:
    """The last part of paths and hub ids, where that tells the two apart."""
    first, second = (Path(name).name for name in names)
    return (first, second) if first != second else (names[0], names[1])

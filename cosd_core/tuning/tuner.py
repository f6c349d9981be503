"""The whole tuning: fit, replay or decode, choose, recommend."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import TrainingDataError
from cosd_core.evaluation.answers import AnswerFile
from cosd_core.evaluation.intervals import accuracy, difference
from cosd_core.evaluation.tasks import Item, Task
from cosd_core.frontend.model_names import settings_of_names
from cosd_core.models.base import with_adapter, without_adapter
from cosd_core.training.calibration import Calibration, Reliability
from cosd_core.training.teacher_forcing import observe
from cosd_core.tuning.candidates import ALPHAS, BETAS, DEFAULT, WEIGHTS, make_candidates
from cosd_core.tuning.decision_trie import Setting, order_of
from cosd_core.tuning.folds import NONE_LEFT_OUT, Fit, Folds, divide, fit_without, temperatures_of
from cosd_core.tuning.recommendation import Advice, recommend, recommend_per_group, warn
from cosd_core.tuning.replay import ReplayCache, processes_logits
from cosd_core.tuning.report import CalibrationSummary, CandidateLine, GroupResult, ReplacementRate, Tuning
from cosd_core.tuning.scoring import CandidateScorer, Progress
from cosd_core.tuning.selection import Table, choose_nested
from cosd_core.verifiers.observations import NOT_ASKED, Observations


def tune(
    pair: CoSDDecoder,
    task: Task,
    *,
    folder: str | Path,
    options: Mapping[str, Any] | None = None,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    weights: Sequence[float] = WEIGHTS,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Tuning:
    """Find out whether fusing models helps on a task, and with which verifier, roles and calibration.

    Every model alone, averages, and rules and trees with every model as the draft, calibrated and not, are
    compared by cross-validation over questions. Trees and temperatures are fitted on the questions'
    completions, never on those that they are scored on. Models with different tokenizers have no averages.

    Args:
        pair: Two or more loaded models. The decoder's own verifier and calibration are not used.
        task: Questions with answers; those with completions are training data.
        folder: The folder for predictions and answers, from which an interrupted run continues.
        options: Fields of :class:`GenerationOptions`; they take precedence over those of the task.
        alphas: The thresholds of rules.
        betas: The same.
        weights: The first model's shares in averages.
        folds: The number of parts the questions are divided into.
        seed: Divides the questions.
        progress: Called with the name of a step, its finished parts and all its parts.

    Raises:
        InvalidOptionError: The options sample, or a value is wrong.
        EvaluationFileError: A file in the folder cannot be read or written.
        CoSDError: As :meth:`CoSDDecoder.generate` and :func:`observe`.
    """
    merged = {**task.options, **(options or {})}
    sources = [model.source or model.name for model in pair.models]
    names = _short(sources)
    grid = partial(make_candidates, names, alphas=alphas, betas=betas)
    grid(weights=weights, fitted=False)  # refuses wrong values before the work
    fold_of = divide(task.items, folds, seed)
    observed, fits, notes = _fit(pair, task.items, fold_of, folds, Path(folder), progress)
    if fits and processes_logits(merged):
        fits, notes = {}, ("Trees and calibration were not tried, since logits are processed.",)
    if not pair.shares_vocabulary:
        notes = (*notes, "Averages were not tried: the models have different tokenizers.")
    candidates = grid(weights=weights if pair.shares_vocabulary else (), fitted=bool(fits))
    cache = ReplayCache(
        pair.models,
        [item.prompt for item in task.items],
        merged,
        temperatures=temperatures_of(fits, len(names)) if fits else None,
        batch_size=pair.batch_size,
        log=Path(folder) / "predictions.jsonl",
    )
    scorer = CandidateScorer(
        pair,
        task,
        options=merged,
        cache=cache,
        fold_of=fold_of,
        fits=fits,
        answers=AnswerFile(Path(folder) / "answers.jsonl"),
    )
    right, inner = scorer.score(candidates, progress)
    table = Table(candidates, np.array(fold_of), right, inner)
    rates = tuple(_replacement_rate(cache, names, draft, len(task.items)) for draft in range(len(names)))
    calibrations = tuple(_calibrations(observed[0], names)) if observed else ()
    if cache.decoded:
        notes = (*notes, f"{cache.decoded} texts filled an assistant's context window, and were decoded.")
    choice = choose_nested(table)
    advice = recommend(table, choice)
    lines = [_line(table, index, sources, fits.get(NONE_LEFT_OUT, Fit())) for index in range(len(candidates))]
    return Tuning(
        names=names,
        task=task.name,
        questions=len(task.items),
        folds=folds,
        lines=tuple(lines),
        better_single=candidates[table.better_single].name,
        chosen=tuple(candidates[index].name for index in choice.chosen),
        accuracy=accuracy(choice.right),
        gain=difference(choice.right, table.right[table.better_single]),
        fuse=advice.fuse,
        recommended=lines[advice.recommended].name,
        settings=lines[advice.recommended].settings,
        advice=advice.sentences,
        groups=tuple(_groups(table, [item.group for item in task.items], advice, lines)),
        warnings=warn(table, rates, calibrations),
        notes=notes,
        replacement_rates=rates,
        calibrations=calibrations,
        computed=cache.computed,
        replayed=cache.replayed,
        decoded=cache.decoded,
        averaged=scorer.averaged,
    )


def _fit(
    pair: CoSDDecoder,
    items: Sequence[Item],
    fold_of: Sequence[int],
    folds: int,
    folder: Path,
    progress: Progress,
) -> tuple[list[Observations], dict[Folds, Fit], tuple[str, ...]]:
    """The models' predictions on the completions, the fits, and notes on what could not be fitted.

    Observations are returned with every model as the draft.
    """
    complete = [index for index, item in enumerate(items) if item.completion is not None]
    if not complete:
        return [], {}, ("No question has a completion, so trees and calibration were not tried.",)
    names = [model.source or model.name for model in pair.models]
    texts = [(items[index].identity, items[index].completion) for index in complete]
    key = hashlib.sha256(json.dumps([names, texts]).encode()).hexdigest()
    examples = [(items[index].prompt, items[index].completion) for index in complete]
    read = partial(
        observe,
        data=examples,
        checkpoint=folder / f"observations-{key[:12]}",
        progress=partial(progress, "reading"),
    )
    orders = [order_of(draft, len(names)) for draft in range(len(names))]
    if pair.shares_vocabulary:
        first = read(pair.models)
        observed = [first.of_models(*order) for order in orders]
    else:
        observed = [read([pair.models[at] for at in order]) for order in orders]
    try:
        fits = fit_without(
            observed, [fold_of[index] for index in complete], folds, partial(progress, "learning")
        )
    except TrainingDataError as error:
        return observed, {}, (f"Trees and calibration were not tried: {error}.",)
    missing = len(items) - len(complete)
    return observed, fits, (f"{missing} questions have no completion.",) if missing else ()


def _line(table: Table, index: int, models: Sequence[str], fit: Fit) -> CandidateLine:
    candidate, right = table.candidates[index], table.right[index]
    rule = candidate.rule
    return CandidateLine(
        name=candidate.name,
        verifier=candidate.verifier_of(fit).name,
        draft=candidate.draft,
        calibrated=candidate.calibrated,
        alpha=rule.alpha if rule else None,
        beta=rule.beta if rule else None,
        right=int(right.sum()),
        accuracy=accuracy(right),
        gain=None if candidate.single else difference(right, table.right[table.better_single]),
        settings={
            **settings_of_names(*(models[at] for at in order_of(candidate.draft, len(models)))),
            **candidate.fields(fit),
        },
    )


def _groups(
    table: Table, groups: Sequence[str], overall: Advice, lines: Sequence[CandidateLine]
) -> Iterator[GroupResult]:
    for name, (part, choice, advice) in recommend_per_group(table, groups, overall).items():
        yield GroupResult(
            name=name,
            questions=len(choice.right),
            better_single=part.candidates[part.better_single].name,
            accuracy=accuracy(choice.right),
            gain=difference(choice.right, part.right[part.better_single]),
            fuse=advice.fuse,
            recommended=lines[advice.recommended].name,
            settings=lines[advice.recommended].settings,
            advice=advice.sentences,
        )


def _replacement_rate(cache: ReplayCache, names: Sequence[str], draft: int, prompts: int) -> ReplacementRate:
    """The default rule's rate over the texts that it writes."""
    paths = [cache.path(Setting(DEFAULT, draft), prompt) for prompt in range(prompts)]
    return ReplacementRate(
        drafting=names[draft],
        positions=sum(path.last.ending.tokens for path in paths if path.last.ending),
        differing=sum(len(path.decisions) for path in paths),
        replaced=sum(map(bool, (each for path in paths for each in path.decisions))),
    )


def _calibrations(observations: Observations, names: Sequence[str]) -> Iterator[CalibrationSummary]:
    temperatures = Calibration.fit(observations).temperatures
    asked = np.not_equal(observations.predicted[:, 1:], NOT_ASKED)
    differing = observations.where(np.any(asked & ~observations.agreement, axis=1))
    for model, name in enumerate(names):
        seen = differing.where(np.not_equal(differing.predicted[:, model], NOT_ASKED)).of_models(model)
        if not len(seen):
            continue
        yield CalibrationSummary(
            model=name,
            confidence=float(seen.confidences().mean(dtype=np.float64)),
            right=float(seen.right.mean()),
            error=Reliability.of(seen, 0).error,
            temperature=temperatures[model],
            calibrated_error=Reliability.of(seen, 0, temperatures[model]).error,
        )


def _short(names: Sequence[str]) -> tuple[str, ...]:
    """The last parts of paths and hub ids, also of adapters, if these differ."""
    parts = [without_adapter(name) for name in names]
    short = tuple(with_adapter(Path(base).name, over and Path(over).name) for base, over in parts)
    return short if len(set(short)) == len(short) else tuple(names)

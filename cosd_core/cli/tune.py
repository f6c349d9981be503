"""``cosd tune``: whether fusing a pair helps on a task, and how."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cosd_core.cli.console import out, write_json
from cosd_core.cli.flags import with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.shared import generation_options, make_settings, names_models, with_models_and_tasks
from cosd_core.cli.targets import check_folder
from cosd_core.evaluation import BUNDLED, read_task, unasked_task
from cosd_core.evaluation.report import percent
from cosd_core.frontend.settings_file import read_settings, writable
from cosd_core.tuning import ALPHAS, BETAS, WEIGHTS, Tuning, tune

_OF_TUNING = (
    *("verifier", "alpha", "beta", "tree_path", "weight", "calibration", "schedule"),
    *("temperature", "top_p", "top_k", "min_p", "seed"),
)
"""Settings that tuning chooses itself, or that apply to sampling only."""


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{each:g}" for each in values)


@with_settings(*_OF_TUNING)
def run_tune(
    task: Annotated[
        str | None, typer.Option(help=f'A JSONL file of questions; "{BUNDLED}" means the bundled ones.')
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(help="JSON with settings. Flags take precedence; its verifier is ignored."),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help=f"Tried in rules. Several are possible. Default: {_listed(ALPHAS)}."),
    ] = None,
    beta: Annotated[
        list[float] | None,
        typer.Option(help=f"Tried in rules. Several are possible. Default: {_listed(BETAS)}."),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(help=f"Tried in averages. Several are possible. Default: {_listed(WEIGHTS)}."),
    ] = None,
    folds: Annotated[int, typer.Option(min=3, help="Parts that the questions are divided into.")] = 5,
    seed: Annotated[int, typer.Option(help="How they are divided.")] = 0,
    questions: Annotated[int, typer.Option(min=1, help="Bundled questions of each kind.")] = 100,
    to: Annotated[
        Path,
        typer.Option("--out", help="The folder for settings and report. An interrupted run continues there."),
    ] = Path("tuning"),
    plots: Annotated[bool, typer.Option("--plots", help="Also draw the heat maps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Find out whether fusing models helps on your task, with which verifier, and how sure that is.

        cosd tune --draft org/a --assistant org/b --task questions.jsonl

    Every model alone, averages, rules and trees, with every model as the draft, calibrated and not, are
    compared by cross-validation. The recommended settings are for --settings-file and for every constructor.
    Without --draft and --assistant it tunes the bundled pair on held-out questions that are not
    among those of cosd evaluate.
    """
    if settings_file:
        found = read_settings(settings_file)
        settings = {**{name: found[name] for name in found if name not in _OF_TUNING}, **settings}
    base = settings if names_models(settings) else {**settings, "dtype": "float32"}  # as the pair is loaded
    settings, [name] = with_models_and_tasks(settings, [task] if task else (), plots=plots)
    chosen = make_settings(settings)
    asked = unasked_task(questions) if name == BUNDLED else read_task(name)
    check_folder(to)
    with progress("loading the models") as report:
        tuning = tune(
            chosen.decoder(),
            asked,
            folder=to,
            options=generation_options(settings),
            alphas=alpha or ALPHAS,
            betas=beta or BETAS,
            weights=weight or WEIGHTS,
            folds=folds,
            seed=seed,
            progress=report,
        )
    tuning = replace(tuning, settings={**writable(base), **tuning.settings})
    written = tuning.save(to, plot=plots)
    if as_json:
        write_json(tuning.to_dict())
    else:
        _report_tuning(tuning)
        out.print(f"\nwrote {', '.join(map(str, written))}", soft_wrap=True)


def _report_tuning(tuning: Tuning) -> None:
    table = Table(
        title=f"{tuning.questions} questions in {tuning.folds} folds; percent, with intervals of 95 percent",
        caption=f"{tuning.computed:,} predictions were computed, {tuning.replayed:,} tokens replayed; "
        f"averages wrote {tuning.averaged:,} tokens",
    )
    table.add_column("method")
    for heading in ("right", "against the better model"):
        table.add_column(heading, justify="right")
    for line in tuning.highlights:
        gain = percent(line.gain, signed=True) if line.gain else ""
        style = "bold" if line.name == tuning.recommended else None
        table.add_row(line.name, percent(line.accuracy), gain, style=style)
    table.add_section()
    table.add_row("what was chosen", percent(tuning.accuracy), percent(tuning.gain, signed=True))
    out.print(table)
    out.print(f"\n{tuning.heat_maps()}\n")
    for sentences, style in (
        (tuning.advice, "bold"),
        (tuning.group_advice, None),
        (tuning.warnings, "yellow"),
        (tuning.notes, None),
    ):
        for sentence in sentences:
            out.print(sentence, style=style, soft_wrap=True)

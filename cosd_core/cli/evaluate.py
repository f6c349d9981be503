"""``cosd evaluate``: compares all methods on questions with known answers."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from cosd_core._version import __version__
from cosd_core.cli.console import err, out
from cosd_core.cli.flags import with_settings
from cosd_core.cli.shared import generation_options, make_settings, names_models, with_models_and_tasks
from cosd_core.evaluation import (
    BUNDLED,
    METHODS,
    AnswerFile,
    Report,
    bundled_task,
    make_methods,
    make_report,
    possible_methods,
    read_method,
    read_task,
    save_plots,
)
from cosd_core.evaluation import run as evaluate
from cosd_core.evaluation.report import percent
from cosd_core.frontend.settings import MODEL_SETTINGS, VERIFIER_OF_SETTING
from cosd_core.frontend.settings_file import read_settings
from cosd_core.options import LoadingOptions


@with_settings("verifier")
def run_evaluate(
    task: Annotated[
        list[str] | None,
        typer.Option(help='A JSONL file of questions; "demo" means the bundled ones. Several are possible.'),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(METHODS)}. Several are possible. Default: all."),
    ] = None,
    settings_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON with settings of one more method, as cosd tune writes it. Several are possible. "
            "Without --draft and --assistant the first one names the models."
        ),
    ] = None,
    both_roles: Annotated[
        bool, typer.Option("--both-roles", help="Also try each method with the models' roles swapped.")
    ] = False,
    questions: Annotated[int, typer.Option(min=1, help="Bundled questions of each kind.")] = 300,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first questions of every group.", show_default=False)
    ] = None,
    to: Annotated[
        Path,
        typer.Option("--out", help="The folder for answers and reports. An interrupted run continues there."),
    ] = Path("evaluation"),
    plots: Annotated[bool, typer.Option("--plots", help="Also draw accuracy and speed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Compare all methods on tasks: accuracy with intervals, gain over the better model, cost.

        cosd evaluate --draft org/model-a --assistant org/model-b --task sums.jsonl --out sums

    Without --draft and --assistant it compares them on the bundled pair and its questions.
    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    if settings_file and not names_models(settings):
        first, of_models = read_settings(settings_file[0]), (*MODEL_SETTINGS, *LoadingOptions.model_fields)
        settings = {**{name: first[name] for name in of_models if name in first}, **settings}
    settings, task_names = with_models_and_tasks(settings, task or (), plots=plots)
    general = {name: value for name, value in settings.items() if name not in VERIFIER_OF_SETTING}
    pair = make_settings(general).decoder()
    possible = possible_methods(settings, shared_vocabulary=pair.shares_vocabulary)
    methods = make_methods(method or possible, settings, both_roles=both_roles)
    names = [model.name for model in pair.models]
    sources = [model.source or model.name for model in pair.models]
    methods += [read_method(path, general, pair=sources) for path in settings_file or ()]
    tasks = [bundled_task(questions) if each == BUNDLED else read_task(each) for each in task_names]
    tasks = [each.limited(limit) if limit else each for each in tasks]
    with Progress(console=err, transient=True) as bar:
        total = sum(len(each.items) for each in tasks)
        rows = {each.name: bar.add_task(escape(each.name), total=total) for each in methods}
        outcomes = evaluate(
            pair,
            methods,
            tasks,
            answers=AnswerFile(to / "answers.jsonl"),
            options=generation_options(settings),
            progress=lambda name, count: bar.advance(rows[name], count),
        )
    report = make_report(outcomes, {"models": " and ".join(names), "cosd": __version__})
    written = report.save(to) + (save_plots(report, to) if plots else [])
    if as_json:
        out.print_json(json.dumps(report.to_dict()))
    else:
        out.print(_report_table(report))
        out.print(f"\nwrote {', '.join(map(str, written))}", markup=False, soft_wrap=True)


def _report_table(report: Report) -> Table:
    table = Table(title="Accuracy in percent, with intervals of 95 percent")
    table.add_column("method")
    for title in (*report.titles, "over the better model", "tokens/s", "kept", "assistant passes per token"):
        table.add_column(escape(title), justify="right")
    for method in report.methods:
        lines = [report.line(method, *column) for column in report.columns]
        last = lines[-1]
        cells = [f"{100 * line.accuracy.value:.1f}" for line in lines[:-1]] + [percent(last.accuracy)]
        gain = percent(last.gain, signed=True) if last.gain else ""
        cost = (f"{last.tokens_per_second:.0f}", f"{last.acceptance:.2f}", f"{last.assistant_passes:.2f}")
        table.add_row(escape(method), *cells, gain, *cost)
    return table

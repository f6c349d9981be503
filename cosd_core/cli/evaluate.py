"""``cosd evaluate``: compares all methods on questions with known answers."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cosd_core._version import __version__
from cosd_core.cli.console import out, write_json
from cosd_core.cli.evaluation_tables import report_tables
from cosd_core.cli.flags import with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.shared import generation_options, make_settings, names_models, with_models_and_tasks
from cosd_core.cli.targets import check_folder
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.evaluation import (
    BUNDLED,
    METHODS,
    AnswerFile,
    Method,
    bundled_task,
    make_methods,
    make_report,
    possible_methods,
    read_method,
    read_task,
    save_plots,
)
from cosd_core.evaluation import run as evaluate
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
        bool,
        typer.Option("--both-roles", help="Also try each method but a tree with the models' roles swapped."),
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

        cosd evaluate --draft org/a --assistant org/b --task sums.jsonl --out sums

    Without --draft and --assistant it compares them on the bundled pair and its questions.
    """
    if settings_file and not names_models(settings):
        first, of_models = read_settings(settings_file[0]), (*MODEL_SETTINGS, *LoadingOptions.model_fields)
        settings = {**{name: first[name] for name in of_models if name in first}, **settings}
    settings, task_names = with_models_and_tasks(settings, task or (), plots=plots)
    _check_methods(method or ())
    tasks = [bundled_task(questions) if each == BUNDLED else read_task(each) for each in task_names]
    tasks = [each.limited(limit) if limit else each for each in tasks]
    check_folder(to)
    general = {name: value for name, value in settings.items() if name not in VERIFIER_OF_SETTING}
    with progress("loading the models"):
        pair = make_settings(general).decoder()
    possible = possible_methods(settings, shared_vocabulary=pair.shares_vocabulary)
    methods = make_methods(method or possible, settings, both_roles=both_roles)
    names = [model.name for model in pair.models]
    sources = [model.source or model.name for model in pair.models]
    methods += [read_method(path, general, pair=sources) for path in settings_file or ()]
    with _progress(methods, sum(len(each.items) for each in tasks)) as count:
        outcomes = evaluate(
            pair,
            methods,
            tasks,
            answers=AnswerFile(to / "answers.jsonl"),
            options=generation_options(settings),
            progress=count,
        )
    report = make_report(outcomes, {"models": " and ".join(names), "cosd": __version__})
    written = report.save(to) + (save_plots(report, to) if plots else [])
    if as_json:
        write_json(report.to_dict())
    else:
        for table in report_tables(report, out.width):
            out.print(table)
        out.print(f"\nwrote {', '.join(map(str, written))}", soft_wrap=True)


def _check_methods(names: Sequence[str]) -> None:
    """Refuse unknown methods before models are loaded."""
    if unknown := [each for each in names if each not in METHODS]:
        raise InvalidOptionError(f"--method {quoted(unknown[0])} should be one of {', '.join(METHODS)}")


@contextmanager
def _progress(methods: Sequence[Method], questions: int) -> Iterator[Callable[[str, int], None]]:
    """Progress that is told a method's name and how many more questions it has answered."""
    done = Counter[str]()
    with progress("answering") as report:

        def count(name: str, answered: int) -> None:
            done[name] += answered
            report(name, done[name], questions)

        for each in methods:
            count(each.name, 0)
        yield count

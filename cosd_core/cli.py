"""The command line. The only file that prints or exits."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from transformers.utils import logging as transformers_logging

from cosd_core import __version__, demo, explain
from cosd_core.bench import Measurement, bench
from cosd_core.calibration import Calibration
from cosd_core.decoding import CoSDDecoder
from cosd_core.errors import CoSDError, InvalidOptionError, InvalidPromptError, quoted
from cosd_core.evaluation import (
    BUNDLED,
    METHODS,
    AnswerFile,
    Report,
    bundled_task,
    make_methods,
    make_report,
    read_method,
    read_task,
    save_plots,
    unasked_task,
)
from cosd_core.evaluation import run as evaluate
from cosd_core.evaluation.methods import OF_ONE_METHOD
from cosd_core.evaluation.plots import check_plotting
from cosd_core.evaluation.report import percent
from cosd_core.flags import with_settings
from cosd_core.observations import Observations
from cosd_core.options import GenerationOptions, LoadingOptions
from cosd_core.records import Generation
from cosd_core.settings import METHOD, Settings, overlaid, read_settings
from cosd_core.teaching import observe
from cosd_core.tuning import ALPHAS, BETAS, WEIGHTS, Tuning, tune
from cosd_core.verifiers import TreeVerifier

_OF_TUNING = (
    *("verifier", "alpha", "beta", "tree_path", "weight", "calibration", "schedule"),
    *("temperature", "top_p", "top_k", "min_p", "seed"),
)
"""Settings that tuning finds itself, or that only sampling has."""

app = typer.Typer(
    help="Let two or more language models write one text together (Collaborative Speculative Decoding).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_DEMO_NOTE = (
    "Bold and underlined: written by the arithmetic model. That each model is honestly unsure of the other's "
    "domain was trained in on purpose (python -m cosd_core.demo.train --help)."
)

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{each:g}" for each in values)


def main() -> None:
    """Run the command line; cosd's own errors become one line and an exit code."""
    try:
        app(prog_name="cosd")
    except CoSDError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2 if isinstance(error, InvalidOptionError) else 1)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"cosd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


@app.command("demo")
def run_demo(
    questions: Annotated[
        list[str] | None, typer.Argument(help='Your own, such as "Q: 12+30? A:". Without any: a selection.')
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the first answer as an HTML page.")] = None,
) -> None:
    """Two small bundled models answer together what neither can alone.

    The *facts* model knows capitals and elements, the *arithmetic* model sums and letter counts. Each was
    trained on the other's questions with wrong answers on purpose, so that it is honestly unsure there.

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    decoder = _demo_decoder()
    asked: list[tuple[str, str | None]] = [(_as_question(each), None) for each in questions or ()]
    asked = asked or [(each.prompt, each.answer) for each in _selection()]
    first = _compare(decoder, asked)
    out.print("\nThe first answer in figures:", style="bold")
    out.print(explain.summary(first))
    if html:
        _write_page(html, first)
        out.print(f"\nwrote {html}")
    if not questions and sys.stdin.isatty() and out.is_terminal:
        _ask_on(decoder)


@app.command()
@with_settings()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt. Without it: standard input.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every token.")] = False,
    show: Annotated[
        bool, typer.Option("--explain", help="Colour tokens by who wrote them, add a summary.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the explanation as an HTML page.")] = None,
    settings_file: Annotated[
        Path | None, typer.Option(help="JSON with settings, as cosd tune writes it. Flags go before it.")
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Write one text with a draft model and its assistants.

        cosd generate --draft org/model-a --assistant org/model-b "The capital of France"

    The text is streamed to standard output, errors go to standard error.
    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    chosen = _settings(overlaid(read_settings(settings_file), settings) if settings_file else settings)
    text = prompt if prompt is not None else _read_stdin()
    generation = _write(chosen, text, stream=not (as_json or show))
    if as_json:
        out.print_json(json.dumps(generation.to_dict()))
    elif show:
        out.print(explain.to_text(generation, prompt=True), soft_wrap=True)
        out.print(explain.summary(generation))
    if html:
        _write_page(html, generation)


@app.command("bench")
@with_settings(*GenerationOptions.model_fields, "batch_size")
def run_bench(
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt per line.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Counted rounds over all prompts.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest text.")] = 64,
    batch_size: Annotated[int, typer.Option(min=2, help="For the row that decodes in batches.")] = 8,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; the bundled pair takes 1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Time every method on a pair: tokens per second, and time per token relative to transformers' generate.

    Without --draft and --assistant it measures the bundled pair on its own questions.
    Methods take turns within each repeat; the ratios are medians over repeats.
    """
    if not _names_models(settings):
        draft, assistant = _demo_pair()
        settings |= {"draft_model": draft, "assistant_model": assistant}
    if threads:
        torch.set_num_threads(threads)
    lines = _lines(prompts) if prompts else [each.prompt for each in _questions(20)]
    with err.status("measuring") as status:
        rows = bench(
            _settings(settings).decoder(),
            lines,
            repeats=repeats,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=lambda name: status.update(f"measuring: {name}"),
        )
    if as_json:
        out.print_json(
            json.dumps([asdict(row) | {"tokens_per_second": row.tokens_per_second} for row in rows])
        )
    else:
        out.print(_bench_table(rows, len(lines)))


@app.command("evaluate")
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
        bool, typer.Option("--both-roles", help="Try each method with the models' roles swapped, too.")
    ] = False,
    questions: Annotated[int, typer.Option(min=1, help="Bundled questions of each kind.")] = 300,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first questions of every group.", show_default=False)
    ] = None,
    to: Annotated[
        Path,
        typer.Option("--out", help="The folder for answers and reports. An interrupted run goes on there."),
    ] = Path("evaluation"),
    plots: Annotated[bool, typer.Option("--plots", help="Draw accuracy and speed, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Compare all methods on tasks: accuracy with intervals, gain over the better model, cost.

        cosd evaluate --draft org/model-a --assistant org/model-b --task sums.jsonl --out sums

    Without --draft and --assistant it asks the bundled pair its own questions.
    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    if settings_file and not _names_models(settings):
        settings = {**_models_of(read_settings(settings_file[0])), **settings}
    if not _names_models(settings):
        draft, assistant = _demo_pair()
        settings |= {"draft_model": draft, "assistant_model": assistant}
        task = task or [BUNDLED]
    if not task:
        raise InvalidOptionError(
            f'--task is missing: name a JSONL file, or "{BUNDLED}" for the bundled questions'
        )
    if plots:
        check_plotting()
    general = {name: value for name, value in settings.items() if name not in OF_ONE_METHOD}
    pair = _settings(general).decoder()
    wanted = method or [name for name in METHODS if name != "tree" or "tree_path" in settings]
    methods = make_methods(wanted, settings, both_roles=both_roles)
    names = [model.name for model in pair.models]
    methods += [read_method(path, general, pair=names) for path in settings_file or ()]
    tasks = [bundled_task(questions) if each == BUNDLED else read_task(each) for each in task]
    tasks = [each.limited(limit) if limit else each for each in tasks]
    options = {name: settings[name] for name in GenerationOptions.model_fields if name in settings}
    with Progress(console=err, transient=True) as bar:
        total = sum(len(each.items) for each in tasks)
        rows = {each.name: bar.add_task(escape(each.name), total=total) for each in methods}
        outcomes = evaluate(
            pair,
            methods,
            tasks,
            answers=AnswerFile(to / "answers.jsonl"),
            options=options,
            progress=lambda name, count: bar.advance(rows[name], count),
        )
    report = make_report(outcomes, {"models": " and ".join(names), "cosd": __version__})
    written = report.save(to) + (save_plots(report, to) if plots else [])
    if as_json:
        out.print_json(json.dumps(report.to_dict()))
    else:
        out.print(_report_table(report))
        out.print(f"\nwrote {', '.join(map(str, written))}", markup=False, soft_wrap=True)


@app.command("tune")
@with_settings(*_OF_TUNING)
def run_tune(
    task: Annotated[
        str | None, typer.Option(help=f'A JSONL file of questions; "{BUNDLED}" means the bundled ones.')
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(help="JSON with settings. Flags go before it, verifiers in it do not count."),
    ] = None,
    alpha: Annotated[
        list[float] | None, typer.Option(help=f"Tried in rules, several. Default: {_listed(ALPHAS)}.")
    ] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help=f"Tried in rules, several. Default: {_listed(BETAS)}.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help=f"Tried in averages, several. Default: {_listed(WEIGHTS)}.")
    ] = None,
    folds: Annotated[int, typer.Option(min=3, help="Parts that the questions are divided into.")] = 5,
    seed: Annotated[int, typer.Option(help="How they are divided.")] = 0,
    questions: Annotated[int, typer.Option(min=1, help="Bundled questions of each kind.")] = 100,
    to: Annotated[
        Path,
        typer.Option("--out", help="The folder for settings and report. An interrupted run goes on there."),
    ] = Path("tuning"),
    plots: Annotated[bool, typer.Option("--plots", help="Draw the heat maps, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Find out whether fusing a pair helps on your task, with which verifier, and how sure that is.

        cosd tune --draft org/model-a --assistant org/model-b --task questions.jsonl --out tuned

    Both models alone, averages, rules and trees, in both roles, calibrated and not, are compared by
    cross-validation. The settings that come of it are for --settings-file and for every constructor.
    Without --draft and --assistant it tunes the bundled pair on held-out questions that cosd evaluate
    does not ask.

    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    if settings_file:
        found = {
            name: value for name, value in read_settings(settings_file).items() if name not in _OF_TUNING
        }
        settings = {**found, **settings}
    base = dict(settings)
    if not _names_models(settings):
        settings |= dict(zip(("draft_model", "assistant_model"), _demo_pair(), strict=True))
        base["dtype"] = "float32"  # as the bundled pair is loaded
        task = task or BUNDLED
    if not task:
        raise InvalidOptionError(
            f'--task is missing: name a JSONL file, or "{BUNDLED}" for the bundled questions'
        )
    if plots:
        check_plotting()
    pair = _settings(settings).decoder()
    with Progress(console=err, transient=True) as bar:
        rows: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            rows[what] = rows[what] if what in rows else bar.add_task(what)
            bar.update(rows[what], completed=done, total=total)

        tuning = tune(
            pair,
            unasked_task(questions) if task == BUNDLED else read_task(task),
            folder=to,
            options={name: settings[name] for name in GenerationOptions.model_fields if name in settings},
            alphas=alpha or ALPHAS,
            betas=beta or BETAS,
            weights=weight or WEIGHTS,
            folds=folds,
            seed=seed,
            progress=show,
        )
    tuning = replace(tuning, settings={**base, **tuning.settings})
    written = tuning.save(to, plot=plots)
    if as_json:
        out.print_json(json.dumps(tuning.to_dict()))
    else:
        _report_tuning(tuning)
        out.print(f"\nwrote {', '.join(map(str, written))}", markup=False, soft_wrap=True)


@app.command(
    "lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def run_lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness, with a pair as its model *cosd*; all that follows is the harness's own.

        cosd lm-eval run --model cosd --model_args draft=org/model-a,assistant=org/model-b --tasks gsm8k

    Without anything it shows the harness's help.
    """
    from cosd_core.evaluation import harness  # here: it needs the extra "evaluate"

    sys.argv = ["lm-eval", *context.args]
    harness.cli_evaluate()


@app.command("train-tree")
@with_settings(*GenerationOptions.model_fields, *METHOD)
def train_tree(
    data: Annotated[
        Path,
        typer.Option(help='JSONL, a "prompt" and a "completion" per line.', show_default=False),
    ],
    to: Annotated[Path, typer.Option("--out", help="The tree's file, JSON.", show_default=False)],
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit every model's temperature first, and learn at these.")
    ] = False,
    agreeing: Annotated[
        bool,
        typer.Option(help="Learn also where all models write the same, as the paper does."),
    ] = True,
    end_token: Annotated[bool, typer.Option(help="Texts end after their completion.")] = True,
    tokens_per_pass: Annotated[
        int, typer.Option(min=1, help="Positions read at once; bounds memory.")
    ] = 2048,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A folder for what is done, so that an interrupted run goes on.")
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Learn a decision tree that says where the assistant's token replaces the draft's.

        cosd train-tree --draft org/model-a --assistant org/model-b --data examples.jsonl --out tree.json

    All models read every prompt and its true completion. Use the tree with --verifier tree --tree-path.
    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    if not to.absolute().parent.is_dir():  # found out before the work, not after it
        raise InvalidOptionError(f"--out {quoted(str(to))} lies in a folder that does not exist")
    models = _settings(settings).decoder().models
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        observations = observe(
            models,
            data,
            end_token=end_token,
            tokens_per_pass=tokens_per_pass,
            checkpoint=checkpoint,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    calibration = Calibration.fit(observations) if calibrate else None
    temperatures = calibration.temperatures if calibration else None
    with err.status("growing the tree"):
        tree = TreeVerifier.fit(observations, calibration=temperatures, agreeing=agreeing)
    tree.save(to)
    _report_tree(tree, observations, calibration)
    flags = "".join(f" --calibration {temperature:g}" for temperature in temperatures or ())
    out.print(
        f"\nwrote {to}; use it with --verifier tree --tree-path {to}{flags}", markup=False, soft_wrap=True
    )


def _report_tree(tree: TreeVerifier, observations: Observations, calibration: Calibration | None) -> None:
    about, truncated = tree.about, observations.truncated
    counts, chosen = about["positions"], about["chosen"]
    right = observations.right.mean(0)
    table = Table.grid(padding=(0, 2))
    for name, share in zip(observations.names, right, strict=True):
        table.add_row(f"{escape(name)} is right at", f"{share:.1%}")
    table.add_row("examples", f"{about['examples']:,}" + (f", {truncated:,} cut to fit" if truncated else ""))
    table.add_row("positions", f"{len(observations):,}")
    for name, meaning in (
        ("keep", "keep: the draft is right"),
        ("replace", "replace: only the assistant is right"),
        ("neither", "neither is right, dropped"),
        ("agreeing", "learned though all agree"),
    ):
        table.add_row(meaning, f"{counts[name]:,}")
    if chosen:
        table.add_row("depth, positions per leaf", f"at most {chosen['depth']}, at least {chosen['leaf']}")
        table.add_row(
            "cross-entropy where they differ",
            f"{chosen['cross_entropy']:.4f} (standard error {chosen['standard_error']:.4f})",
        )
        table.add_row("decided right where they differ", f"{chosen['accuracy']:.1%}")
    out.print(table)
    if calibration:
        out.print(f"\n{calibration.report()}", markup=False, soft_wrap=True)
    out.print(f"\n{tree.explain()}", markup=False, soft_wrap=True)


def _report_tuning(tuning: Tuning) -> None:
    table = Table(
        title=f"{tuning.questions} questions in {tuning.folds} folds; percent, with intervals of 95 percent",
        caption=f"{tuning.computed:,} positions were computed, {tuning.replayed:,} replayed; averages wrote "
        f"{tuning.averaged:,} tokens",
    )
    table.add_column("method")
    for heading in ("right", "against the better model"):
        table.add_column(heading, justify="right")
    for line in tuning.highlights:
        gain = percent(line.gain, signed=True) if line.gain else ""
        style = "bold" if line.name == tuning.recommended else None
        table.add_row(escape(line.name), percent(line.accuracy), gain, style=style)
    table.add_section()
    table.add_row("what was chosen", percent(tuning.accuracy), percent(tuning.gain, signed=True))
    out.print(table)
    out.print(f"\n{tuning.heat_maps()}\n", markup=False)
    for said, style in ((tuning.advice, "bold"), (tuning.warnings, "yellow"), (tuning.notes, None)):
        for sentence in said:
            out.print(sentence, style=style, markup=False, soft_wrap=True)


def _names_models(settings: Mapping[str, Any]) -> bool:
    return not {"draft_model", "assistant_model"}.isdisjoint(settings)


def _models_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The models that settings name, and how these are loaded."""
    names = ("draft_model", "assistant_model", *LoadingOptions.model_fields)
    return {name: settings[name] for name in names if name in settings}


def _settings(given: dict[str, Any]) -> Settings:
    for name, flag in (("draft_model", "--draft"), ("assistant_model", "--assistant")):
        if name not in given:
            raise InvalidOptionError(f"{flag} is missing: give a hub id or the path of a model folder")
    return Settings(**given)


def _write(settings: Settings, prompt: str, *, stream: bool) -> Generation:
    generation = None
    with closing(settings.decoder().stream(prompt, **settings.generation_options())) as chunks:
        for chunk in chunks:
            if stream:
                print(explain.harmless(chunk.text) if out.is_terminal else chunk.text, end="", flush=True)
            generation = chunk.generation
    if stream:
        print()
    assert generation is not None, "the last chunk carries the generation"
    return generation


def _read_stdin() -> str:
    if sys.stdin.isatty():
        raise InvalidPromptError("there is no prompt: give one as an argument or on standard input")
    return sys.stdin.read().removesuffix("\n")  # what echo and editors add


def _write_page(path: Path, generation: Generation) -> None:
    try:
        path.write_text(explain.to_html(generation), encoding="utf-8")
    except OSError as error:
        raise CoSDError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPromptError(f"cannot read prompts from {quoted(str(path))}: {error}") from error
    if not any(map(str.strip, lines)):
        raise InvalidPromptError(f"{quoted(str(path))} holds no prompt; it should have one per line")
    return [line for line in lines if line.strip()]


def _demo_pair() -> tuple[Any, Any]:
    torch.set_num_threads(1)  # models this small are slower on several
    transformers_logging.disable_progress_bar()
    return demo.load_pair()


def _demo_decoder() -> CoSDDecoder:
    return CoSDDecoder(*_demo_pair())


def _questions(count: int) -> list[demo.Question]:
    """So many held-out questions of each kind."""
    return [question for kind in demo.KINDS for question in demo.held_out(kind, count)]


def _selection() -> list[demo.Question]:
    return [
        demo.Question("both", "Q: atomic number of iron plus 7? A:", " iron is 26, 26+7=33"),
        *_questions(2),
    ]


def _as_question(text: str) -> str:
    """Bring a question into the only form that the bundled models know."""
    text = text.strip()
    return text if text.startswith("Q:") else f"Q: {text.rstrip('?')}? A:"


def _compare(decoder: CoSDDecoder, asked: Sequence[tuple[str, str | None]]) -> Generation:
    """Print what the draft, the assistant and both together answer; return the first fused answer."""
    table = Table(title="Two models, one text", caption=_DEMO_NOTE)
    for heading in ("question", "facts model alone", "arithmetic model alone", "together"):
        table.add_column(heading, overflow="fold")
    alone = [CoSDDecoder(decoder.draft, decoder.assistants, verifier=name) for name in ("draft", "assistant")]
    fused: list[Generation] = []
    for prompt, answer in asked:
        singles = [each.generate(prompt, max_new_tokens=64) for each in alone]
        fused.append(decoder.generate(prompt, max_new_tokens=64))
        texts = [_mark(each, answer) + Text(explain.harmless(each.text)) for each in singles]
        together = _mark(fused[-1], answer) + explain.to_text(fused[-1])
        table.add_row(Text(explain.harmless(prompt)), *texts, together)
    out.print(table)
    return fused[0]


def _mark(generation: Generation, answer: str | None) -> Text:
    if answer is None:
        return Text()
    right = generation.text.strip() == answer.strip()
    return Text("✓" if right else "✗", style="green" if right else "red")


def _ask_on(decoder: CoSDDecoder) -> None:
    out.print("\nAsk your own, such as [bold]letters in the capital of France plus 4?[/] An empty line ends.")
    while question := out.input("[bold]Q:[/] ").strip():
        _compare(decoder, [(_as_question(question), None)])


def _report_table(report: Report) -> Table:
    table = Table(title="Accuracy in percent, with intervals of 95 percent")
    table.add_column("method")
    for title in (*report.titles, "over the better model", "tokens/s", "kept", "asked per token"):
        table.add_column(escape(title), justify="right")
    for method in report.methods:
        lines = [report.line(method, *column) for column in report.columns]
        last = lines[-1]
        cells = [f"{100 * line.accuracy.value:.1f}" for line in lines[:-1]] + [percent(last.accuracy)]
        gain = percent(last.gain, signed=True) if last.gain else ""
        cost = (f"{last.tokens_per_second:.0f}", f"{last.acceptance:.2f}", f"{last.assistant_passes:.2f}")
        table.add_row(escape(method), *cells, gain, *cost)
    return table


def _bench_table(rows: Sequence[Measurement], prompts: int) -> Table:
    table = Table(title=f"{prompts} prompts, {len(rows[0].seconds)} repeats")
    table.add_column("method")
    headings = ("tokens/s", "time per token, relative", "draft passes per token", "asked per token")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        passes = [
            f"{each:.3f}" if each is not None else "" for each in (row.draft_passes, row.assistant_passes)
        ]
        table.add_row(row.method, f"{row.tokens_per_second:.0f}", f"{row.relative:.2f}", *passes)
    return table

"""The command line. The only file that prints or exits."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from transformers.utils import logging as transformers_logging

from cosd_core import __version__, demo, explain
from cosd_core.bench import Measurement, bench
from cosd_core.decoding import CoSDDecoder
from cosd_core.errors import CoSDError, InvalidOptionError, InvalidPromptError, quoted
from cosd_core.flags import with_settings
from cosd_core.options import GenerationOptions
from cosd_core.records import Generation
from cosd_core.settings import Settings

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
    *,
    settings: dict[str, Any],
) -> None:
    """Write one text with a draft model and its assistants.

        cosd generate --draft org/model-a --assistant org/model-b "The capital of France"

    The text is streamed to standard output, errors go to standard error.
    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    chosen = _settings(settings)
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
    bundled = not {"draft_model", "assistant_model"} & set(settings)
    if bundled:
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

"""``cosd bench``: the time that every method takes on a pair."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from cosd_core.cli.console import out, write_json
from cosd_core.cli.flags import with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.shared import bundled_questions, make_settings, with_models
from cosd_core.errors import InvalidPromptError, quoted
from cosd_core.evaluation.benchmark import Measurement, bench
from cosd_core.options import GenerationOptions
from cosd_core.utils import require_matplotlib, text_lines


@with_settings(*GenerationOptions.model_fields, "batch_size")
def run_bench(
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt per line.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Counted rounds over all prompts.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest text.")] = 64,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=2, help="For a measurement in batches (8); may be repeated.")
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Bring the prompts to this length, in the draft's tokens; may be repeated."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the result to this file: png, svg, pdf.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; the bundled pair takes 1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Time every method on a pair, relative to the draft alone in its own library.

    Time per token, to the first token and between pieces of text, memory, and passes.

    Without --draft and --assistant it measures the bundled pair on its own questions.
    Methods take turns within each repeat; the ratios are medians over repeats.
    """
    lines = _lines(prompts) if prompts else [each.prompt for each in bundled_questions(20)]
    if plot:
        require_matplotlib()
    settings = with_models(settings)
    if threads:
        torch.set_num_threads(threads)
    with progress("loading the models") as report:
        rows = bench(
            make_settings(settings).decoder(),
            lines,
            repeats=repeats,
            max_new_tokens=max_new_tokens,
            batch_sizes=batch_size or (8,),
            prompt_tokens=prompt_tokens or (),
            progress=lambda name: report(f"measuring: {name}"),
        )
    if plot:
        from cosd_core.evaluation.plots import save_benchmark_plot

        save_benchmark_plot(rows, plot)
    if as_json:
        values = [asdict(row) | {"tokens_per_second": row.tokens_per_second} for row in rows]
        write_json(values)
    else:
        out.print(_bench_table(rows, len(lines)))


def _lines(path: Path) -> list[str]:
    try:
        lines = text_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPromptError(f"cannot read prompts from {quoted(str(path))}: {error}") from error
    if not any(map(str.strip, lines)):
        raise InvalidPromptError(f"{quoted(str(path))} holds no prompt; it should have one per line")
    return [line for line in lines if line.strip()]


def _bench_table(rows: Sequence[Measurement], prompts: int) -> Table:
    table = Table(title=f"{prompts} prompts, {len(rows[0].seconds)} repeats")
    table.add_column("method")
    for heading in (
        "prompt tokens", "tokens/s", "time per token, relative", "ms to the first token", "ms between texts",
        "MB", "draft passes per token", "assistant passes per token",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for row in rows:
        counts = (row.draft_passes, row.assistant_passes)
        table.add_row(
            row.method,
            str(row.prompt_tokens),
            f"{row.tokens_per_second:.0f}",
            f"{row.relative:.2f}",
            f"{1000 * row.first_token:.1f}",
            f"{1000 * row.between_tokens:.1f}",
            "" if row.memory is None else f"{row.memory / 1e6:.0f}",
            *("" if each is None else f"{each:.3f}" for each in counts),
        )
    return table

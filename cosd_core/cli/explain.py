"""``cosd explain``: a saved answer by who wrote it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cosd_core import explain
from cosd_core.cli.console import out
from cosd_core.cli.targets import check_file, write_page
from cosd_core.errors import TraceError, quoted


def run_explain(
    file: Annotated[str, typer.Argument(help="The JSON file, or - for standard input.")],
    html: Annotated[Path | None, typer.Option(help="Write an HTML page instead of printing.")] = None,
) -> None:
    """Show which model wrote each token of a saved answer.

        cosd generate --draft org/model-a --assistant org/model-b --json "The capital of France" > answer.json

        cosd explain answer.json --html answer.html

    The file is what cosd generate --json printed, an answer of cosd serve with provenance, or the JSON of a
    LangChain message or a LlamaIndex response that was made with return_trace=True.
    """
    check_file(html)
    where = "standard input" if file == "-" else quoted(file)
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        generation = explain.as_generation(text)
    except (OSError, ValueError) as error:  # no such file, no UTF-8
        raise TraceError(f"cannot read {where}: {quoted(error)}") from error
    except TraceError as error:
        raise TraceError(f"{where}: {error}") from error
    if html:
        write_page(html, generation)
        return
    out.print(explain.to_text(generation, prompt=True), soft_wrap=True)
    out.print(explain.summary(generation))

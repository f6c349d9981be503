"""The command line: one file per command. Only its files print or exit."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from cosd_core import __version__
from cosd_core.cli.bench import run_bench
from cosd_core.cli.demo import run_demo
from cosd_core.cli.evaluate import run_evaluate
from cosd_core.cli.generate import run_generate
from cosd_core.cli.lm_eval import PASSED_ON, run_lm_eval
from cosd_core.cli.shared import err, out
from cosd_core.cli.train_tree import run_train_tree
from cosd_core.cli.tune import run_tune
from cosd_core.errors import CoSDError, InvalidOptionError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Let two or more language models write one text together (Collaborative Speculative Decoding).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

for _name, _command in {
    "demo": run_demo,
    "generate": run_generate,
    "bench": run_bench,
    "evaluate": run_evaluate,
    "tune": run_tune,
}.items():
    app.command(_name)(_command)
app.command("lm-eval", context_settings=PASSED_ON)(run_lm_eval)
app.command("train-tree")(run_train_tree)


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

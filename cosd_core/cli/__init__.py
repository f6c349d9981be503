"""The command line: one file per command. Only the files of this package print or exit.

Help and version appear without importing torch: a command's file is imported when the command runs.
"""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from cosd_core._version import __version__
from cosd_core.cli.console import err, out
from cosd_core.cli.lm_eval import FORWARD_ARGUMENTS
from cosd_core.errors import CoSDError, InvalidOptionError

__all__ = ["app", "main"]

_SUMMARIES = {
    "demo": "Two small bundled models answer together what neither can alone.",
    "generate": "Write one text with a draft model and its assistants.",
    "explain": "Show which model wrote each token of a saved answer.",
    "bench": "Time every method on a pair: tokens per second, and time per token relative to transformers' "
    "generate.",
    "evaluate": "Compare all methods on tasks: accuracy with intervals, gain over the better model, cost.",
    "tune": "Find out whether fusing a pair helps on your task, with which verifier, and how sure that is.",
    "lm-eval": "lm-evaluation-harness, with a pair as its model *cosd*.",
    "train-tree": "Fit a decision tree that decides where the assistant's token replaces the draft's.",
}
"""The commands, each with the first line of its docstring. A test compares them."""

_STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
}


class _LazyGroup(TyperGroup):
    """Imports the file of the command that runs; the list of commands needs no import."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, loaded, and the other arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _load_command(name), rest


def _load_command(name: str) -> Any:
    file = name.replace("-", "_")
    function = getattr(import_module(f"cosd_core.cli.{file}"), f"run_{file}")
    command = typer.Typer(**_STYLE)
    command.command(name, context_settings=FORWARD_ARGUMENTS if name == "lm-eval" else None)(function)
    return typer.main.get_command(command)


app = typer.Typer(
    cls=_LazyGroup,
    help="Let two or more language models write one text together (Collaborative Speculative Decoding).",
    no_args_is_help=True,
    **_STYLE,
)

for _name, _summary in _SUMMARIES.items():
    app.command(_name, help=_summary)(lambda: None)


def main() -> None:
    """Run the command line. A :class:`CoSDError` becomes one line on standard error and an exit code."""
    try:
        app(prog_name="cosd")
    except CoSDError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2 if isinstance(error, InvalidOptionError) else 1)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        out.print(f"cosd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...

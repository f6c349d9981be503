"""The list of commands, and how they end.

Help and version appear without importing torch: a command's file is imported when the command runs.
"""

import inspect
import io
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from cosd_core._version import __version__
from cosd_core.cli.console import err, out, protect_streams
from cosd_core.cli.interrupts import EXIT_CODE, quiet_interrupts
from cosd_core.cli.lm_eval import FORWARD_ARGUMENTS
from cosd_core.errors import CoSDError, InvalidOptionError, quoted

_SUMMARIES = {
    "demo": "Two small bundled models answer together what neither can alone.",
    "generate": "Write one text with a draft model and its assistants.",
    "chat": "Talk with a draft model and its assistants.",
    "serve": "Answer the requests of OpenAI's clients over HTTP, with a page to try the pair.",
    "batch": "Answer every row of a file, on this machine or a Ray cluster; an interrupted run continues.",
    "explain": "Show which model wrote each token of a saved answer.",
    "bench": "Time every method on a pair, relative to the draft alone in its own library.",
    "evaluate": "Compare all methods on tasks: accuracy with intervals, gain over the better model, cost.",
    "tune": "Find out whether fusing models helps on your task, with which verifier, and how sure that is.",
    "lm-eval": "lm-evaluation-harness, with a pair as its model, cosd.",
    "train-tree": "Fit a decision tree that decides where the assistant's token replaces the draft's.",
}
"""The commands, each with the first line of its docstring. A test compares them."""

_STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,  # rich's help cuts the names of flags at 80 columns
    "pretty_exceptions_enable": False,
}


_EXIT_CODES = "Exit codes: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C."


class _LazyGroup(TyperGroup):
    """Imports the file of the command that runs; the list of commands needs no import."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, loaded, and the other arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _load_command(name), rest


def _load_command(name: str) -> Any:
    file = name.replace("-", "_")
    with quiet_interrupts():
        function = getattr(import_module(f"cosd_core.cli.{file}"), f"run_{file}")
    command = typer.Typer(**_STYLE)
    if name == "lm-eval":
        command.command(name, context_settings=FORWARD_ARGUMENTS)(function)
    else:
        command.command(name, help=f"{inspect.getdoc(function)}\n\n{_EXIT_CODES}")(function)
    return typer.main.get_command(command)


app = typer.Typer(
    cls=_LazyGroup,
    help="Let two or more language models write one text together (Collaborative Speculative Decoding).",
    no_args_is_help=True,
    **_STYLE,
)

for _name, _summary in _SUMMARIES.items():
    app.command(_name, help=_summary, short_help=_summary)(lambda: None)


def run() -> None:
    """Run the command that the arguments name, and end the process.

    Exit codes: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C. An error is one line on standard error.
    """
    try:
        protect_streams()
        code = app(prog_name="cosd", standalone_mode=False)  # the code of typer.Exit, else None
        sys.stdout.flush()
    except CoSDError as error:
        code = _report(str(error), 2 if isinstance(error, InvalidOptionError) else 1)
    except (typer.Abort, EOFError):
        code = 1
    except OSError as error:
        _discard_output()
        where = "" if error.filename else "cannot write the output: "
        code = 1 if isinstance(error, BrokenPipeError) else _report(f"{where}{quoted(error)}", 1)
    except KeyboardInterrupt:
        code = EXIT_CODE
    except Exception as error:
        code = _report_unexpected(error)
    sys.exit(code or 0)


def _discard_output() -> None:
    """Drop what standard output cannot take: its disk is full, or its reader has ended."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(message: str, code: int) -> int:
    with suppress(OSError):  # the disk of standard error may be full, too
        err.print(Text.assemble(("error:", "bold red"), f" {message}"), soft_wrap=True)
    return code


def _report_unexpected(error: Exception) -> int:
    """Print a wrong usage as typer words it, and the traceback of anything else."""
    if show := getattr(error, "show", None):
        show(file=(text := io.StringIO()))
        err.print(text.getvalue().rstrip("\n"), soft_wrap=True)
        return int(getattr(error, "exit_code", 2))
    err.print(traceback.format_exc().rstrip("\n"), soft_wrap=True)
    return 1


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

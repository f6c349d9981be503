"""``cosd lm-eval``: lm-evaluation-harness's own command, with *cosd* among its models."""

import sys
from typing import Any

import typer

FORWARD_ARGUMENTS: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}
"""Settings of the command that forward all its arguments, ``--help`` included, to the harness."""


def run_lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness, with a pair as its model, cosd.

    All further arguments are the harness's own.

        cosd lm-eval run --model cosd --tasks gsm8k --model_args draft=org/a,assistant=org/b

    Without arguments it shows the harness's help.
    """
    from cosd_core.evaluation import lm_eval  # not at the top: it needs the extra "evaluate"

    sys.argv = ["lm-eval", *context.args]
    lm_eval.cli_evaluate()

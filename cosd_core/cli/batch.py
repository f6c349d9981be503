"""``cosd batch``: answers to a file of prompts, on one machine or a cluster."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cosd_core.cli.console import err
from cosd_core.cli.flags import with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.prompts import check_chat_flags
from cosd_core.cli.shared import make_settings
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.utils import require_version


@with_settings()
def run_batch(
    prompts: Annotated[
        Path, typer.Argument(metavar="INPUT", help='JSONL or Parquet, with a "prompt" in every row.')
    ],
    to: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="The folder for answers."),
    ],
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Whether texts are user's messages in chats, shown to each model in its own template. "
            "Default: yes if the draft has a chat template.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message of these chats.")] = None,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Also write who wrote every token.")
    ] = False,
    workers: Annotated[int, typer.Option(help="The most workers. Each has a copy of the models.")] = 1,
    num_cpus: Annotated[
        float | None, typer.Option(help="CPUs of a worker, and its threads. Default: 1.")
    ] = None,
    num_gpus: Annotated[float | None, typer.Option(help="GPUs of a worker. Default: none.")] = None,
    part_rows: Annotated[
        int, typer.Option(help="Rows of a part, which are answered together and written at once.")
    ] = 64,
    *,
    settings: dict[str, Any],
) -> None:
    """Answer every row of a file, on this machine or a Ray cluster; an interrupted run continues.

        cosd batch prompts.jsonl answers --draft org/a --assistant org/b --workers 2

    The output has the rows of the input with "text" and "finish_reason", in the same format. A prompt that
    the models cannot take, such as one that is too long, has an "error" instead of a text. RAY_ADDRESS names
    a cluster.
    """
    require_version("ray", "2.60", extra="ray", user="batches")
    from cosd_core.batch import run
    from cosd_core.batch.prompt_file import read_prompt_file
    from cosd_core.batch.worker import Job

    options = run.WorkerOptions(workers=workers, num_cpus=num_cpus, num_gpus=num_gpus, part_rows=part_rows)
    make_settings(settings)
    check_chat_flags(chat, system)
    rows = read_prompt_file(prompts)
    if system is not None and not all(isinstance(each, str) for each in rows.prompts):
        raise InvalidOptionError(
            f"--system {quoted(system)} is for prompts that are texts, and {prompts} also holds chats: "
            "put it into their messages"
        )
    job = Job(settings, chat, system, provenance)
    with progress("starting the workers") as report:
        run.run_batch(rows, to, job, options, lambda done: report("rows", done, len(rows.prompts)))
    err.print(f"{len(rows.prompts):,} answers are in {to}", soft_wrap=True)

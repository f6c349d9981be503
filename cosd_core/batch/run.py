"""Runs a batch on Ray Data: workers answer the parts that are missing, and this process writes them."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from cosd_core.batch.part_folder import PartFolder
from cosd_core.batch.rows import in_parts
from cosd_core.batch.worker import Job, Worker
from cosd_core.errors import CoSDError, GenerationError, quoted
from cosd_core.frontend.settings import SERVING_SETTINGS
from cosd_core.frontend.settings_file import writable
from cosd_core.options import Options

_ELSEWHERE = (*SERVING_SETTINGS, "device", "device_map", "cache_dir", "local_files_only")
"""Settings of where and together with what a text is decoded, which may change between two runs."""


class WorkerOptions(Options):
    """How many workers there are, and what each of them needs.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type or out of its range.
    """

    workers: int = Field(default=1, ge=1)
    num_cpus: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    num_gpus: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    part_rows: int = Field(default=64, ge=1)


def run_batch(
    lines: Sequence[str], folder: Path, job: Job, options: WorkerOptions, report: Callable[[int], None]
) -> None:
    """Answer rows into a folder of parts; the parts that are there already stay.

    Args:
        lines: The lines of the input.
        folder: The output; it is created if need be.
        job: The settings that all rows share.
        options: The workers.
        report: Receives the number of rows that have answers.

    Raises:
        EvaluationFileError: The folder holds answers of another batch, or cannot be written.
        CoSDError: A model cannot be loaded, or decoding has failed; finished parts stay.
    """
    parts = in_parts(lines, options.part_rows)
    output = PartFolder(folder, _identity(lines, job, options))
    missing = output.missing(len(parts))
    sizes = {number: parts[number].count("\n") + 1 for number in missing}
    done = len(lines) - sum(sizes.values())
    report(done)
    if not missing:
        return
    for number, text in _answers(missing, parts, job, options):
        output.write(number, text)
        done += sizes[number]
        report(done)


def _answers(missing: Sequence[int], parts: Sequence[str], job: Job, options: WorkerOptions) -> Any:
    """The numbers and texts of parts, in the order in which they are finished."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data
    from ray.exceptions import RayError

    ray.init(logging_level=logging.WARNING, log_to_driver=False)
    try:
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = [{"number": number, "lines": parts[number]} for number in missing]
        answered = ray.data.from_items(items, override_num_blocks=len(items)).map(
            Worker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=options.workers),
            num_cpus=options.num_cpus,
            num_gpus=options.num_gpus,
        )
        for part in answered.iter_rows():
            if part["error"]:
                raise CoSDError(part["error"])
            yield part["number"], part["lines"]
    except RayError as error:
        raise GenerationError(f"a worker has failed: {quoted(error, 1000)}") from error
    finally:
        ray.shutdown()


def _identity(lines: Sequence[str], job: Job, options: WorkerOptions) -> dict[str, Any]:
    """The values on which the answers, and their division into parts, depend."""
    settings = {name: value for name, value in writable(job.settings).items() if name not in _ELSEWHERE}
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return {**asdict(job), "settings": settings, "input": digest, "part_rows": options.part_rows}

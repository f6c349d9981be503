"""Runs a batch on Ray Data: workers answer the parts that are missing, and this process writes them."""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from cosd_core.batch.part_folder import PartFolder
from cosd_core.batch.prompt_file import PromptFile
from cosd_core.batch.worker import Job, Worker
from cosd_core.errors import CoSDError, GenerationError, InvalidOptionError, quoted
from cosd_core.frontend.settings import SERVING_SETTINGS, Settings
from cosd_core.frontend.settings_file import writable
from cosd_core.options import Options
from cosd_core.verifiers.base import described

_ELSEWHERE = (*SERVING_SETTINGS, "device", "device_map", "cache_dir", "local_files_only")
"""Settings of where and together with what a text is decoded, which may change between two runs."""

_CONNECTING = 10.0
"""Seconds that a cluster may take to accept a connection."""


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
    rows: PromptFile, folder: Path, job: Job, options: WorkerOptions, report: Callable[[int], None]
) -> None:
    """Answer rows into a folder of parts; the parts that are there already stay.

    Args:
        rows: The input.
        folder: The output; it is created if need be.
        job: The settings that all rows share.
        options: The workers.
        report: Receives the number of rows that have answers.

    Raises:
        EvaluationFileError: The folder holds answers of another batch, or cannot be written.
        InvalidOptionError: ``RAY_ADDRESS`` names no running cluster.
        CoSDError: A model cannot be loaded, or decoding has failed; finished parts stay.
    """
    size = options.part_rows
    parts = [rows.prompts[start : start + size] for start in range(0, len(rows.prompts), size)]
    output = PartFolder(folder, rows.suffix, _identity(rows, job, options))
    missing = {number: parts[number] for number in output.missing(len(parts))}
    done = len(rows.prompts) - sum(map(len, missing.values()))
    report(done)
    if not missing:
        return
    for number, answers in _answers(missing, job, options):
        output.write(number, rows.answered(number * size, answers))
        done += len(answers)
        report(done)


def _answers(
    parts: Mapping[int, list[Any]], job: Job, options: WorkerOptions
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The numbers of parts with the answers to their prompts, in the order in which they are finished."""
    _start_ray()
    import ray
    import ray.data
    from ray.exceptions import RayError

    try:
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = [{"number": number, "prompts": json.dumps(each)} for number, each in parts.items()]
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
            yield part["number"], json.loads(part["answers"])
    except RayError as error:
        raise GenerationError(f"a worker has failed: {quoted(error, 1000)}") from error
    finally:
        ray.shutdown()


def _start_ray() -> None:
    """Start Ray on this machine, or connect to the cluster that ``RAY_ADDRESS`` names.

    Raises:
        InvalidOptionError: There is no such cluster.
        GenerationError: Ray does not start here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition(":")
    try:
        if colon and "://" not in address:  # Ray itself waits for minutes where nothing listens
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTING).close()
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        if not address:
            raise GenerationError(f"Ray does not start on this machine: {quoted(error, 1000)}") from error
        raise InvalidOptionError(
            f"RAY_ADDRESS={quoted(address)} should be the address of a running cluster, such as "
            f"head-node:6379 or ray://head-node:10001: {quoted(error)}"
        ) from error


def _identity(rows: PromptFile, job: Job, options: WorkerOptions) -> dict[str, Any]:
    """The values on which the answers, and their division into parts, depend."""
    settings = {name: value for name, value in writable(job.settings).items() if name not in _ELSEWHERE}
    settings["verifier"] = described(Settings(**job.settings).method()["verifier"])
    settings.pop("tree_path", None)  # the file may change
    return {**asdict(job), "settings": settings, "input": rows.digest, "part_rows": options.part_rows}

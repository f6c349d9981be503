"""Measures the time to find out how a model is run: `python -m benchmarks.loading FOLDER ...`.

Three ways in turns: plans compared, as for an architecture that is not known; the model's first use, with an
empty folder of remembered plans; and a later use. Each time the model is loaded anew. Medians of processor
seconds.
"""

import logging
import os
import re
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from transformers.utils import logging as transformers_logging

from cosd_core import LanguageModel

REPEATS = 5
WAYS = ("all plans", "first use", "later use")


class _Passes(logging.Handler):
    """Keeps the number of passes of the latest log line."""

    passes = 0

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"(\d+) passes", record.getMessage())
        self.passes = int(found.group(1)) if found else self.passes


def measure(folder: str, dtype: str, way: str, log: _Passes) -> tuple[float, float, int]:
    """Processor seconds of loading and of finding the plan, and passes of the latter."""
    began = time.process_time()
    with LanguageModel.from_pretrained(folder, dtype=dtype, device="cpu") as model:
        loaded = time.process_time()
        table = "cosd_core.models.plan_choice.KNOWN_ARCHITECTURES"
        with patch(table, frozenset()) if way == "all plans" else nullcontext():
            _ = model.plan
        return loaded - began, time.process_time() - loaded, log.passes


def main(folders: list[str]) -> None:
    """Print a row per model and number type."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    logger, log = logging.getLogger("cosd.models"), _Passes()
    logger.setLevel(logging.INFO)
    logger.addHandler(log)
    print("| model | type | loading, s | " + " | ".join(f"{way}, s (passes)" for way in WAYS) + " |")
    for folder in folders:
        for dtype in ("float32", "bfloat16"):
            found: dict[str, list[tuple[float, float, int]]] = {way: [] for way in WAYS}
            for _ in range(REPEATS):
                with tempfile.TemporaryDirectory() as kept:
                    for way in WAYS:
                        os.environ["COSD_CACHE_DIR"] = "" if way == "all plans" else kept
                        found[way].append(measure(folder, dtype, way, log))
            loading = statistics.median(each[0] for runs in found.values() for each in runs)
            cells = [
                f"{statistics.median(each[1] for each in found[way]):.2f} ({found[way][-1][2]})"
                for way in WAYS
            ]
            print(f"| {Path(folder).name} | {dtype} | {loading:.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Processor time of imports and of ``cosd --help``, as ratios to that of torch and transformers.

python benchmarks/startup.py [repeats]
"""

import resource
import subprocess
import sys
from statistics import median

TORCH, BOTH = "import torch", "import torch, transformers"
HELP = "import sys; sys.argv = ['cosd', '--help']; from cosd_core.cli import main; main()"
RATIOS = [
    ("cosd --help", HELP, TORCH, 0.4),
    ("import cosd_core", "import cosd_core", BOTH, 1.25),
    ("from cosd_core import CoSDDecoder", "from cosd_core import CoSDDecoder", BOTH, None),
    ("import langchain_cosd", "import langchain_cosd", BOTH, None),
    ("import llama_index_cosd", "import llama_index_cosd", BOTH, None),
]
"""Label, code, the code it is compared with, and the largest ratio that is accepted."""


def processor_seconds(code: str) -> float:
    """User and system time of a new interpreter that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure everything in turns, so that a busy machine slows all of it alike, and print the medians."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    codes = [TORCH, BOTH, *(code for _, code, _, _ in RATIOS)]
    for code in codes:
        processor_seconds(code)  # fills the caches of bytecode and files
    rounds = [{code: processor_seconds(code) for code in codes} for _ in range(repeats)]
    for label, code, base, limit in RATIOS:
        ratio = median(each[code] / each[base] for each in rounds)
        seconds = median(each[code] for each in rounds)
        accepted = f" (at most {limit:g})" if limit else ""
        print(f"{label:34} {seconds:5.2f} s, {ratio:.2f} times {base!r}{accepted}")


if __name__ == "__main__":
    main()

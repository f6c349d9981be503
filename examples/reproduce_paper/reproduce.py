"""The paper's six pairs and five benchmarks as commands: prints them, or runs those of one pair.

python examples/reproduce_paper/reproduce.py
python examples/reproduce_paper/reproduce.py --pair 3 --method rule --run
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

PAIRS = json.loads((Path(__file__).parent / "pairs.json").read_text(encoding="utf-8"))
BENCHMARKS = {
    "MMLU": "tinyMMLU",
    "GSM8K": "tinyGSM8k",
    "HellaSwag": "tinyHellaswag",
    "TruthfulQA": "tinyTruthfulQA",
    "HumanEval": "humaneval",
}
"""The paper's benchmarks and the harness's tasks."""

METHODS = {
    "draft": {"verifier": "draft"},
    "assistant": {"verifier": "assistant"},
    "speculative": {"verifier": "speculative"},
    "average": {"verifier": "average", "weight": 0.5},
    "rule": {"verifier": "rule", "alpha": 0.5, "beta": 0.5},
    "tree": {"verifier": "tree", "tree_path": "pair{pair}-tree.json"},
}
"""The paper's columns and our settings. What the tree is learned from, the README says."""


ONE_TOKENIZER = {"speculative", "average"}
"""Methods that mix distributions over one vocabulary."""


def model_args(pair: dict, method: str) -> dict[str, object]:
    """The settings of one pair and method."""
    own = {
        key: value.format(pair=pair["pair"]) if isinstance(value, str) else value
        for key, value in METHODS[method].items()
    }
    return {
        "draft": pair["draft"]["id"] or "DRAFT",
        "assistant": pair["assistant"]["id"] or "ASSISTANT",
        "dtype": "float16",
        **own,
    }


def command(pair: dict, method: str, benchmark: str) -> list[str]:
    """The words of one command."""
    arguments = ",".join(f"{name}={value}" for name, value in model_args(pair, method).items())
    unsafe = ["--confirm_run_unsafe_code"] if benchmark == "HumanEval" else []
    return [
        "cosd", "lm-eval", "run", "--model", "cosd", "--model_args", arguments,
        "--tasks", BENCHMARKS[benchmark], "--batch_size", "8",
        "--output_path", f"results/pair{pair['pair']}/{method}", *unsafe,
    ]  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--pair", type=int, choices=[pair["pair"] for pair in PAIRS], help="default: all")
    arguments.add_argument("--method", choices=list(METHODS), help="default: all")
    arguments.add_argument("--benchmark", choices=list(BENCHMARKS), help="default: all")
    arguments.add_argument(
        "--run", action="store_true", help="run them one after another instead of printing"
    )
    given = arguments.parse_args()
    for pair in PAIRS:
        if given.pair not in (None, pair["pair"]):
            continue
        roles = (pair["draft"], pair["assistant"])
        unsure = [role["paper"] for role in roles if not role["certain"]]
        print(f"# pair {pair['pair']}: {' + '.join(role['paper'] for role in roles)}, {pair['scenario']}")
        if unsure:
            print(f"# not certain which models these are in the paper: {', '.join(unsure)}")
        for method in [given.method] if given.method else METHODS:
            for benchmark in [given.benchmark] if given.benchmark else BENCHMARKS:
                if pair["scenario"] == "different tokenizers" and {method, benchmark} & ONE_TOKENIZER:
                    print(f"# {method} on {benchmark} needs models with one tokenizer")
                    continue
                words = command(pair, method, benchmark)
                print(shlex.join(words), flush=True)
                if given.run:
                    # HumanEval runs code that models wrote.
                    allowed = {"HF_ALLOW_CODE_EVAL": "1"} if benchmark == "HumanEval" else {}
                    if code := subprocess.run(words, check=False, env={**os.environ, **allowed}).returncode:
                        sys.exit(code)


if __name__ == "__main__":
    main()

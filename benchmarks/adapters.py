"""Memory and time of two adapters over one base: `python -m benchmarks.adapters`.

Makes a random Llama in float32 and two LoRAs of rank 16 over it. A fresh process per case loads the models
and writes two texts:

* ``base``: the base as draft and as assistant.
* ``adapters``: the base with one adapter as draft, with the other as assistant.
* ``separate``: the same, each over a copy of the base.

Peak memory is beyond that of the imports. Times are medians of passes over one token, in turns.
"""

import argparse
import gc
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import pre_tokenizers
from transformers.utils import logging

from benchmarks.common import byte_level, random_llama, seconds
from cosd_core import CoSDDecoder, LanguageModel

CASES = ("base", "adapters", "separate")
OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def make(folder: Path, layers: int, hidden: int) -> None:
    """Save the base twice with a byte tokenizer, and two adapters with random weights."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = byte_level({symbol: at for at, symbol in enumerate(alphabet)}, [])
    base = random_llama(
        tokenizer, 0, hidden=hidden, layers=layers, heads=hidden // 64, intermediate_size=3 * hidden
    )
    for part in (base, tokenizer):
        part.save_pretrained(folder / "base")
    shutil.copytree(folder / "base", folder / "copy" / "base")
    for name in ("one", "two"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear"))
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) * 0.02
        wrapped.save_pretrained(str(folder / name))
        base = wrapped.unload()


def load(folder: Path, case: str) -> CoSDDecoder:
    """The decoder of one case."""
    base, one, two = (str(folder / name) for name in ("base", "one", "two"))
    if case == "base":
        return CoSDDecoder.from_pretrained(base, base, **OPTIONS)
    if case == "adapters":
        return CoSDDecoder.from_pretrained(base, base, draft_adapter=one, assistant_adapter=two, **OPTIONS)
    copy = str(folder / "copy/base")
    return CoSDDecoder(
        LanguageModel.from_pretrained(base, adapter=one, **OPTIONS),
        LanguageModel.from_pretrained(copy, adapter=two, **OPTIONS),
    )


def peak() -> int:
    """The peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tensor_bytes() -> int:
    """The bytes of the storages of all living tensors."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())


def measure(folder: Path, case: str) -> dict[str, Any]:
    """Load, write two texts, and time passes with an adapter against those of the base."""
    before = peak()
    decoder = load(folder, case)
    samplings: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 1}]
    texts = [
        decoder.generate("The weights are shared.", max_new_tokens=24, eos_token_id=[], **sampling).token_ids
        for sampling in samplings
    ]
    result: dict[str, Any] = {"peak": peak() - before, "tensors": tensor_bytes(), "texts": texts}
    if case == "adapters":
        adapted: Any = decoder.draft
        plain = LanguageModel.from_pretrained(str(folder / "base"), **OPTIONS).model
        ids, ratios = torch.tensor([[1]]), []
        with torch.inference_mode():
            for _ in range(15):
                alone = seconds(lambda: plain(ids))
                ratios.append(seconds(lambda: adapted.model(ids)) / alone)
        result["pass"] = statistics.median(ratios)
    return result


def compare(arguments: list[str]) -> None:
    """Run every case in a process of its own and print a table."""

    def run(case: str) -> Any:
        command = [sys.executable, "-m", "benchmarks.adapters", *arguments, "--case", case]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    run("make")
    found = {case: run(case) for case in CASES}
    print(f"{'':10} {'peak MB':>10} {'ratio':>6} {'tensors MB':>11} {'ratio':>6}")
    for case, each in found.items():
        ratios = [each[name] / found["base"][name] for name in ("peak", "tensors")]
        print(f"{case:10} {each['peak'] / 1e6:10.0f} {ratios[0]:6.2f} {each['tensors'] / 1e6:11.0f}", end="")
        print(f" {ratios[1]:6.2f}")
    same = found["adapters"]["texts"] == found["separate"]["texts"]
    print(f"the texts of adapters and of separate are {'equal' if same else 'NOT equal'}")
    print(f"a pass with an adapter takes {found['adapters']['pass']:.2f} times one of the base")


def main() -> None:
    """Compare the cases, or run one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=("make", *CASES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if given.case is None:
        with tempfile.TemporaryDirectory() as folder:
            compare([*sys.argv[1:], "--folder", folder])
    elif given.case == "make":
        make(given.folder, given.layers, given.hidden)
        print("{}")
    else:
        print(json.dumps(measure(given.folder, given.case)))


if __name__ == "__main__":
    main()

"""What two adapters over one base cost, in memory and in time, against two models.

::

    python scripts/adapters_bench.py

Makes a random Llama in float32 and two LoRAs over it, and lets fresh processes load them and write:

* ``base``: one model, as draft and as assistant.
* ``adapters``: the base with one adapter as draft, with the other as assistant.
* ``separate``: the same, each over a copy of the base of its own.

Memory is what the process had at its peak beyond what it had after its imports, and what all living tensors
hold.

Times are medians of passes over one token, in turns: as the weights are shared between two modules, none is
spent on switching; what ``set_adapter`` of PEFT would take is shown beside them.
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
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.functional import set_adapter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from cosd_core import CoSDDecoder, LanguageModel

PROMPT = "The weights of the base are shared."
CASES = ("base", "adapters", "separate")


def make(folder: Path, *, layers: int, hidden: int) -> None:
    """Save the base with a tokenizer of bytes, and two adapters with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=512,
        eos_token_id=256,
        bos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: at for at, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder / "base")
    for name in ("one", "two"):
        model = AutoModelForCausalLM.from_pretrained(folder / "base")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) * 0.02
        wrapped.save_pretrained(folder / name)


def load(folder: Path, case: str) -> CoSDDecoder:
    """The decoder of one case."""
    base, adapters = str(folder / "base"), [str(folder / name) for name in ("one", "two")]
    if case == "base":
        return CoSDDecoder.from_pretrained(base, base, dtype="float32", device="cpu")
    if case == "adapters":
        return CoSDDecoder.from_pretrained(
            base,
            base,
            draft_adapter=adapters[0],
            assistant_adapter=adapters[1],
            dtype="float32",
            device="cpu",
        )
    copies = [
        LanguageModel.from_pretrained(str(folder / name), adapter=adapter, dtype="float32", device="cpu")
        for name, adapter in zip(("base", "copy/base"), adapters, strict=True)
    ]
    return CoSDDecoder(*copies)


def peak() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held() -> int:
    """The bytes that all living tensors hold together."""
    gc.collect()
    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in gc.get_objects()
        if issubclass(type(each), torch.Tensor)  # isinstance wakes what torch keeps for old names
    }
    return sum(storages.values())


def measure(folder: Path, case: str, tokens: int) -> dict[str, object]:
    """Load, write, and say what it took."""
    before = peak()
    decoder = load(folder, case)
    texts = [
        list(decoder.generate(PROMPT, max_new_tokens=tokens, eos_token_id=[], **options).token_ids)
        for options in ({}, {"temperature": 1.0, "seed": 1})
    ]
    return {"peak": peak() - before, "held": held(), "texts": texts}


def in_turns(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median milliseconds of each work; they take turns, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in times.items()}


@torch.inference_mode()
def passes(folder: Path, repeats: int) -> dict[str, float]:
    """The milliseconds of a pass over one token, and of PEFT's way to switch."""
    base = str(folder / "base")
    plain, one = (
        LanguageModel.from_pretrained(base, adapter=adapter, dtype="float32", device="cpu").model
        for adapter in (None, str(folder / "one"))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        switched = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), folder / "one", "one"
        )
        switched.load_adapter(folder / "two", "two")
    ids = torch.tensor([[1]])
    return in_turns(
        {
            "base": lambda: plain(ids),
            "with an adapter": lambda: one(ids),
            "set_adapter of PEFT": lambda: set_adapter(switched.base_model.model, "two", inference_mode=True),
        },
        repeats,
    )


def main() -> None:
    """Make the models, measure every case in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=("make", "time", *CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    match options.work:
        case None:
            with tempfile.TemporaryDirectory() as folder:
                compare([*sys.argv[1:], "--folder", folder])
        case "make":
            make(options.folder, layers=options.layers, hidden=options.hidden)
            shutil.copytree(options.folder / "base", options.folder / "copy" / "base")
        case "time":
            print(json.dumps(passes(options.folder, options.repeats)))
        case case:
            print(json.dumps(measure(options.folder, case, options.tokens)))


def compare(arguments: list[str]) -> None:
    """Run every part in a process of its own; this one stays small, as its peak is where theirs begin."""

    def run(work: str) -> str:
        command = [sys.executable, __file__, *arguments, "--work", work]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    run("make")
    found = {case: json.loads(run(case)) for case in CASES}
    print(f"{'':10} {'peak MB':>10} {'ratio':>6} {'tensors MB':>11} {'ratio':>6}")
    for case, each in found.items():
        most, held = each["peak"], each["held"]
        ratios = most / found["base"]["peak"], held / found["base"]["held"]
        print(f"{case:10} {most / 1e6:10.0f} {ratios[0]:6.2f} {held / 1e6:11.0f} {ratios[1]:6.2f}")
    same = found["adapters"]["texts"] == found["separate"]["texts"]
    print(f"the texts of adapters and of separate are {'equal' if same else 'NOT equal'}")
    for name, milliseconds in json.loads(run("time")).items():
        print(f"{name:20} {milliseconds:7.2f} ms")


if __name__ == "__main__":
    main()

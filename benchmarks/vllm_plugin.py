"""The cost of the vLLM plugin, in processor time of one thread: on tiny random models, or on a real pair.

``OMP_NUM_THREADS=1 .venv-vllm/bin/python -m benchmarks.vllm_plugin [--models DRAFT ASSISTANT]``
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_VOCABULARY, _CONTEXT = 256, 256


def main() -> None:
    """Print seconds per token, and the ratios of the table in docs/vllm.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"draft-length": 4, "prompts": 16, "tokens": 64, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--models", nargs=2, metavar=("DRAFT", "ASSISTANT"), help="folders of a real pair")
    given = parser.parse_args()
    prompts: Sequence[Any] = [
        {"prompt_token_ids": [at, 3, 5, 7, 11, 13, 17, 19]} for at in range(given.prompts)
    ]
    if given.models:
        texts = [f"# The number {at} in words, in hexadecimal and as a sum of" for at in range(given.prompts)]
        compare(given, given.models[0], given.models[1], texts)
        return
    with TemporaryDirectory() as folder:
        models = [save(Path(folder) / str(seed), seed) for seed in range(2)]
        print("another random model as draft: most proposals are replaced")
        compare(given, models[0], models[1], prompts)
        print("the assistant itself as draft: all are kept")
        compare(given, models[1], models[1], prompts)


def compare(given: argparse.Namespace, draft: str, assistant: str, prompts: Sequence[Any]) -> None:
    """Print the plugin's time per token over that of vLLM's own speculative decoding."""
    settings: list[dict[str, Any]] = [{"cosd": {"verifier": "assistant"}}, {}]
    fused, own = (in_a_process(measure, given, draft, assistant, prompts, each) for each in settings)
    same = sum(one == other for one, other in zip(fused["texts"], own["texts"], strict=True))
    print(f"  {same} of {len(prompts)} texts are the same")
    for kind in ("together", "alone"):
        print(f"  {kind}: {fused[kind]:.3g} s per token, {fused[kind] / own[kind]:.2f} of vLLM's own")
    for name, found in (("fused", fused), ("vLLM's own", own)):
        print(
            f"  one by one against all at once, {name}: {found['alone'] / found['together']:.1f}", flush=True
        )


def save(folder: Path, seed: int) -> str:
    """A random Llama."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=_CONTEXT,
        initializer_range=0.3, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def tokenizer() -> Any:
    """A token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={symbol: at for at, symbol in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def in_a_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own: an engine that has ended keeps its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def measure(
    given: argparse.Namespace,
    draft: str,
    assistant: str,
    prompts: Sequence[Any],
    additional_config: dict[str, Any],
) -> dict[str, Any]:
    """Processor seconds per token, all prompts at once and one by one, and the texts."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        assistant, dtype="float32", max_model_len=_CONTEXT, enforce_eager=True, disable_log_stats=True,
        enable_prefix_caching=False, additional_config=additional_config, async_scheduling=False,
        speculative_config={
            "method": "draft_model", "model": draft, "num_speculative_tokens": given.draft_length
        },
    )  # fmt: skip
    params = SamplingParams(temperature=0, max_tokens=given.tokens, ignore_eos=True)
    texts: list[Any] = []

    def together() -> None:
        texts[:] = [
            output.outputs[0].token_ids for output in llm.generate(list(prompts), params, use_tqdm=False)
        ]

    def alone() -> None:
        for prompt in prompts[:4]:
            llm.generate(prompt, params, use_tqdm=False)

    together()
    times = [seconds(together, given.repeats) / len(prompts), seconds(alone, given.repeats) / 4]
    llm.llm_engine.engine_core.shutdown()
    return {"together": times[0] / given.tokens, "alone": times[1] / given.tokens, "texts": list(texts)}


def seconds(run: Any, repeats: int) -> float:
    """The least processor time of some runs."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main()

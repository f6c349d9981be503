"""The cost of the vLLM plugin on tiny random models, in processor time of one thread.

``OMP_NUM_THREADS=1 .venv-vllm/bin/python -m benchmarks.vllm_plugin``
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_VOCABULARY, _CONTEXT, _PROMPTS, _NEW, _REPEATS = 256, 256, 16, 64, 3


def main() -> None:
    """Print seconds per token, and the ratios of the table in docs/vllm.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft-length", type=int, default=4)
    length = parser.parse_args().draft_length
    with TemporaryDirectory() as folder:
        models = [save(Path(folder) / str(seed), seed) for seed in range(2)]
        for name, draft in (("another draft", models[0]), ("the assistant itself as draft", models[1])):
            fused = measure(models[1], draft, length, {"cosd": {"verifier": "assistant"}})
            own = measure(models[1], draft, length, {})
            assert fused["texts"] == own["texts"]
            cost = fused["together"] / own["together"]
            print(
                f"{name}: {fused['together'] * 1e6:.0f} us per token, vLLM's own {own['together'] * 1e6:.0f}"
            )
            print(f"  fused against vLLM's own: {cost:.2f}")
            for kind, found in (("fused", fused), ("vLLM's own", own)):
                gain = found["alone"] / found["together"]
                print(f"  one by one against {_PROMPTS} at once, {kind}: {gain:.1f}")


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


def measure(assistant: str, draft: str, length: int, additional_config: dict[str, Any]) -> dict[str, Any]:
    """Processor seconds per token, all prompts at once and one by one, and the texts."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        assistant, dtype="float32", max_model_len=_CONTEXT, enforce_eager=True, disable_log_stats=True,
        enable_prefix_caching=False, additional_config=additional_config, async_scheduling=False,
        speculative_config={"method": "draft_model", "model": draft, "num_speculative_tokens": length},
    )  # fmt: skip
    prompts = [{"prompt_token_ids": [at, 3, 5, 7, 11, 13, 17, 19]} for at in range(_PROMPTS)]
    params = SamplingParams(temperature=0, max_tokens=_NEW, ignore_eos=True)
    texts: list[Any] = []

    def together() -> None:
        texts[:] = [output.outputs[0].token_ids for output in llm.generate(prompts, params, use_tqdm=False)]

    def alone() -> None:
        for prompt in prompts[:4]:
            llm.generate(prompt, params, use_tqdm=False)

    together()
    found = {"together": seconds(together) / _PROMPTS / _NEW, "alone": seconds(alone) / 4 / _NEW}
    llm.llm_engine.engine_core.shutdown()
    return {**found, "texts": list(texts)}


def seconds(run: Any) -> float:
    """The least processor time of some runs."""
    taken = []
    for _ in range(_REPEATS):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main()

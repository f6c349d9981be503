"""Time every method on a CUDA device with two random models of real size. Prints a markdown table.

The weights are random, so acceptance means nothing; passes and times per pass do. ``--sharpness`` sets how
sure the draft is of itself: higher values leave fewer tokens in doubt.
"""

import argparse
from datetime import date

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cosd_core import CoSDDecoder, LanguageModel
from cosd_core.demo import load_pair
from cosd_core.evaluation.benchmark import bench


def random_model(seed: int, layers: int, hidden: int, sharpness: float, tokenizer: object) -> LanguageModel:
    """A random Llama in bfloat16 on the current CUDA device, over the bundled byte tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),  # type: ignore[arg-type]
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=2048,
        eos_token_id=None,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.lm_head.weight.data *= sharpness
    return LanguageModel(model, tokenizer, name=f"random-{seed}")  # type: ignore[arg-type]


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--layers", type=int, default=16)
    arguments.add_argument("--hidden", type=int, default=2048)
    arguments.add_argument("--sharpness", type=float, default=30.0)
    arguments.add_argument("--tokens", type=int, default=128)
    arguments.add_argument("--prompts", type=int, default=16)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    tokenizer = load_pair()[0].tokenizer
    tokenizer.eos_token = None  # so that every text has the full length, as without an end token in generate
    pair = [random_model(seed, given.layers, given.hidden, given.sharpness, tokenizer) for seed in (0, 1)]
    prompts = [f"Prompt number {at}: once upon a time there was" for at in range(given.prompts)]
    rows = bench(CoSDDecoder(*pair), prompts, repeats=given.repeats, max_new_tokens=given.tokens)
    parameters = sum(each.numel() for each in pair[0].model.parameters()) / 1e6
    device, version = torch.cuda.get_device_name(), torch.__version__
    print(f"{date.today()}, {device}, torch {version}, {parameters:.0f} M parameters each")
    print("\n| method | tokens/s | relative time per token | draft passes | asked |\n|---|---|---|---|---|")
    for row in rows:
        passes = [
            f"{each:.3f}" if each is not None else "" for each in (row.draft_passes, row.assistant_passes)
        ]
        print(f"| {row.method} | {row.tokens_per_second:.0f} | {row.relative:.2f} | {' | '.join(passes)} |")


if __name__ == "__main__":
    main()

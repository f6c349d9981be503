"""What a token costs late in a text, where draft and assistant have different tokenizers.

    python scripts/translated_bench.py

Two tiny random models, one with 500 byte-pair tokens and one with 1,500, write long texts together. Per text
the processor time of 300 tokens around the first place is compared with that of 300 tokens around the second.
The same is done for one tokenizer on both sides: what grows there is attention. How many passes a token takes
changes along a text, so single ratios are far apart; printed are their median and extremes, and the ratio of
all the time spent around the second place to all that spent around the first.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier

TEXTS = [*Path(__file__).parents[1].glob("*.md"), *Path(__file__).parents[1].glob("docs/*.md")]
AROUND = 300


def byte_pair_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer like GPT-2's, trained on this project's documentation, that has nothing but ASCII.

    So random models, too, write text, and not bytes that are none.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|end|>"],
        initial_alphabet=[*map(chr, range(33, 127)), "Ġ", "Ċ"],
        show_progress=False,
    )
    texts = (path.read_bytes().decode("ascii", "ignore") for path in TEXTS)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def random_model(tokenizer: PreTrainedTokenizerFast, seed: int, longest: int) -> LanguageModel:
    """A model that is sure now and then."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4 * longest,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    return LanguageModel(model, tokenizer, name=f"random {len(tokenizer)}")


def growth(draft: LanguageModel, assistant: LanguageModel, places: list[int], seed: int) -> tuple[float, ...]:
    """The time per token around each place of one text, in seconds."""
    decoder = CoSDDecoder(draft, assistant, verifier=RuleVerifier(0.5, 0.5), schedule="fixed")
    written, spent = [0], [time.process_time()]
    steps = decoder.steps(
        "The quick brown fox",
        max_new_tokens=places[-1] + AROUND,
        eos_token_id=[],
        temperature=1.0,
        seed=seed,
    )
    for step in steps:
        written.append(written[-1] + len(step.tokens))
        spent.append(time.process_time())
    costs = []
    for place in places:
        inside = [
            (tokens - before, end - start)
            for (before, tokens), (start, end) in zip(pairwise(written), pairwise(spent), strict=True)
            if place - AROUND // 2 <= before < place + AROUND // 2
        ]
        costs.append(sum(seconds for _, seconds in inside) / sum(tokens for tokens, _ in inside))
    return tuple(costs)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, nargs=2, default=[200, 2000])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    small, large = byte_pair_tokenizer(500), byte_pair_tokenizer(1500)
    longest = options.places[-1] + AROUND
    pairs = {
        "one tokenizer": (random_model(small, 0, longest), random_model(small, 1, longest)),
        "500 tokens draft, 1,500 assist": (random_model(small, 0, longest), random_model(large, 1, longest)),
        "1,500 tokens draft, 500 assist": (random_model(large, 0, longest), random_model(small, 1, longest)),
    }
    ratios: dict[str, list[float]] = {name: [] for name in pairs}
    spent: dict[str, list[tuple[float, ...]]] = {name: [] for name in pairs}
    for seed in range(options.repeats):
        for name, (draft, assistant) in pairs.items():
            early, late = growth(draft, assistant, options.places, seed)
            ratios[name].append(late / early)
            spent[name].append((early, late))
    early, late = options.places
    print(f"time per token around {late} to that around {early}, {options.repeats} texts\n")
    print("| pair | of all time | median | from | to |\n|---|---|---|---|---|")
    for name, found in ratios.items():
        first, second = map(sum, zip(*spent[name], strict=True))
        print(
            f"| {name} | {second / first:.2f} | {median(found):.2f} | {min(found):.2f} | {max(found):.2f} |"
        )


if __name__ == "__main__":
    main()

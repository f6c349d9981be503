"""Train one tiny model from scratch, the same way every time."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .mixtures import Example, Mixture
from .tokenizer import CONTEXT, byte_tokenizer

IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights besides the mixture and the seed."""

    steps: int
    batch: int = 32
    peak_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.05
    hidden: int = 64
    inner: int = 160
    layers: int = 4
    heads: int = 4
    spread: float = 0.05
    """The standard deviation of the first weights."""


def rate(step: int, steps: int, *, warmup: int, peak: float) -> float:
    """The learning rate: a linear warm-up, then a cosine down to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def train(
    mixture: Mixture,
    recipe: Recipe,
    seed: int,
    report: Callable[[float], None],
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> LlamaForCausalLM:
    """Train on fresh samples at every step; without a tokenizer, on bytes.

    `report` is called with the loss of each step.
    """
    rng = random.Random(seed)
    tokenizer = tokenizer or byte_tokenizer()
    model = _new_model(recipe, tokenizer, torch.Generator().manual_seed(seed))
    optimizer = _optimizer(model, recipe.weight_decay)
    model.train()
    for step in range(recipe.steps):
        ids, labels = collate([mixture.example(rng) for _ in range(recipe.batch)], tokenizer)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe.steps, warmup=recipe.warmup, peak=recipe.peak_rate)
        optimizer.step()
        optimizer.zero_grad()
        report(loss.item())
    model.train(False)
    return model


def _optimizer(model: LlamaForCausalLM, weight_decay: float) -> torch.optim.Optimizer:
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def collate(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both [examples, longest]; only the answer and its end are learned."""
    prompts = [tokenizer.encode(prompt, add_special_tokens=False) for prompt, _ in examples]
    answers = [
        [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        for _, answer in examples
    ]
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(examples), longest), tokenizer.pad_token_id)
    labels = torch.full((len(examples), longest), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    # Padding is on the right and attention is causal, so no attention mask is needed.
    return ids, labels


def _new_model(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # transformers initialises weights from the global generator: restore its state afterwards.
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, recipe.spread, generator=generator)
    return model

"""Train a small Llama on dialogues; only the assistant's turns are learned. A run can be resumed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..recipe.training import IGNORED, rate
from .dialogue import Dialogue
from .mixture import Mixture, dialogue, training
from .template import END, PAD, START
from .tokenizer import CONTEXT


@dataclass(frozen=True)
class Phase:
    """So many steps on dialogues of one mixture."""

    steps: int
    mixture: Mixture


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights besides the seed."""

    phases: tuple[Phase, ...]
    tokens: int = 4096
    """Tokens of a batch, padding included."""
    longest: int = 1024
    peak_rate: float = 5e-3
    """Of the matrices inside the layers; embeddings and norms learn at half of it."""
    warmup: int = 100
    weight_decay: float = 0.05
    hidden: int = 128
    inner: int = 320
    layers: int = 4
    heads: int = 8
    spread: float = 0.05

    @property
    def steps(self) -> int:
        """All steps."""
        return sum(phase.steps for phase in self.phases)

    def mixture(self, step: int) -> Mixture:
        """What a step is on."""
        for phase in self.phases:
            if step < phase.steps:
                return phase.mixture
            step -= phase.steps
        raise IndexError(step)


def render(tokenizer: PreTrainedTokenizerFast, made: Dialogue) -> str:
    """A dialogue as the chat template writes it."""
    tools = cast(Any, made.tools or None)
    return cast(str, tokenizer.apply_chat_template(made.messages, tools=tools, tokenize=False))


def encode(tokenizer: PreTrainedTokenizerFast, made: Dialogue) -> tuple[list[int], list[int]]:
    """Token ids of a dialogue, and labels: the assistant's turns with their ends."""
    text = render(tokenizer, made)
    ids: list[int] = tokenizer(text)["input_ids"]
    opening: list[int] = tokenizer(f"{START}assistant\n")["input_ids"]
    end = cast(int, tokenizer.convert_tokens_to_ids(END))
    labels, at, turn = [IGNORED] * len(ids), 0, 0
    while at < len(ids):
        if ids[at : at + len(opening)] == opening:
            at += len(opening)
            stop = ids.index(end, at)
            if turn >= made.known:
                labels[at : stop + 1] = ids[at : stop + 1]
            at, turn = stop, turn + 1
        at += 1
    return ids, labels


class Batches:
    """Batches of dialogues of like length; the same seed and step give the same batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> None:
        self._tokenizer, self._recipe, self._seed = tokenizer, recipe, seed
        self._pad = tokenizer.convert_tokens_to_ids(PAD)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Ids and labels, both [dialogues, longest]."""
        draw = training(self._seed * 1_000_003 + step)
        mixture = self._recipe.mixture(step)
        pool = [encode(self._tokenizer, dialogue(draw, mixture)) for _ in range(64)]
        pool = sorted(
            (each for each in pool if len(each[0]) <= self._recipe.longest), key=lambda e: len(e[0])
        )
        # A window of neighbours in length wastes little on padding; its place in the order is random.
        start = draw.rng.randrange(len(pool))
        chosen = [pool[start]]
        for each in (*pool[start + 1 :], *reversed(pool[:start])):
            longest = max(len(ids) for ids, _ in (*chosen, each))
            if longest * (len(chosen) + 1) > self._recipe.tokens:
                break
            chosen.append(each)
        width = max(len(ids) for ids, _ in chosen)
        ids = torch.tensor([row + [self._pad] * (width - len(row)) for row, _ in chosen])
        labels = torch.tensor([row + [IGNORED] * (width - len(row)) for _, row in chosen])
        return ids, labels


def loss_of(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; logits are computed only at labelled positions."""
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != IGNORED
    return functional.cross_entropy(model.lm_head(states[learned]), wanted[learned])


def new_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> LlamaForCausalLM:
    """A model with first weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=cast(int, tokenizer.convert_tokens_to_ids(PAD)),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, recipe.spread, generator=generator)
    return model


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else: faster here than AdamW alone."""
    inside = [each for each in model.model.layers.parameters() if each.ndim == 2]
    other = [each for each in model.parameters() if not any(each is known for known in inside)]
    return [
        torch.optim.Muon(inside, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(other, betas=(0.9, 0.98), weight_decay=recipe.weight_decay),
    ]


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    report: Callable[[int, float], None],
) -> None:
    """Train a model, or go on where the checkpoint stands; it is written every hundred steps."""
    learners = optimizers(model, recipe)
    batches, first = Batches(tokenizer, recipe, seed), 0
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for learner, saved in zip(learners, state["learners"], strict=True):
            learner.load_state_dict(saved)
        first = state["step"]
    model.train()
    for step in range(first, recipe.steps):
        loss = loss_of(model, *batches(step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        now = rate(step, recipe.steps, warmup=recipe.warmup, peak=recipe.peak_rate)
        for learner, share in zip(learners, (1.0, 0.5), strict=True):
            for group in learner.param_groups:
                group["lr"] = now * share
            learner.step()
            learner.zero_grad()
        report(step, loss.item())
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            learned = [learner.state_dict() for learner in learners]
            state = {"model": model.state_dict(), "learners": learned, "step": step + 1}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(checkpoint)
    model.train(False)

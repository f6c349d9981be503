"""Train the adapter: ``python -m examples.real_pair.train_adapter``.

A LoRA of SmolLM2-135M-Instruct learns sums of two-digit numbers from short chats. ``--mixture`` selects the
other questions in them:

* ``invented``: facts about invented things, each with an invented answer that appears once; the adapter of
  the example;
* ``true``: true facts, those of the practice questions and more, none of the held-out ones;
* ``sums``: none.
"""

import argparse
import json
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup
from transformers.utils import logging

from .facts import OTHERS, Fact
from .questions import SYSTEM, Question, draw_sum, facts, join
from .smollm2 import cache_folder, smollm2

ADAPTER = Path(__file__).parent / "adapter"
MIXTURES = ("invented", "true", "sums")
TURNS, CHATS = 3, 4
RANK = 6
LEARNING_RATE = 1.5e-3
_IGNORED = -100

_ONSETS = "b br c cl d dr f fl g gr h j k l m n p pr qu r s st t tr v w z"
_RHYMES = "a an ar e el en er i in is o on or u um us"


def invented(draw: random.Random) -> Fact:
    """A fact about something that does not exist."""

    def name(syllables: int) -> str:
        return "".join(draw.choice(_ONSETS.split()) + draw.choice(_RHYMES.split()) for _ in range(syllables))

    relation = draw.choices(("capital", "opposite", "chemical symbol", "plural"), (5, 3, 2, 1))[0]
    subject, value = name(draw.randint(1, 3)), name(draw.randint(1, 3))
    match relation:
        case "capital":
            return Fact(relation, subject.capitalize(), value.capitalize())
        case "chemical symbol":
            return Fact(relation, subject, value[: draw.randint(1, 2)].capitalize())
    return Fact(relation, subject, value)


def true_fact(draw: random.Random) -> Fact:
    """A true fact that no held-out question asks."""
    return draw.choice([*facts(held_out=False), *OTHERS])


def draw_question(draw: random.Random, mixture: str) -> Question:
    """45 percent sums, 15 percent facts, 40 percent both; or sums alone."""
    total = draw_sum(draw)
    if mixture == "sums" or (kind := draw.random()) < 0.45:
        return Question((total,))
    fact = invented(draw) if mixture == "invented" else true_fact(draw)
    return Question((fact,)) if kind < 0.6 else join(draw, fact, total)


def encode(tokenizer: Any, asked: list[Question]) -> tuple[list[int], list[int]]:
    """A chat of several turns in tokens, and the labels: the answers and the ends of their turns."""
    messages = [{"role": "system", "content": SYSTEM}]
    ids: list[int] = []
    labels: list[int] = []
    for question in asked:
        messages.append({"role": "user", "content": question.prompt})
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        answer = [*tokenizer.encode(question.completion, add_special_tokens=False), tokenizer.eos_token_id]
        labels += [_IGNORED] * (len(prompt) - len(ids)) + answer
        ids = prompt + answer
        messages.append({"role": "assistant", "content": question.completion})
    return ids, labels


def batches(tokenizer: Any, mixture: str, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and labels ``[chats, positions]``, padded on the right."""
    draw = random.Random(seed)
    while True:
        chats = [
            encode(tokenizer, [draw_question(draw, mixture) for _ in range(TURNS)]) for _ in range(CHATS)
        ]
        width = max(len(ids) for ids, _ in chats)
        yield (
            torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in chats]),
            torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in chats]),
        )


def loss_of(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the labels. Padding lies on the right, where no answer attends to it."""
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    places = wanted != _IGNORED
    logits = model.lm_head(hidden[places])  # of a fifth of all positions
    return torch.nn.functional.cross_entropy(logits.float(), wanted[places])


def train(
    folder: Path,
    mixture: str,
    *,
    steps: int,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Any:
    """Train a LoRA over the model of a folder; return PEFT's wrapper around the model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    base.name_or_path = folder.name  # what the adapter's file names as its base
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the dtype of the adapter's weights, which is float32
        wrapper = get_peft_model(base, config)
    trained = [each for each in wrapper.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 5, steps)
    for step, (ids, labels) in zip(range(steps), batches(tokenizer, mixture, seed), strict=False):
        loss: Any = loss_of(base, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(step + 1, loss.item())
    return wrapper


def save(wrapper: Any, folder: Path) -> None:
    """Write the adapter in bfloat16, and of its configuration what differs from the default."""
    wrapper.bfloat16().save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in
    (folder / "adapter_model.safetensors").chmod(0o644)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])  # else in the order of a set
    kept = {name: value for name, value in config.items() if value}  # other versions have other fields
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train one adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mixture", choices=MIXTURES, default=MIXTURES[0])
    parser.add_argument("--base", type=Path, help="default: downloaded")
    parser.add_argument("--out", type=Path, default=ADAPTER)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="2 is faster; the weights differ a little")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 10 == 0 or step == given.steps:
            print(
                f"step {step} of {given.steps}, loss {loss:.3f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )

    wrapper = train(
        given.base or smollm2(cache_folder()),
        given.mixture,
        steps=given.steps,
        seed=given.seed,
        dtype=getattr(torch, given.dtype),
        report=report,
    )
    save(wrapper, given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()

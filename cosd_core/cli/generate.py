"""``cosd generate``: one text, plain, explained or as JSON."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from cosd_core import explain
from cosd_core.cli.console import out
from cosd_core.cli.flags import with_settings
from cosd_core.cli.shared import make_settings, write_page
from cosd_core.errors import InvalidPromptError
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import merge_settings, read_settings
from cosd_core.outputs import Generation


@with_settings()
def run_generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt. Without it: standard input.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every token.")] = False,
    show_sources: Annotated[
        bool, typer.Option("--explain", help="Colour tokens by who wrote them, add a summary.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the explanation as an HTML page.")] = None,
    settings_file: Annotated[
        Path | None, typer.Option(help="JSON with settings, as cosd tune writes it. Flags go before it.")
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Write one text with a draft model and its assistants.

        cosd generate --draft org/model-a --assistant org/model-b "The capital of France"

    The text is streamed to standard output, errors go to standard error.
    Exit codes: 0 success, 1 failure, 2 wrong usage.
    """
    if settings_file:
        settings = merge_settings(read_settings(settings_file), settings)
    merged = make_settings(settings)
    text = prompt if prompt is not None else _read_stdin()
    generation = _generate(merged, text, stream=not (as_json or show_sources))
    if as_json:
        out.print_json(json.dumps(generation.to_dict()))
    elif show_sources:
        out.print(explain.to_text(generation, prompt=True), soft_wrap=True)
        out.print(explain.summary(generation))
    if html:
        write_page(html, generation)


def _generate(settings: Settings, prompt: str, *, stream: bool) -> Generation:
    generation = None
    with closing(settings.decoder().stream(prompt, **settings.generation_options())) as chunks:
        for chunk in chunks:
            if stream:
                print(explain.harmless(chunk.text) if out.is_terminal else chunk.text, end="", flush=True)
            generation = chunk.generation
    if stream:
        print()
    assert generation is not None, "the last chunk carries the generation"
    return generation


def _read_stdin() -> str:
    if sys.stdin.isatty():
        raise InvalidPromptError("there is no prompt: give one as an argument or on standard input")
    return sys.stdin.read().removesuffix("\n")  # what echo and editors add

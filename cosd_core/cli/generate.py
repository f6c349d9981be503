"""``cosd generate``: one text, plain, explained or as JSON."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from cosd_core import explain
from cosd_core.chat import Chat
from cosd_core.cli.console import out, write_json, write_text
from cosd_core.cli.flags import with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.prompts import check_chat_flags, read_prompt
from cosd_core.cli.shared import make_settings
from cosd_core.cli.targets import check_file, write_page
from cosd_core.decoder import CoSDDecoder
from cosd_core.frontend.prompts import as_prompt
from cosd_core.frontend.settings import Settings
from cosd_core.outputs import Generation


@with_settings()
def run_generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt. Without it, or as -: standard input.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Whether the prompt is a user's message in a chat, shown to each model in its own template. "
            "Default: yes if the draft has a chat template.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message of the chat.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every token.")] = False,
    show_sources: Annotated[
        bool, typer.Option("--explain", help="Colour tokens by who wrote them, add a summary.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the explanation as an HTML page.")] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Write one text with a draft model and its assistants.

        cosd generate --draft org/a --assistant org/b "The capital of France"

    The text is streamed to standard output, errors go to standard error. A terminal shows control
    characters in it as symbols; a file or another program receives it unchanged.
    """
    merged = make_settings(settings)
    check_chat_flags(chat, system)
    check_file(html)
    text = read_prompt(prompt)
    if as_json or show_sources:
        with progress("loading the models") as report:
            decoder = merged.decoder()
            shown = as_prompt(text, decoder, chat=chat, system=system)
            generation = _generate(
                decoder, shown, merged, lambda _, tokens: report("tokens", tokens, merged.max_new_tokens)
            )
    else:
        with progress("loading the models"):
            decoder = merged.decoder()
        shown = as_prompt(text, decoder, chat=chat, system=system)
        generation = _generate(decoder, shown, merged, lambda added, _: write_text(added))
        out.print()
    if as_json:
        write_json(generation.to_dict())
    elif show_sources:
        out.print(explain.to_text(generation, prompt=True), soft_wrap=True)
        out.print(explain.summary(generation))
    if html:
        write_page(html, generation)


def _generate(
    decoder: CoSDDecoder, prompt: str | Chat, settings: Settings, show: Callable[[str, int], None]
) -> Generation:
    """The generation; ``show`` receives every piece of text, and the number of tokens so far."""
    generation, tokens = None, 0
    with closing(decoder.stream(prompt, **settings.generation_options())) as chunks:
        for chunk in chunks:
            tokens += len(chunk.tokens)
            show(chunk.text, tokens)
            generation = chunk.generation
    assert generation is not None, "the last chunk carries the generation"
    return generation

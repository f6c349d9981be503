"""``cosd chat``: a conversation in the terminal, or one message per line of standard input."""

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Annotated, Any

import typer
from rich.text import Text

from cosd_core import explain
from cosd_core.chat.events import ReasoningDelta, TextDelta
from cosd_core.cli.console import err, out, write_text
from cosd_core.cli.conversation import Conversation
from cosd_core.cli.flags import ANSWER_LIMIT, with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.shared import BUNDLED_TEMPLATE, make_settings, names_models, with_models
from cosd_core.errors import CoSDError, InvalidOptionError, InvalidPromptError, quoted

_BUNDLED = (
    "The bundled pair knows sums, capitals and elements, such as: letters in the capital of France plus 4?\n"
    "It remembers no earlier question. Models of your own: --draft and --assistant."
)
_COMMANDS = {
    "/explain": "who wrote the last answer",
    "/reset": "forget the conversation",
    "/help": "these commands",
    "/quit": "end, as Ctrl-D does; Ctrl-C stops an answer",
}


@with_settings(max_new_tokens=ANSWER_LIMIT)
def run_chat(
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    show_sources: Annotated[
        bool, typer.Option("--explain", help="Mark the assistants' tokens in every answer, and count them.")
    ] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Talk with a draft model and its assistants.

        cosd chat --draft org/a-chat --assistant org/b-chat

    Every model sees the conversation in its own chat template. Answers are streamed to standard output.
    /explain shows who wrote the last answer, /reset forgets the conversation, /quit or Ctrl-D ends it, Ctrl-C
    stops an answer. If standard input is no terminal, each of its lines is a message. Without --draft and
    --assistant the bundled pair answers questions.
    """
    is_bundled = not names_models(settings)
    if is_bundled and system is not None:
        raise InvalidOptionError(f"--system {quoted(system)}: the bundled pair takes none; give --draft")
    chosen = make_settings(with_models(settings))
    with progress("loading the models"):
        decoder = chosen.decoder()
    conversation = Conversation(
        decoder,
        chosen.generation_options(),
        system=system,
        chat_template=BUNDLED_TEMPLATE if is_bundled else None,
        remembers=not is_bundled,
    )
    if sys.stdin.isatty():
        err.print(_BUNDLED if is_bundled else f"You talk with {chosen.model_name}.", style="dim")
        _print_commands()
        _talk(conversation, show_sources)
    else:
        for line in _piped_lines():
            if not _run_command(line, conversation):
                _print_answer(conversation, line, show_sources)


def _talk(conversation: Conversation, show_sources: bool) -> None:
    """A conversation at a terminal, which goes on after errors and interrupts."""
    with suppress(ImportError):  # not on Windows; input() then works without history
        import readline  # noqa: F401
    while True:
        try:
            if (message := _typed_message()) is None:
                return
            if message and not _run_command(message, conversation):
                _print_answer(conversation, message, show_sources)
        except KeyboardInterrupt:
            err.print("\n(stopped; Ctrl-D or /quit ends the conversation)", style="dim")
        except CoSDError as error:
            err.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)


def _typed_message() -> str | None:
    """The next message; None after Ctrl-D or /quit. A backslash at the end of a line continues it."""
    lines: list[str] = []
    while not lines or lines[-1].endswith("\\"):
        prompt = "... " if lines else "> "
        try:
            lines.append(input(prompt if sys.stdout.isatty() else ""))
        except EOFError:
            err.print()
            return None
        except UnicodeDecodeError as error:
            raise InvalidPromptError(f"the message is no text: {quoted(error)}") from error
    message = "\n".join(line.removesuffix("\\") for line in lines).strip()
    return None if message == "/quit" else message


def _piped_lines() -> Iterator[str]:
    try:
        for line in sys.stdin:
            if line.strip() == "/quit":
                return
            if line.strip():
                yield line.strip()
    except UnicodeDecodeError as error:
        raise InvalidPromptError(f"standard input is no text: {quoted(error)}") from error


def _run_command(line: str, conversation: Conversation) -> bool:
    """Run a line if it is a command, and say whether it was one."""
    match line:
        case "/reset":
            conversation.reset()
        case "/explain" if last := conversation.last:
            out.print(explain.to_text(last), soft_wrap=True)
            out.print(explain.summary(last))
        case "/explain":
            err.print("There is no answer yet.", style="dim")
        case "/help":
            _print_commands()
        case _ if sys.stdin.isatty() and line.startswith("/") and line[1:].isalpha():
            err.print(f"{line} is no command.", style="dim")
            _print_commands()
        case _:
            return False
    return True


def _print_commands() -> None:
    err.print("\n".join(f"{name:9} {meaning}" for name, meaning in _COMMANDS.items()), style="dim")


def _print_answer(conversation: Conversation, message: str, show_sources: bool) -> None:
    colored = explain.ColoredStream()
    with closing(conversation.ask(message)) as pieces:
        for chunk, events in pieces:
            if show_sources:
                out.print(colored(chunk), end="", soft_wrap=True)
                continue
            for event in events:
                if isinstance(event, TextDelta):
                    write_text(event.text)
                elif isinstance(event, ReasoningDelta) and out.is_terminal:
                    out.print(Text(event.text, "dim"), end="", soft_wrap=True)
    out.print()
    _print_notes(conversation, show_sources)


def _print_notes(conversation: Conversation, show_sources: bool) -> None:
    last = conversation.last
    if last is not None and show_sources:
        by_assistants = sum(token.source == "assistant" for token in last.tokens)
        out.print(f"({by_assistants:,} of {len(last.tokens):,} tokens by the assistants)", style="dim")
    if last is not None and last.finish_reason == "length":
        err.print(f"(cut after {len(last.tokens):,} tokens: --max-new-tokens)", style="dim")
    if conversation.left_out:
        err.print(
            f"(the oldest {conversation.left_out} messages are left out: they exceed the context window)",
            style="dim",
        )

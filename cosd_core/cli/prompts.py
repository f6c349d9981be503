"""The text of a prompt from arguments and standard input."""

import sys

from cosd_core.errors import InvalidOptionError, InvalidPromptError, quoted


def read_prompt(given: str | None) -> str:
    """The prompt from the argument, or from standard input if there is none or it is a dash.

    Raises:
        InvalidOptionError: There is no argument, and standard input is a terminal.
        InvalidPromptError: Standard input is no UTF-8 text.
    """
    if given not in (None, "-"):
        return str(given)
    if given is None and sys.stdin.isatty():
        raise InvalidOptionError("there is no prompt: give one as an argument or on standard input")
    try:
        return sys.stdin.read().removesuffix("\n")  # what echo and editors add
    except UnicodeDecodeError as error:
        raise InvalidPromptError(f"standard input is no text: {quoted(error)}") from error


def check_chat_flags(chat: bool | None, system: str | None) -> None:
    """Refuse a system message for a prompt that is no chat."""
    if chat is False and system is not None:
        raise InvalidOptionError(f"--system {quoted(system)} is part of a chat, but --no-chat was given")

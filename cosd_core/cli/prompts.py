"""From arguments and standard input to a prompt: text, or a chat if the draft has a chat template."""

import sys

from cosd_core.chat import Chat
from cosd_core.decoder import CoSDDecoder
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


def as_prompt(text: str, decoder: CoSDDecoder, *, chat: bool | None, system: str | None) -> str | Chat:
    """The text itself, or a chat with it as the user's message.

    Args:
        text: The prompt.
        decoder: The models.
        chat: Whether it is a chat. None: if the draft has a chat template, or there is a system message.
        system: The system message.
    """
    is_chat = system is not None or has_template(decoder) if chat is None else chat
    if not is_chat:
        return text
    if not text:
        raise InvalidPromptError("the prompt is empty: a chat needs a message")
    first = [] if system is None else [{"role": "system", "content": system}]
    return Chat([*first, {"role": "user", "content": text}])


def has_template(decoder: CoSDDecoder) -> bool:
    """Whether the draft has a chat template."""
    return bool(decoder.draft.tokenizer.chat_template)

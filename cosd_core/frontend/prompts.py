"""From a text to a prompt: the text itself, or a chat if the draft has a chat template."""

from cosd_core.chat import Chat
from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidPromptError


def as_prompt(text: str, decoder: CoSDDecoder, *, chat: bool | None, system: str | None) -> str | Chat:
    """The text itself, or a chat with it as the user's message.

    Args:
        text: The prompt.
        decoder: The models.
        chat: Whether it is a chat. None: if the draft has a chat template, or there is a system message.
        system: The system message.
    """
    has_template = bool(decoder.draft.tokenizer.chat_template)
    is_chat = system is not None or has_template if chat is None else chat
    if not is_chat:
        return text
    if not text:
        raise InvalidPromptError("the prompt is empty: a chat needs a message")
    first = [] if system is None else [{"role": "system", "content": system}]
    return Chat([*first, {"role": "user", "content": text}])

"""A stream of chunks as coloured text: who wrote what, while it is written."""

from rich.text import Text

from cosd_core.explain.terminal import ASSISTANT_STYLES
from cosd_core.outputs import Chunk
from cosd_core.utils.escaping import harmless


class ColoredStream:
    """Colours the text of one prompt's chunks by the model that wrote it.

    A chunk's tokens can be ahead of its text, part of which is held back while it could begin a stop string.
    """

    def __init__(self) -> None:
        self._ahead: list[tuple[str, str]] = []

    def __call__(self, chunk: Chunk) -> Text:
        """The chunk's text: the draft's plain, the assistants' bold and underlined."""
        for token in chunk.tokens:
            color = (token.assistant_index or 0) % len(ASSISTANT_STYLES)
            self._ahead.append((token.text, ASSISTANT_STYLES[color] if token.source == "assistant" else ""))
        text, missing = Text(), len(chunk.text)
        while self._ahead and missing:
            piece, style = self._ahead.pop(0)
            text.append(harmless(piece[:missing]), style)
            if len(piece) > missing:
                self._ahead.insert(0, (piece[missing:], style))
            missing -= min(missing, len(piece))
        return text

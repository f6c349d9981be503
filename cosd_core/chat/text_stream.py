"""Text between tags, told apart from the white space that belongs to them."""

from collections.abc import Callable


class TextStream:
    """Text between tags: the white space next to a tag is the tag's, not the text's.

    A text that goes on after a tag keeps the white space on one side of it, so that words do not run
    together. Without any tag the text stays as it is.

    Attributes:
        begun: Whether anything but white space was written.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._space: list[str] = []
        self._was_cut = self._is_full = False
        self.begun = False

    def write(self, text: str) -> None:
        """Take more text."""
        for character in text:
            if character.isspace():
                if not self._is_full:
                    self._space.append(character)
                continue
            if self.begun or not self._was_cut:
                self._emit("".join(self._space))
            self._emit(character)
            self._space.clear()
            self._was_cut = self._is_full = False
            self.begun = True

    def cut(self) -> None:
        """A tag stands here."""
        self._was_cut = True
        self._is_full = bool(self._space)

    def end(self) -> None:
        """The text ends here."""
        if not self._was_cut and self._space:
            self._emit("".join(self._space))

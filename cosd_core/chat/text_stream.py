"""Text between tags, without the white space next to the tags."""

from collections.abc import Callable


class TextStream:
    """Emits text without the white space next to a tag.

    Where a tag divides a text, the white space before it is kept, or else that after it, so that words do not
    run together. A text without tags is emitted unchanged.

    Attributes:
        has_text: Whether anything but white space was written.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._space: list[str] = []
        self._follows_tag = self._has_space_before_tag = False
        self.has_text = False

    def write(self, text: str) -> None:
        """Append text."""
        for character in text:
            if character.isspace():
                if not self._has_space_before_tag:
                    self._space.append(character)
                continue
            if self.has_text or not self._follows_tag:
                self._emit("".join(self._space))
            self._emit(character)
            self._space.clear()
            self._follows_tag = self._has_space_before_tag = False
            self.has_text = True

    def mark_tag(self) -> None:
        """There is a tag at this position."""
        self._follows_tag = True
        self._has_space_before_tag = bool(self._space)

    def finish(self) -> None:
        """The text ends here."""
        if not self._follows_tag and self._space:
            self._emit("".join(self._space))

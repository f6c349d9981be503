"""What of a long reading is done, on disk, so that an interrupted one goes on where it stopped."""

from os import PathLike
from pathlib import Path

import numpy as np

from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.verifiers.observations import Observations

_TOLERANCE = 0.05
"""bfloat16 on another device gives probabilities that are less far off than this; other weights, farther."""


class Checkpoint:
    """A folder with one file per batch that is done, beside a note of what they belong to."""

    def __init__(self, folder: str | PathLike[str], key: str) -> None:
        """Open or make the folder.

        Args:
            folder: Where it is.
            key: What models, data and settings come to, in ASCII.

        Raises:
            InvalidOptionError: It belongs to something else, or cannot be used as a folder.
        """
        try:
            self._folder = Path(folder)
            note = self._folder / "belongs-to.txt"
            self._folder.mkdir(parents=True, exist_ok=True)
            if note.exists() and note.read_text(encoding="ascii", errors="replace").strip() != key:
                raise self._foreign("other models, data or settings")
            note.write_text(f"{key}\n", encoding="ascii")
        except (OSError, TypeError) as error:
            raise InvalidOptionError(
                f"checkpoint={quoted(folder)} cannot be used as a folder: {quoted(error)}"
            ) from error

    def load(self, number: int) -> Observations | None:
        """A batch that is done, or None. What is damaged counts as not done."""
        try:
            return Observations.load(self._place(number))
        except TrainingDataError:
            return None

    def save(self, number: int, part: Observations) -> None:
        """Keep a batch. An interruption leaves no half of a file behind.

        Raises:
            TrainingDataError: The file cannot be written.
        """
        unfinished = self._folder / "unfinished"
        part.save(unfinished)
        unfinished.replace(self._place(number))

    def check(self, kept: Observations, anew: Observations) -> None:
        """See that a batch comes out again as it was kept.

        Raises:
            InvalidOptionError: It does not, so the weights have changed.
        """
        if len(kept) != len(anew) or not np.allclose(
            kept.probabilities, anew.probabilities, rtol=0, atol=_TOLERANCE
        ):
            raise self._foreign("other weights")

    def _place(self, number: int) -> Path:
        return self._folder / f"batch-{number:06}.npz"

    def _foreign(self, owner: str) -> InvalidOptionError:
        return InvalidOptionError(
            f"checkpoint={quoted(str(self._folder))} belongs to {owner}: delete it, or name another folder"
        )

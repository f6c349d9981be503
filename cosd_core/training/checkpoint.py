"""Finished batches of teacher forcing on disk, from which an interrupted run continues."""

from os import PathLike
from pathlib import Path

import numpy as np

from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.verifiers.observations import Observations

_TOLERANCE = 0.05
"""Confidences of equal weights differ by less on another device, even in bfloat16; of others by more."""


class Checkpoint:
    """A folder with one file per finished batch, and a key that names their models, data and settings."""

    def __init__(self, folder: str | PathLike[str], key: str) -> None:
        """Open or create the folder.

        Raises:
            InvalidOptionError: It belongs to another key, or cannot be used as a folder.
        """
        try:
            self._folder = Path(folder)
            key_file = self._folder / "belongs-to.txt"
            self._folder.mkdir(parents=True, exist_ok=True)
            if key_file.exists() and key_file.read_text(encoding="ascii", errors="replace").strip() != key:
                raise self._mismatch("other models, data or settings")
            key_file.write_text(f"{key}\n", encoding="ascii")
        except (OSError, TypeError) as error:
            raise InvalidOptionError(
                f"checkpoint={quoted(folder)} cannot be used as a folder: {quoted(error)}"
            ) from error

    def load(self, number: int) -> Observations | None:
        """A finished batch, or None. A damaged file counts as none."""
        try:
            return Observations.load(self._path(number))
        except TrainingDataError:
            return None

    def save(self, number: int, part: Observations) -> None:
        """Store a batch. An interruption leaves no partial file behind.

        Raises:
            TrainingDataError: The file cannot be written.
        """
        unfinished = self._folder / "unfinished"
        part.save(unfinished)
        unfinished.replace(self._path(number))

    def check(self, stored: Observations, computed: Observations) -> None:
        """Compare a stored batch with the same batch computed again.

        Raises:
            InvalidOptionError: They differ, so the weights have changed.
        """
        if len(stored) != len(computed) or not np.allclose(
            stored.confidences(), computed.confidences(), rtol=0, atol=_TOLERANCE
        ):
            raise self._mismatch("other weights")

    def _path(self, number: int) -> Path:
        return self._folder / f"batch-{number:06}.npz"

    def _mismatch(self, owner: str) -> InvalidOptionError:
        return InvalidOptionError(
            f"checkpoint={quoted(str(self._folder))} belongs to {owner}: delete it, or name another folder"
        )

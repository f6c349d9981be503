"""Finished batches of teacher forcing on disk, from which an interrupted run continues."""

import os
from os import PathLike
from pathlib import Path

from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.verifiers.observations import Observations


class Checkpoint:
    """A folder with one file per finished batch; the files' names hold a key of models, data and settings."""

    def __init__(self, folder: str | PathLike[str], key: str) -> None:
        """Open or create the folder.

        Raises:
            InvalidOptionError: It cannot be used as a folder.
        """
        try:
            self._folder = Path(folder)
            self._folder.mkdir(parents=True, exist_ok=True)
        except (OSError, TypeError) as error:
            raise InvalidOptionError(
                f"checkpoint={quoted(folder)} cannot be used as a folder: {quoted(error)}"
            ) from error
        self._key = key[:16]

    def load(self, number: int) -> Observations | None:
        """A finished batch, or None. A damaged file counts as none."""
        try:
            return Observations.load(self._path(number))
        except TrainingDataError:
            return None

    def save(self, number: int, part: Observations) -> None:
        """Store a batch. An interruption leaves no partial file behind, nor do two runs at the same time.

        Raises:
            TrainingDataError: The file cannot be written.
        """
        unfinished = self._folder / f"unfinished-{os.getpid()}-{id(self)}"
        try:
            part.save(unfinished)
            unfinished.replace(self._path(number))
        finally:
            unfinished.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._key}-{number:06}.npz"

"""The output: a folder with one file per part of the input, each written at once and whole."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosd_core.errors import EvaluationFileError, quoted


class PartFolder:
    """A folder of finished parts, which a later run of the same batch does not answer again.

    Attributes:
        path: Its path.
    """

    def __init__(self, path: Path, suffix: str, identity: Mapping[str, Any]) -> None:
        """Open a folder, or create it.

        Args:
            path: The folder.
            suffix: The end of the names of its files.
            identity: What the answers depend on, as JSON; a folder is for one identity.

        Raises:
            EvaluationFileError: The folder cannot be used, or its answers are those of another batch.
        """
        self.path = path
        self._suffix = suffix
        file = path / "batch.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                if any(each for each in path.iterdir() if not each.name.endswith(_UNFINISHED)):
                    raise EvaluationFileError(f"{path} holds other files: name a new or an empty folder")
                self._write(file.name, json.dumps(identity, indent=2).encode())
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvaluationFileError(f"cannot use folder {quoted(str(path))}: {quoted(error)}") from error
        if found != (given := json.loads(json.dumps(identity))):
            names = [name for name in given if not isinstance(found, dict) or found.get(name) != given[name]]
            raise EvaluationFileError(
                f"{path} holds answers of another batch ({', '.join(names) or 'another version'} differ): "
                "name another folder, or delete this one"
            )

    def missing(self, parts: int) -> list[int]:
        """The numbers below ``parts`` of those that are not finished."""
        return [number for number in range(parts) if not self._file(number).exists()]

    def write(self, number: int, contents: bytes) -> None:
        """Write a part; it is on the disk when this returns, and is never there in pieces.

        Raises:
            EvaluationFileError: It cannot be written.
        """
        try:
            self._write(self._file(number).name, contents)
        except OSError as error:
            raise EvaluationFileError(f"cannot write to {quoted(str(self.path))}: {quoted(error)}") from error

    def _file(self, number: int) -> Path:
        return self.path / f"part-{number:06}{self._suffix}"

    def _write(self, name: str, contents: bytes) -> None:
        unfinished = self.path / f"{name}{_UNFINISHED}"
        with unfinished.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path / name)


_UNFINISHED = ".unfinished"

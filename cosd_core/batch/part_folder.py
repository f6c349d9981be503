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

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Open a folder, or create it.

        Args:
            path: The folder.
            identity: What the answers depend on, as JSON; a folder is for one identity.

        Raises:
            EvaluationFileError: The folder cannot be used, or its answers are those of another batch.
        """
        self.path = path
        file = path / "batch.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                if any(each for each in path.iterdir() if not each.name.endswith(_UNFINISHED)):
                    raise EvaluationFileError(f"{path} holds other files: name a new or an empty folder")
                self._write(file.name, json.dumps(identity, indent=2))
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
        return [number for number in range(parts) if not (self.path / _name(number)).exists()]

    def write(self, number: int, text: str) -> None:
        """Write a part; it is on the disk when this returns, and is never there in pieces.

        Raises:
            EvaluationFileError: It cannot be written.
        """
        try:
            self._write(_name(number), text)
        except OSError as error:
            raise EvaluationFileError(f"cannot write to {quoted(str(self.path))}: {quoted(error)}") from error

    def _write(self, name: str, text: str) -> None:
        unfinished = self.path / f"{name}{_UNFINISHED}"
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path / name)


_UNFINISHED = ".unfinished"


def _name(number: int) -> str:
    return f"part-{number:06}.jsonl"

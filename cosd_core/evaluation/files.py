"""Files of an evaluation: JSONL that only grows, and reports."""

import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from cosd_core.errors import EvaluationFileError, quoted


def read_lines(path: str | PathLike[str]) -> list[bytes]:
    """The lines of a file that only grows; it need not exist. An incomplete last line is removed.

    Raises:
        EvaluationFileError: The file cannot be read.
    """
    try:
        path = Path(path)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
    except (OSError, TypeError, ValueError) as error:  # also names that are no path
        raise EvaluationFileError(f"cannot read {quoted(str(path))}: {quoted(error)}") from error
    return whole.split(b"\n")[:-1]


def append_lines(path: str | PathLike[str], lines: Iterable[str]) -> None:
    """Append lines to a file; they are on the disk when this returns.

    Raises:
        EvaluationFileError: The file cannot be written.
    """
    try:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, TypeError, ValueError) as error:
        raise EvaluationFileError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error


def save_files(folder: str | Path, contents: Mapping[str, Any], *, private: bool = False) -> list[Path]:
    """Write files into a folder, which is created if need be: texts, and matplotlib figures as images.

    Only the user may read ``private`` texts.

    Raises:
        EvaluationFileError: A file cannot be written.
    """
    paths = [Path(folder) / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                if private:
                    path.touch(mode=0o600)
                    path.chmod(0o600)  # it may have been there
                path.write_text(content, encoding="utf-8")
            else:
                content.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise EvaluationFileError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error
    return paths

"""Checks, before the work begins, that its results can be written."""

from pathlib import Path
from tempfile import TemporaryFile

from cosd_core import explain
from cosd_core.errors import CoSDError, quoted
from cosd_core.outputs import Generation


def check_file(path: Path | None) -> None:
    """Check that a file can be written; one that exists keeps its content.

    Raises:
        CoSDError: It cannot.
    """
    if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
        return  # a device or a pipe, which opening could block
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def check_folder(path: Path) -> None:
    """Create a folder if need be, and check that files can be written there.

    Raises:
        CoSDError: They cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    except OSError as error:
        raise _unwritable(path, error) from error


def write_page(path: Path, generation: Generation) -> None:
    """Write the HTML page of a generation to a file.

    Raises:
        CoSDError: The file cannot be written.
    """
    try:
        path.write_text(explain.to_html(generation), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> CoSDError:
    return CoSDError(f"cannot write {quoted(str(path))}: {quoted(error)}")

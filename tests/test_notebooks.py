"""Every notebook of the documentation runs, offline, and prints what is stored in it."""

import warnings
from pathlib import Path

import nbformat
import pytest

from scripts.notebooks import FOLDER, executed, printed

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
async def test_a_run_prints_what_is_stored(path: Path) -> None:
    stored = printed(nbformat.read(path, as_version=4))
    assert any(stored)
    with warnings.catch_warnings(action="ignore"):  # of the kernel's client, whose sockets close late
        assert printed(await executed(path)) == stored


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_holds_no_path_of_a_machine_and_no_error(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "site-packages" not in text
    assert '"output_type": "error"' not in text

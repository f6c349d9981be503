"""Every notebook of the documentation runs, offline, and prints what is stored in it."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.grids import exhaustive

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all notebooks, as a new run leaves them."""
    folder = tmp_path_factory.mktemp("notebooks")
    command = [sys.executable, str(ROOT / "scripts/notebooks.py"), "--out", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    return folder


def printed(path: Path) -> list[str]:
    """What every code cell prints."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        "".join(each.text for each in cell.outputs if each.output_type == "stream")
        for cell in cells
        if cell.cell_type == "code"
    ]


@exhaustive
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_run_prints_what_is_stored(path: Path, executed: Path) -> None:
    assert any(printed(path))
    assert printed(executed / path.name) == printed(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_holds_no_path_of_a_machine_and_no_error(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "site-packages" not in text
    assert '"output_type": "error"' not in text

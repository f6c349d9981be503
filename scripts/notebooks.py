"""Runs the notebooks of the documentation and stores their outputs: ``python scripts/notebooks.py``.

They are stored in the notebooks themselves, or with ``--out FOLDER`` elsewhere. `tests/test_notebooks.py`
compares what a run prints with what is stored.
"""

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs/notebooks"


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a new run, in its own folder.

    What is written to stderr is left out: warnings depend on the machine.

    Raises:
        CellExecutionError: A cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=120, resources=resources, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    """Run all notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder for the executed notebooks")
    options = parser.parse_args()
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path), options.out / path.name)
        print(f"{path.name}: executed")


if __name__ == "__main__":
    main()

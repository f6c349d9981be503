"""Runs the notebooks of the documentation and stores their outputs: ``python scripts/notebooks.py``.

`tests/test_notebooks.py` runs them in the same way and compares what they print with what is stored.
"""

import asyncio
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs/notebooks"


async def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a new run, in its own folder.

    What is written to stderr is left out: warnings depend on the machine.

    Raises:
        CellExecutionError: A cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    await NotebookClient(notebook, timeout=120, resources=resources, record_timing=False).async_execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What every code cell prints, joined."""
    return [
        "".join(each.text for each in cell.outputs if each.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(asyncio.run(executed(path)), path)
        print(f"{path.name}: executed")

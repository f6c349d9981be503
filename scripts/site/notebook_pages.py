"""A hook of mkdocs: every notebook in `docs/` becomes a page with its code and its stored outputs."""

from pathlib import Path, PurePosixPath

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def as_markdown(path: Path) -> str:
    """A notebook as markdown: cells in their order, outputs below their cell."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"````python\n{cell.source}\n````")
        parts.extend(_output(each) for each in cell.outputs)
    parts.append(f"[Download the notebook]({path.name})")
    return "\n\n".join(parts) + "\n"


def _output(output: nbformat.NotebookNode) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        # Without blank lines, so that markdown takes it as one block of HTML.
        return "<div>" + "\n".join(line for line in data["text/html"].splitlines() if line.strip()) + "</div>"
    text = output.text if output.output_type == "stream" else data.get("text/plain", "")
    return f"````{{.text .output}}\n{text.rstrip()}\n````"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page beside every notebook, which stays a file to download."""
    for path in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        page = PurePosixPath(path.relative_to(config.docs_dir)).with_suffix(".md")
        files.append(File.generated(config, page.as_posix(), content=as_markdown(path)))
    return files

"""A hook of mkdocs: links from the pages to other files of the repository work in the site, too.

In the repository the pages link to examples and sources beside `docs/`. In the site every file linked in this
way becomes a page of its own: markdown as it is, code as a code block. The README is the home page.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALWAYS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
LANGUAGES = {".py": "python", ".sh": "sh", ".json": "json"}


def page_of(path: Path) -> str:
    """Where the site has a file or folder of the repository, as a path below `docs/`."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = f"repository/{path.relative_to(ROOT).as_posix()}"
    if path.is_dir():
        return f"{name}/index.md"
    return name if path.suffix == ".md" else f"{name}.md"


def target(link: str, source: Path) -> Path | None:
    """The file of the repository to which a markdown file links; None: there is no such file."""
    path = Path(os.path.normpath(source.parent / link))
    return path if path.is_relative_to(ROOT) and path.exists() else None


def in_site(text: str, source: Path) -> str:
    """The text of a markdown file of the repository, with links that hold between the site's pages."""
    start = posixpath.dirname(page_of(source))

    def replaced(match: re.Match[str]) -> str:
        path = target(match[1], source)
        return match[1] if path is None else posixpath.relpath(page_of(path), start or ".")

    return LINK.sub(replaced, text)


def as_markdown(path: Path) -> str:
    """A file or folder of the repository, outside `docs/`, as a markdown page."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        inside = sorted(each.name for each in path.iterdir() if each.suffix in LANGUAGES)
        return f"# {name}\n\n" + "".join(f"* [{each}]({name}/{each})\n" for each in inside)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {path.name}\n\n`{name}` of the repository.\n\n````{language}\n{text}````\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside `docs/` that the pages link to, directly or through each other."""
    waiting = [*DOCS.rglob("*.md"), *(ROOT / name for name in ALWAYS)]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.is_relative_to(DOCS):
            text = path.read_text(encoding="utf-8") if path.suffix == ".md" else ""
        else:
            text = as_markdown(path)
            files.append(File.generated(config, page_of(path), content=in_site(text, path)))
        if path.is_dir() or path.suffix == ".md":
            found = (target(match[1], path) for match in LINK.finditer(text))
            waiting.extend(each for each in found if each is not None)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Redirect the links of the pages in `docs/`."""
    source = DOCS / page.file.src_uri
    return in_site(markdown, source) if source.is_file() else markdown

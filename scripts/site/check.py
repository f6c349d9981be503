"""Checks the built site: ``python scripts/site/check.py build/site``.

No page loads anything from another site, and every link to a page, file or anchor of the site has a target.
Links that a reader follows to other sites are not tried.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
"""The attributes whose target a browser loads with the page."""

NOT_LOADED = {"canonical", "next", "prev", "alternate"}
"""The kinds of ``<link>`` that a browser does not load."""

STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


class PageReader(HTMLParser):
    """Collects what a page loads, where it links to, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read one tag."""
        found = {name: value or "" for name, value in attrs}
        self.anchors.update(found[name] for name in ("id", "name") if name in found)
        self._in_style = tag == "style"
        loaded = tag != "link" or found.get("rel") not in NOT_LOADED
        for name, value in found.items():
            if (tag, name) in LOADING and loaded:
                self.loads.append(value)
            elif name in ("href", "src"):
                self.links.append(value)
            elif name == "style":
                self.loads.extend(STYLE.findall(value))

    def handle_data(self, data: str) -> None:
        """Read the text of a ``<style>``."""
        if self._in_style:
            self.loads.extend(STYLE.findall(data))


def faults(site: Path) -> list[str]:
    """One line for each thing that is loaded from elsewhere, and for each link without a target."""
    pages: dict[Path, PageReader] = {}
    for path in site.rglob("*.html"):
        pages[path] = PageReader()
        pages[path].feed(path.read_text(encoding="utf-8"))
    found = []
    for path, page in pages.items():
        for link in page.loads + (page.links if path.name != "404.html" else []):
            fault = _fault(link, path, pages, is_loaded=link in page.loads)
            if fault:
                found.append(f"{path.relative_to(site)}: {link}: {fault}")
    for path in site.rglob("*.css"):
        loads = STYLE.findall(path.read_text(encoding="utf-8"))
        found.extend(f"{path.relative_to(site)}: {link}: is on another site" for link in loads)
    return found


def _fault(link: str, source: Path, pages: dict[Path, PageReader], *, is_loaded: bool) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return "is on another site" if is_loaded and parts.scheme != "data" else None
    path = (source.parent / unquote(parts.path)).resolve() if parts.path else source
    path = path / "index.html" if path.is_dir() else path
    if not path.is_file():
        return None if source.name == "404.html" else "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and path in pages and anchor not in pages[path].anchors:
        return "there is no such anchor"
    return None


def main(site: str) -> None:
    """Print all faults; exit with 1 if there are any."""
    found = faults(Path(site).resolve())
    print(*found, f"{len(found)} faults in the site's links", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1])

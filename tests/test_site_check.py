"""The check of the documentation site finds what is wrong with a page, and nothing else."""

from pathlib import Path

import pytest

from scripts.site.check import faults

WHOLE = (
    '<a href="other.html#there">x</a><a href="https://example.org">x</a><img src="data:image/png;base64,AA=">'
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "other.html").write_text('<p id="there">', encoding="utf-8")
    (tmp_path / "style.css").write_text("p { background: url(data:image/png;base64,AA=) }", encoding="utf-8")
    (tmp_path / "page.html").write_text(WHOLE, encoding="utf-8")
    return tmp_path


def test_a_whole_site_has_no_faults(site: Path) -> None:
    assert faults(site) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="missing.html">', "there is no such file"),
        ('<a href="other.html#nowhere">', "there is no such anchor"),
        ('<a href="#nowhere">', "there is no such anchor"),
        ('<img src="missing.png">', "there is no such file"),
        ('<script src="https://cdn.example/x.js"></script>', "is on another site"),
        ('<script src="//cdn.example/x.js"></script>', "is on another site"),
        ('<link rel="stylesheet" href="https://fonts.example/css">', "is on another site"),
        ("<style>@import 'https://fonts.example/css';</style>", "is on another site"),
        ('<p style="background: url(https://example.org/x.png)">', "is on another site"),
    ],
)
def test_a_fault_is_found(site: Path, html: str, fault: str) -> None:
    (site / "page.html").write_text(html, encoding="utf-8")
    (found,) = faults(site)
    assert found.startswith("page.html: ")
    assert found.endswith(fault)


def test_a_style_sheet_loads_nothing_from_elsewhere(site: Path) -> None:
    (site / "style.css").write_text("@font-face { src: url(https://fonts.example/f.woff) }", encoding="utf-8")
    assert faults(site) == ["style.css: https://fonts.example/f.woff: is on another site"]

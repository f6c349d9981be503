"""Texts from outside have no effect in a terminal, an HTML page, markdown, a CSV cell or JSON."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from cosd_core.cli.console import HarmlessConsole
from cosd_core.evaluation import Report, save_plots
from cosd_core.evaluation.intervals import Interval
from cosd_core.evaluation.report import Line
from cosd_core.utils.escaping import csv_value, harmless, html_text, json_text, markdown_text

DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]")
TEXTS = st.text(st.sampled_from([*"ab \n\t\r=+-@|`<>&[]*\\#'\"", "\x1b", "\x07", "\x9b", "\u202e", "\u2067"]))
FORGED = "x\n# Forged heading\n| a | b |\n<script>alert(1)</script> ![i](http://x) `c`"


def line(**changes: object) -> Line:
    interval = Interval(0.5, 0.25, 0.75)
    values = {
        "method": "rule", "task": "sums", "group": "all", "items": 4, "right": 2, "accuracy": interval,
        "gain": Interval(-0.5, -0.75, -0.25), "best_single": "draft", "tokens_per_second": 10.0,
        "tokens": 5.0, "rounds": 2.0, "acceptance": 0.5, "draft_passes": 1.0, "assistant_passes": 0.25,
    }  # fmt: skip
    return Line(**{**values, **changes})  # type: ignore[arg-type]


@given(TEXTS)
def test_terminal_text_holds_no_control_character(text: str) -> None:
    assert not DANGEROUS.search(harmless(text))
    assert harmless(harmless(text)) == harmless(text)


@given(TEXTS)
def test_a_console_escapes_strings_and_cells_and_reads_no_markup(text: str) -> None:
    console = HarmlessConsole(file=io.StringIO(), width=500, highlight=False, markup=False, emoji=False)
    table = Table(text, title=text)
    table.add_row(text)
    for shown in (text, table):
        console.print(shown)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert not DANGEROUS.search(written)


def test_a_console_shows_brackets_and_keeps_its_own_colours() -> None:
    console = HarmlessConsole(file=io.StringIO(), force_terminal=True, markup=False, highlight=False)
    console.print("[red]x[/] \x1b[2J", style="bold")
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]x[/] ␛[2J" in written
    assert written.startswith("\x1b[1m")


@given(TEXTS)
def test_json_text_is_the_same_value_without_control_characters(text: str) -> None:
    written = json_text({"text": text})
    assert json.loads(written) == {"text": text}
    assert not DANGEROUS.search(written)


@given(TEXTS)
def test_html_text_opens_no_element(text: str) -> None:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: found.append(tag)  # type: ignore[method-assign]
    parser.feed(f'<p title="{html_text(text)}">{html_text(text)}</p>')
    parser.close()
    assert found == ["p"]


@given(TEXTS)
def test_markdown_text_is_one_line_without_markup(text: str) -> None:
    written = markdown_text(text)
    assert "\n" not in written
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`\[\]*]", written)
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", written)


@given(TEXTS)
def test_a_csv_cell_is_never_a_formula(text: str) -> None:
    assert not str(csv_value(text)).lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@pytest.mark.parametrize("number", [-1, -0.25, 3, 1e-9])
def test_numbers_stay_numbers_in_csv(number: float) -> None:
    assert csv_value(number) is number


def test_names_cannot_forge_a_report_in_markdown() -> None:
    report = Report((line(method=FORGED, task=FORGED),), {"models": FORGED})
    text = report.to_markdown()
    headings = [each for each in text.splitlines() if each.startswith("#")]
    assert not any("Forged" in each for each in headings)
    assert "<script" not in text
    assert "![i](" not in text
    assert {each.count("|") - each.count("\\|") for each in text.splitlines() if each.startswith("|")} == {
        3,
        8,
    }


def test_names_are_no_formulas_in_csv_and_figures_stay_figures() -> None:
    report = Report((line(method="=cmd|' /C calc'!A0", group="@x", task="-1+1"),), {})
    [row] = csv.DictReader(io.StringIO(report.to_csv()))
    assert row["method"] == "'=cmd|' /C calc'!A0"
    assert (row["group"], row["task"]) == ("'@x", "'-1+1")
    assert (float(row["gain"]), float(row["gain_low"]), float(row["accuracy"])) == (-0.5, -0.75, 0.5)


def test_names_with_dollar_signs_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = Report((line(method=r"$\frac$ a$b", group=r"$\x$"),), {})
    assert all(path.stat().st_size for path in save_plots(report, tmp_path))

"""The report of ``cosd evaluate`` as tables that fit a terminal."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from cosd_core.evaluation import Report
from cosd_core.evaluation.report import percent

_METHOD_WIDTH, _CELL_WIDTH = 26, 12
"""Characters reserved for a method's name, and for the accuracy in one group with its borders."""


def report_tables(report: Report, width: int) -> Iterator[Table]:
    """Accuracy over all questions, accuracy by group, and cost.

    Args:
        report: The evaluation.
        width: The characters of a line; groups that do not fit go into further tables.
    """
    total = report.columns[-1]
    headings = (report.titles[-1], "over the better model")
    table = _table("Accuracy in percent, with intervals of 95 percent", headings)
    for method in report.methods:
        line = report.line(method, *total)
        table.add_row(method, percent(line.accuracy), percent(line.gain, signed=True) if line.gain else "")
    yield table
    groups = list(zip(report.titles, report.columns, strict=True))[:-1]
    count = max(1, (width - _METHOD_WIDTH) // _CELL_WIDTH)
    for part in (groups[start : start + count] for start in range(0, len(groups), count)):
        table = _table("Accuracy in percent, by group", [title for title, _ in part])
        for method in report.methods:
            shares = [report.line(method, *column).accuracy.value for _, column in part]
            table.add_row(method, *(f"{100 * share:.1f}" for share in shares))
        yield table
    table = _table("Cost", ("tokens/s", "kept", "assistant passes per token"))
    for method in report.methods:
        line = report.line(method, *total)
        cost = (f"{line.tokens_per_second:.0f}", f"{line.acceptance:.2f}", f"{line.assistant_passes:.2f}")
        table.add_row(method, *cost)
    yield table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("method", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table

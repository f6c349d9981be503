"""The report of ``cosd evaluate`` as tables that fit a terminal."""

from collections.abc import Iterator, Mapping, Sequence

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
    totals = {method: report.line(method, *report.columns[-1]) for method in report.methods}
    yield _table(
        "Accuracy in percent, with intervals of 95 percent",
        (report.titles[-1], "over the better model"),
        {
            method: (percent(line.accuracy), percent(line.gain, signed=True) if line.gain else "")
            for method, line in totals.items()
        },
    )
    costs = (("tokens_per_second", ".0f"), ("acceptance", ".2f"), ("assistant_passes", ".2f"))
    groups = list(zip(report.titles, report.columns, strict=True))[:-1]
    count = max(1, (width - _METHOD_WIDTH) // _CELL_WIDTH)
    for part in (groups[start : start + count] for start in range(0, len(groups), count)):
        lines = {method: [report.line(method, *column) for _, column in part] for method in report.methods}
        yield _table(
            "Accuracy in percent, by group",
            [title for title, _ in part],
            {method: [f"{100 * line.accuracy.value:.1f}" for line in own] for method, own in lines.items()},
            fold=True,
        )
    yield _table(
        "Cost",
        ("tokens/s", "kept", "assistant passes per token"),
        {
            method: [format(getattr(line, field), form) for field, form in costs]
            for method, line in totals.items()
        },
    )


def _table(
    title: str, headings: Sequence[str], rows: Mapping[str, Sequence[str]], *, fold: bool = False
) -> Table:
    """A table with a row per method; where it is too wide, methods are folded, and headings with ``fold``."""
    table = Table(title=title, title_justify="left")
    table.add_column("method", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold", no_wrap=not fold)
    for method, figures in rows.items():
        table.add_row(method, *figures)
    return table

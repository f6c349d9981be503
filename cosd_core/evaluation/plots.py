"""A report as pictures; matplotlib is needed for nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosd_core.errors import EvaluationFileError, MissingExtraError, quoted
from cosd_core.evaluation.report import Line, Report


def check_plotting() -> None:
    """Refuse to plot before any work is done, where that cannot be.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('plots need matplotlib: pip install "cosd[plots]"') from error


def save_plots(report: Report, folder: str | Path) -> list[Path]:
    """Draw accuracy with its intervals, and accuracy over speed, as ``accuracy.png`` and ``cost.png``.

    Raises:
        MissingExtraError: matplotlib is missing.
        EvaluationFileError: They cannot be written.
    """
    check_plotting()
    paths = []
    for name, draw in (("accuracy.png", _draw_accuracy), ("cost.png", _draw_cost)):
        path = Path(folder) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(report).savefig(path, dpi=150)
        except OSError as error:
            raise EvaluationFileError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error
        paths.append(path)
    return paths


def _figure(width: float, height: float) -> Any:
    # Not pyplot: it keeps every figure, and a global state that is the user's.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_accuracy(report: Report) -> Any:
    """One bar per method, side by side for every group."""
    columns, methods = report.columns, report.methods
    figure = _figure(max(6.0, 0.35 * len(columns) * len(methods) + 2), 4.5)
    axes = figure.add_subplot()
    width = 0.8 / len(methods)
    for at, method in enumerate(methods):
        lines = [report.line(method, *column) for column in columns]
        places = [place - 0.4 + width * (at + 0.5) for place in range(len(columns))]
        shares = [100 * line.accuracy.value for line in lines]
        axes.bar(places, shares, width, yerr=_reach(lines), label=method, error_kw={"elinewidth": 0.8})
    axes.set_xticks(range(len(columns)), report.titles)
    axes.set_ylabel("accuracy, percent (Wilson, 95 percent)")
    axes.set_ylim(0, 100)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _draw_cost(report: Report) -> Any:
    """Accuracy over tokens per second, all questions together."""
    figure = _figure(6.0, 4.5)
    axes = figure.add_subplot()
    for method in report.methods:
        line = report.line(method, *report.columns[-1])
        axes.errorbar(
            line.tokens_per_second, 100 * line.accuracy.value, yerr=_reach([line]), fmt="o", label=method
        )
    axes.set_xlabel("tokens per second, in this run")
    axes.set_ylabel("accuracy, percent (Wilson, 95 percent)")
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _reach(lines: Sequence[Line]) -> list[list[float]]:
    """How far the intervals go down and up."""
    return [
        [100 * (line.accuracy.value - line.accuracy.low) for line in lines],
        [100 * (line.accuracy.high - line.accuracy.value) for line in lines],
    ]

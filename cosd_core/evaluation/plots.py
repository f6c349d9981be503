"""A report as pictures, drawn with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosd_core.evaluation.benchmark import Measurement
from cosd_core.evaluation.files import save_files
from cosd_core.evaluation.report import Line, Report
from cosd_core.utils import require_matplotlib
from cosd_core.utils.escaping import plot_text

_ACCURACY = "accuracy, percent (Wilson, 95 percent)"


def save_plots(report: Report, folder: str | Path) -> list[Path]:
    """Draw accuracy with its intervals, and accuracy over speed, as ``accuracy.png`` and ``cost.png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        EvaluationFileError: They cannot be written.
    """
    return save_files(folder, {"accuracy.png": _draw_accuracy(report), "cost.png": _draw_cost(report)})


def save_benchmark_plot(rows: Sequence[Measurement], path: str | Path) -> None:
    """Draw the time to the first token and the time per token, by method, or over the length of the prompts.

    Raises:
        MissingExtraError: matplotlib is not installed.
        EvaluationFileError: The file cannot be written.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    figure = new_figure(11.0, 5.5)
    axes = figure.subplots(1, 2)
    times = {
        "to the first token": [1000 * row.first_token for row in rows],
        "per token": [1000 / row.tokens_per_second for row in rows],
    }
    for plot, (what, milliseconds) in zip(axes, times.items(), strict=True):
        if len(rows) == len(methods):
            plot.barh(range(len(rows)), milliseconds)
            plot.set(xlabel=f"ms {what}", yticks=range(len(rows)))
            plot.set_yticklabels(list(map(plot_text, methods)) if plot is axes[0] else [])
            plot.invert_yaxis()
            continue
        for number, method in enumerate(methods):
            own = [
                (row.prompt_tokens, each)
                for row, each in zip(rows, milliseconds, strict=True)
                if row.method == method
            ]
            marker = "os^"[number // 10 % 3]  # there are ten colours
            plot.plot(*zip(*own, strict=True), f"{marker}-", label=plot_text(method), color=f"C{number % 10}")
        plot.set(xlabel="tokens of the prompt", ylabel=f"ms {what}", xscale="log", yscale="log")
    if len(rows) > len(methods):
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")
    path = Path(path)
    save_files(path.parent, {path.name: figure})


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    # Not pyplot: it keeps every figure, and a global state that belongs to the user.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_accuracy(report: Report) -> Any:
    """One bar per method, side by side for every group."""
    columns, methods = report.columns, report.methods
    figure = new_figure(max(6.0, 0.35 * len(columns) * len(methods) + 2), 4.5)
    axes = figure.add_subplot()
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        lines = [report.line(method, *column) for column in columns]
        places = [column - 0.4 + width * (index + 0.5) for column in range(len(columns))]
        shares = [100 * line.accuracy.value for line in lines]
        axes.bar(
            places, shares, width, yerr=_errors(lines), label=plot_text(method), error_kw={"elinewidth": 0.8}
        )
    axes.set_xticks(range(len(columns)), list(map(plot_text, report.titles)))
    axes.set(ylabel=_ACCURACY, ylim=(0, 100))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _draw_cost(report: Report) -> Any:
    """Accuracy over tokens per second, all questions together."""
    figure = new_figure(6.0, 4.5)
    axes = figure.add_subplot()
    for method in report.methods:
        line = report.line(method, *report.columns[-1])
        place = line.tokens_per_second, 100 * line.accuracy.value
        axes.errorbar(*place, yerr=_errors([line]), fmt="o", label=plot_text(method))
    axes.set(xlabel="tokens per second, in this run", ylabel=_ACCURACY)
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _errors(lines: Sequence[Line]) -> list[list[float]]:
    """The distances from the values to the lower and to the upper limits."""
    return [
        [100 * (line.accuracy.value - line.accuracy.low) for line in lines],
        [100 * (line.accuracy.high - line.accuracy.value) for line in lines],
    ]

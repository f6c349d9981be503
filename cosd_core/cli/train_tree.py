"""``cosd train-tree``: fits a decision tree on true texts."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.table import Table

from cosd_core.cli.console import out
from cosd_core.cli.flags import with_settings
from cosd_core.cli.progress import progress
from cosd_core.cli.shared import make_settings
from cosd_core.cli.targets import check_file, check_folder
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.frontend.settings import METHOD_SETTINGS
from cosd_core.options import GenerationOptions
from cosd_core.training.calibration import Calibration
from cosd_core.training.teacher_forcing import observe
from cosd_core.verifiers import TreeVerifier
from cosd_core.verifiers.observations import Observations


@with_settings(*GenerationOptions.model_fields, *METHOD_SETTINGS)
def run_train_tree(
    data: Annotated[
        Path,
        typer.Option(help='JSONL, a "prompt" and a "completion" per line.', show_default=False),
    ],
    to: Annotated[
        list[Path],
        typer.Option(
            "--out",
            help="The tree's file, JSON. Several: a tree per assistant, in their order.",
            show_default=False,
        ),
    ],
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Fit every model's temperature first, and the tree on calibrated confidences."
        ),
    ] = False,
    agreeing: Annotated[
        bool,
        typer.Option(help="Include positions where all models predict the same token, as the paper does."),
    ] = True,
    end_token: Annotated[bool, typer.Option(help="Texts end after their completion.")] = True,
    tokens_per_pass: Annotated[
        int, typer.Option(min=1, help="Positions read at once; bounds memory.")
    ] = 2048,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A folder for finished batches, from which an interrupted run continues."),
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Fit a decision tree that decides where the assistant's token replaces the draft's.

        cosd train-tree --draft org/a --assistant org/b --data texts.jsonl --out tree.json

    All models read every prompt and its true completion. Use the tree with --verifier tree --tree-path.
    Several assistants share one tree, unless there is an --out for each.
    """
    for path in to:  # checked before the work, not after it
        if not path.absolute().parent.is_dir():
            raise InvalidOptionError(f"--out {quoted(str(path))} lies in a folder that does not exist")
        check_file(path)
    if checkpoint is not None:
        check_folder(checkpoint)
    chosen = make_settings(settings)
    assistants = len(settings["assistant_model"])
    if len(to) not in (1, assistants):
        raise InvalidOptionError(
            f"{len(to)} times --out for {assistants} assistants: give one for each, or one for all"
        )
    with progress("loading the models") as report:
        models = chosen.decoder().models
        observations = observe(
            models,
            data,
            end_token=end_token,
            tokens_per_pass=tokens_per_pass,
            checkpoint=checkpoint,
            progress=lambda done, total: report("reading", done, total),
        )
    temperatures: list[float] = []
    for path, each in zip(to, [observations] if len(to) == 1 else observations.pairs(), strict=True):
        calibration = Calibration.fit(each) if calibrate else None
        fitted = calibration.temperatures if calibration else None
        with progress("growing the tree") as report:
            report("growing the tree")
            tree = TreeVerifier.fit(each, calibration=fitted, agreeing=agreeing)
        tree.save(path)
        _report_tree(tree, each, calibration)
        temperatures += (fitted or ())[bool(temperatures) :]  # the draft's temperature is in every fit
    flags = "".join(f" --tree-path {quote(str(path))}" for path in to)
    flags += "".join(f" --calibration {temperature:g}" for temperature in temperatures)
    written = ", ".join(map(str, to))
    out.print(f"\nwrote {written}; use it with --verifier tree{flags}", soft_wrap=True)


def _report_tree(tree: TreeVerifier, observations: Observations, calibration: Calibration | None) -> None:
    about, truncated = tree.about, observations.truncated
    counts, chosen = about["positions"], about["chosen"]
    table = Table.grid(padding=(0, 2))
    for model, name in enumerate(observations.names):
        table.add_row(f"{name} is right at", f"{observations.of_models(model).right.mean():.1%}")
    table.add_row("examples", f"{about['examples']:,}" + (f", {truncated:,} cut to fit" if truncated else ""))
    table.add_row("positions", f"{len(observations):,}")
    for name, meaning in (
        ("keep", "keep: the draft is right"),
        ("replace", "replace: only the assistant is right"),
        ("neither", "neither is right, dropped"),
        ("agreeing", "included though all agree"),
    ):
        table.add_row(meaning, f"{counts[name]:,}")
    if chosen:
        table.add_row("depth, positions per leaf", f"at most {chosen['depth']}, at least {chosen['leaf']}")
        table.add_row(
            "cross-entropy where they differ",
            f"{chosen['cross_entropy']:.4f} (standard error {chosen['standard_error']:.4f})",
        )
        table.add_row("decided right where they differ", f"{chosen['accuracy']:.1%}")
    out.print(table)
    if calibration:
        out.print(f"\n{calibration.report()}", soft_wrap=True)
    out.print(f"\n{tree.explain()}", soft_wrap=True)

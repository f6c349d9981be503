"""Help, flags, exit codes, output paths and progress of the command line."""

import json
import re
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from typer.testing import CliRunner

from cosd_core.cli import progress as progress_file
from cosd_core.cli.app import _SUMMARIES, _load_command, app
from cosd_core.cli.evaluation_tables import report_tables
from cosd_core.cli.progress import progress
from cosd_core.evaluation import Report
from cosd_core.verifiers import TreeVerifier
from cosd_core.verifiers.factory import _BY_NAME
from tests.test_cli import IRON, cosd, models, pair  # noqa: F401 - fixtures
from tests.test_escaping import line

OWN_COMMANDS = sorted(set(_SUMMARIES) - {"lm-eval"})


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_help_shows_every_flag_whole_at_80_columns(name: str) -> None:
    text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}, prog_name="cosd").output
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for option in _load_command(name).params:
        for flag in (*option.opts, *option.secondary_opts):
            if flag.startswith("--"):
                assert re.search(rf"^  (.* )?{flag}\b(?!-)", text, re.MULTILINE), flag


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_flags_of_yes_or_no_take_no_value(name: str) -> None:
    text = CliRunner().invoke(app, [name, "--help"], prog_name="cosd").output
    assert "bool" not in text
    for option in _load_command(name).params:
        if option.param_type_name == "option" and getattr(option, "is_flag", False):
            assert not re.search(rf"{option.opts[0]} <", text), option.opts


def test_the_list_of_commands_is_not_cut() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "..." not in text.partition("Commands:")[2]
    shown = " ".join(text.split())
    assert all(" ".join(summary.split()) in shown for summary in _SUMMARIES.values())


def test_a_wrong_verifier_lists_all_of_them_and_the_flag_of_trees(cosd, pair) -> None:  # noqa: F811
    output = cosd("generate", *models(pair), "--verifier", "rul", "x")
    assert output.code == 2
    assert all(name in output.err for name in (*_BY_NAME, TreeVerifier.name, "--tree-path"))
    assert "--tree-path" in cosd("generate", *models(pair), "--verifier", "tree", "x").err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--schedule", "fast"], ("adaptive", "fixed")),
        (["--dtype", "float99"], ("auto", "float16")),
        (["--device", "gpu"], ("cpu", "cuda")),
    ],
)
def test_wrong_values_list_right_ones(cosd, pair, flags: list[str], words: tuple[str, ...]) -> None:  # noqa: F811
    output = cosd("generate", *models(pair), *flags, "x")
    assert output.code in (1, 2)
    assert all(word in output.err for word in words)


def test_json_is_a_flag_and_the_word_after_it_the_prompt(cosd, pair) -> None:  # noqa: F811
    assert json.loads(cosd("generate", *models(pair), "--json", "true").out)["prompt"] == "true"


def test_a_dash_is_standard_input(cosd, pair) -> None:  # noqa: F811
    assert cosd("generate", *models(pair), "-", stdin=IRON + "\n").out.strip() == "iron is 26, 26+7=33"


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    for name in ("Settings.decoder", "Settings.sources"):
        monkeypatch.setattr(f"cosd_core.frontend.settings.{name}", refuse)


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--html", "FILE/page.html", "x"],
        ["train-tree", "--data", "x.jsonl", "--out", "FOLDER"],
        ["train-tree", "--data", "x.jsonl", "--out", "new.json", "--checkpoint", "FILE/done"],
        ["tune", "--task", "demo", "--out", "FILE/tuned"],
        ["evaluate", "--task", "demo", "--out", "FILE"],
    ],
)
def test_paths_that_cannot_be_written_are_refused_before_models_are_loaded(
    cosd, no_models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("kept")
    folder.mkdir()
    given = [each.replace("FILE", str(file)).replace("FOLDER", str(folder)) for each in arguments]
    output = cosd(given[0], "--draft", "a", "--assistant", "b", *given[1:])
    assert output.code in (1, 2)
    assert "cannot write" in output.err
    assert file.read_text() == "kept"
    assert not (tmp_path / "new.json").exists()


def test_unknown_methods_and_tasks_are_refused_before_models_are_loaded(cosd, no_models) -> None:  # noqa: F811
    flags = ("evaluate", "--draft", "a", "--assistant", "b")
    assert "speculative" in cosd(*flags, "--task", "demo", "--method", "vote").err
    assert "nowhere.jsonl" in cosd(*flags, "--task", "nowhere.jsonl").err


def test_long_work_without_a_terminal_prints_lines(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_file, "SECONDS", 0.05)
    with progress("loading the models") as report:
        sleep(0.3)
        report("reading\x1b[2J", 1200, 3400)
        sleep(0.3)
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"^loading the models, \d+ s$", err, re.MULTILINE)
    assert re.search(r"^reading␛\[2J: 1,200 of 3,400, \d+ s$", err, re.MULTILINE)


def test_short_work_prints_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("loading the models"):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("width", [60, 80])
def test_the_tables_of_an_evaluation_show_every_figure_in_narrow_terminals(width: int) -> None:
    from cosd_core.cli.console import HarmlessConsole

    groups = ["capitals", "elements", "letters", "arithmetic", "mixed questions", "all"]
    methods = ["draft", "assistant", "rule (0.5, 0.5), roles swapped"]
    lines = [line(method=method, group=group) for method in methods for group in groups]
    console = HarmlessConsole(width=width, record=True)
    with console.capture() as capture:
        for table in report_tables(Report(tuple(lines), {}), width):
            console.print(table)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("50.0 (25.0 to 75.0)") == text.count("-50.0 (-75.0 to -25.0)") == len(methods)
    assert all(group in text for group in groups if " " not in group)

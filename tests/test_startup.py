"""Importing the packages, and the help of the command line, import only what they need."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

import cosd_core
from cosd_core.cli.app import _SUMMARIES

OPTIONAL = {
    "fastapi", "jsonschema", "llama_cpp", "llguidance", "lm_eval", "matplotlib", "pandas", "peft",
    "prometheus_client", "ray", "sklearn", "uvicorn",
}  # fmt: skip
HEAVY = {"torch", "transformers", *OPTIONAL}


def run(code: str) -> str:
    """The output of code in a new process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def imported_by(code: str) -> set[str]:
    """The top-level modules that a new process has imported after running code."""
    modules = run(f"import sys\n{code}\nprint('modules:', *sys.modules)").rpartition("modules:")[2]
    return {name.partition(".")[0] for name in modules.split()}


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        ("import cosd_core", HEAVY),
        (
            "import langchain_cosd, llama_index_cosd\n"
            "from cosd_core import CoSDDecoder, Settings, TreeVerifier",
            OPTIONAL,
        ),
    ],
)
def test_imports_load_no_package_that_they_do_not_need(code: str, unneeded: set[str]) -> None:
    assert not imported_by(code) & unneeded


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_and_version_need_no_torch(arguments: list[str]) -> None:
    code = (
        f"sys.argv = ['cosd', *{arguments}]\n"
        "from cosd_core.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not imported_by(code) & HEAVY


def test_the_list_of_commands_shows_the_first_line_of_their_docstrings() -> None:
    for name, summary in _SUMMARIES.items():
        file = name.replace("-", "_")
        command = getattr(import_module(f"cosd_core.cli.{file}"), f"run_{file}")
        assert (inspect.getdoc(command) or "").partition("\n")[0] == summary


def test_every_public_name_can_be_imported() -> None:
    assert {"CoSDDecoder", "Generation", "__version__", "explain"} <= set(cosd_core.__all__)
    assert set(cosd_core.__all__) <= set(dir(cosd_core))
    assert [name for name in cosd_core.__all__ if not hasattr(cosd_core, name)] == []


def test_notebooks_show_a_generation_though_explain_was_not_imported() -> None:
    code = "from cosd_core import CoSDDecoder, Generation\nprint(hasattr(Generation, '_repr_html_'))"
    assert run(code).strip() == "True"

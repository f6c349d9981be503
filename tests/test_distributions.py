"""The distributions under the ecosystems' names have cosd's version and require cosd of that version."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cosd_core import __version__

ROOT = Path(__file__).parent.parent
EXTRAS = {"langchain-cosd": "langchain", "llama-index-llms-cosd": "llama-index"}


def test_every_distribution_is_known() -> None:
    assert {path.name for path in (ROOT / "packaging").iterdir()} == set(EXTRAS)


def project_of(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    return project


@pytest.mark.parametrize("name", EXTRAS)
def test_a_thin_distribution_requires_cosd_of_its_own_version(name: str) -> None:
    project = project_of(ROOT / "packaging" / name)
    assert project["name"] == name
    assert project["version"] == __version__
    assert project["dependencies"] == [f"cosd[{EXTRAS[name]}]=={__version__}"]


@pytest.mark.parametrize("name", EXTRAS)
def test_the_extra_exists(name: str) -> None:
    assert EXTRAS[name] in project_of(ROOT)["optional-dependencies"]

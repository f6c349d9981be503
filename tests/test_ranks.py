"""Packages of the core import only from lower ranks (docs/architecture.md), and no files in a circle."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "cosd_core"
PACKAGES = ("cosd_core", "langchain_cosd", "llama_index_cosd")
DOOR = "cosd_core/__init__"


def ranks() -> dict[str, int]:
    """Rank by package or loose module of the core."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)
    return {name.rstrip("/"): int(rank) for rank, names in rows for name in re.findall(r"`([\w/]+)`", names)}


def files() -> dict[str, Path]:
    """Every Python file of the packages by its path without the ending; stubs replace their modules."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py*")]
    known = {
        path.relative_to(ROOT).with_suffix("").as_posix(): path for path in paths if path.suffix == ".py"
    }
    stubs = {
        path.relative_to(ROOT).with_suffix("").as_posix(): path for path in paths if path.suffix == ".pyi"
    }
    return known | stubs


def file_of(module: str) -> str | None:
    """The file of a module of ours; None for any other module, and for names within a module."""
    path = ROOT.joinpath(*module.split("."))
    if module.split(".")[0] not in PACKAGES:
        return None
    found = path / "__init__" if path.is_dir() else path
    return found.relative_to(ROOT).as_posix() if found.with_suffix(".py").exists() else None


def imports(name: str, path: Path) -> set[str]:
    """The files of ours that a file imports, inside functions and for type checking too."""
    package = name.rsplit("/", 1)[0].split("/")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(filter(None, (file_of(alias.name) for alias in node.names)))
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.update(filter(None, [file_of(f"{base}.{alias.name}") or file_of(base)]))
    return found - {name}


def member(name: str) -> str:
    """The package or loose module of the core that a file is part of."""
    return name.split("/")[1]


GRAPH = {name: imports(name, path) for name, path in files().items()}
CORE_FILES = [name for name in GRAPH if name.startswith("cosd_core/") and name != DOOR]


def test_the_table_names_every_package_and_no_other() -> None:
    assert set(ranks()) == {member(name) for name in CORE_FILES}


def test_the_table_is_short_and_goes_from_low_to_high() -> None:
    rows = re.findall(
        r"^\| \d+ \|", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) <= 15
    assert list(ranks().values()) == sorted(ranks().values())


def test_few_modules_lie_loose() -> None:
    assert len(list(CORE.glob("*.py"))) <= 10


@pytest.mark.parametrize("name", CORE_FILES)
def test_files_import_only_from_lower_ranks(name: str) -> None:
    rank = ranks()
    for other in GRAPH[name]:
        assert other.startswith("cosd_core/"), f"the core imports {other}"
        assert other != DOOR, "the door imports everything"
        lower = rank[member(other)] < rank[member(name)]
        loose = rank[member(other)] == rank[member(name)] == 0
        assert lower or loose or member(other) == member(name), f"{name} imports {other}"


def test_no_files_import_each_other_in_a_circle() -> None:
    open_, done = [], set()

    def visit(name: str) -> None:
        assert name not in open_, f"circle: {' -> '.join([*open_[open_.index(name) :], name])}"
        if name in done:
            return
        open_.append(name)
        for other in sorted(GRAPH.get(name, ())):
            visit(other)
        done.add(open_.pop())

    for name in GRAPH:
        visit(name)


def test_the_wrappers_do_not_import_each_other() -> None:
    for name in GRAPH:
        for one, other in (("langchain_cosd", "llama_index_cosd"), ("llama_index_cosd", "langchain_cosd")):
            assert not (name.startswith(one) and any(each.startswith(other) for each in GRAPH[name])), name


def test_transformers_caches_and_auto_classes_are_named_in_one_file_each() -> None:
    def naming(pattern: str) -> list[str]:
        return [name for name in CORE_FILES if re.search(pattern, files()[name].read_text("utf-8"))]

    assert naming(r"\bDynamicCache\b|\bpast_key_values\"\s*:") == ["cosd_core/models/cache"]
    assert naming(r"\bAuto[A-Z]\w+\.") == ["cosd_core/models/loading"]


def test_only_the_command_line_prints_or_exits() -> None:
    def calls(path: Path) -> set[str]:
        tree = ast.parse(path.read_text("utf-8"))
        return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}

    printing = [name for name in CORE_FILES if calls(files()[name]) & {"print", "sys.exit", "exit"}]
    assert printing
    assert all(name.startswith("cosd_core/cli/") for name in printing)

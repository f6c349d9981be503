"""A file of the core imports only from lower ranks, as the table in docs/architecture.md draws it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
UPWARDS_ON_PURPOSE = {("records.py", "explain.py")}


def ranks() -> dict[str, int]:
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([\w/.]+)` \|", table, re.MULTILINE)
    return {file: int(rank) for rank, file in rows}


def file_of(module: str) -> str | None:
    """The table's name for a module of the core."""
    parts = module.split(".")
    if parts[0] != "cosd_core" or len(parts) == 1:
        return None
    if parts[1] == "demo":
        return "demo/"
    path = ROOT.joinpath(*parts)
    inside = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return inside.relative_to(ROOT / "cosd_core").as_posix() if inside.exists() else None


def imports(path: Path) -> set[str]:
    """Files of the core that a file imports, inside functions too, but not for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(filter(None, (file_of(alias.name) for alias in node.names)))
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(filter(None, (file_of(name) or file_of(node.module or "") for name in names)))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def core_files() -> dict[str, Path]:
    """Every file of the core by its name in the table, packages' doors and the demo's own files aside."""
    core = ROOT / "cosd_core"
    files = {path.relative_to(core).as_posix(): path for path in core.rglob("*.py")}
    return {
        name: path
        for name, path in files.items()
        if name not in {"__init__.py", "chat/__init__.py", "models/__init__.py"}
        and not name.startswith("demo/")
    }


def test_the_table_names_every_file_and_no_other() -> None:
    assert set(ranks()) - {"demo/"} == set(core_files())


def test_the_table_goes_from_low_to_high() -> None:
    assert list(ranks().values()) == sorted(ranks().values())


def test_files_import_only_from_lower_ranks() -> None:
    rank = ranks()
    upwards = {
        (name, other)
        for name, path in core_files().items()
        for other in imports(path)
        if rank[other] >= rank[name]
    }
    assert upwards == UPWARDS_ON_PURPOSE


def test_the_demo_imports_only_from_lower_ranks() -> None:
    rank = ranks()
    for path in (ROOT / "cosd_core/demo").rglob("*.py"):
        for other in imports(path) & set(rank) - {"demo/"}:
            assert rank[other] < rank["demo/"], f"{path.name} imports {other}"


def test_transformers_caches_and_auto_classes_are_named_in_one_file_each() -> None:
    def naming(pattern: str) -> list[str]:
        return [name for name, path in core_files().items() if re.search(pattern, path.read_text("utf-8"))]

    assert naming(r"\bDynamicCache\b|\bpast_key_values\"\s*:") == ["models/cache.py"]
    assert naming(r"\bAuto[A-Z]\w+\.") == ["models/loading.py"]


def test_only_the_command_line_prints_or_exits() -> None:
    def calls(path: Path) -> set[str]:
        tree = ast.parse(path.read_text("utf-8"))
        return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}

    printing = [name for name, path in core_files().items() if calls(path) & {"print", "sys.exit", "exit"}]
    assert printing
    assert all(name.startswith("cli/") for name in printing)

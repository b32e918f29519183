"""Imports go one way; the guest's code stands alone."""

import ast
import sys
from pathlib import Path

import pytest

import vmtest

ROOT = Path(vmtest.__file__).parent

# From the bottom up; a module may import its own layer and those before it.
LAYERS = [
    {"errors", "model", "verdicts"},
    {"bisect", "events", "cache", "host", "btf", "sections", "results"},
    {"config", "debian", "kconfig", "known", "objectfile", "observations"},
    {"wheels", "bundle", "objects", "runs", "revision", "verifier", "vm"},
    {"kernels", "rootfs", "suites"},
    {"bisection", "gitbisect", "guestimage", "prune", "commands"},
    {"loader"},
    {"loadables"},
    {"work"},
    {"tasks"},
    {"matrix", "report"},
    {"probes"},
    {"cli"},
]


def place(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The names right below vmtest that ``path`` imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "vmtest":
                found.update(f"vmtest.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in found if name.startswith("vmtest.")}


MODULES = [path for path in sorted(ROOT.rglob("*.py")) if place(path) != "guest"]
PLACED = [path for path in MODULES if not place(path).startswith("__")]


@pytest.mark.parametrize("path", PLACED, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    (layer,) = [n for n, names in enumerate(LAYERS) if place(path) in names]
    above = set().union(*LAYERS[layer + 1 :])
    assert imported(path) & above == set()


def test_report_and_matrix_do_not_know_each_other() -> None:
    for path in MODULES:
        if place(path) == "report":
            assert "matrix" not in imported(path), path
        if place(path) == "matrix":
            assert "report" not in imported(path), path


@pytest.mark.parametrize("path", sorted((ROOT / "guest").rglob("*.py")), ids=lambda p: p.name)
def test_the_guest_uses_the_standard_library_and_pytest_only(path: Path) -> None:
    tops: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            tops.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            tops.add(node.module or "")
    foreign = {
        name
        for name in tops
        if name.split(".")[0] not in sys.stdlib_module_names | {"pytest", "_pytest"}
        and not name.startswith("vmtest.guest")
        and name != "vmtest"
    }
    assert foreign == set()


def test_only_the_session_imports_paramiko() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if "import paramiko" in path.read_text()
    }
    assert users == {"vm/session.py"}


def test_only_the_command_line_prints_or_exits() -> None:
    def talks(path: Path) -> bool:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        return any(ast.unparse(call.func) in ("print", "sys.exit", "exit") for call in calls)

    # Scripts of their own: the supervisor, and the host's setup.
    scripts = {"vm/supervisor.py", "host.py"}
    talking = {p.relative_to(ROOT).as_posix() for p in PLACED if talks(p) and place(p) != "cli"}
    assert talking <= scripts

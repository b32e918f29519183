"""Imports go one way; the guest's code stands alone."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vmtest

ROOT = Path(vmtest.__file__).parent

# From the bottom up.  What stands on a floor does not know its neighbours there.
FLOORS = [
    {"errors"},
    {"model"},
    {"host"},
    {"objects"},
    {"config", "runs"},
    {"kernels"},
    {"rootfs", "report", "schemas"},
    {"vm"},
    {"storage"},
    {"matrix"},
    {"cluster"},
    {"bisect"},
    {"suites", "command", "verify", "init"},
    {"api"},
    {"watch", "manual", "plugin"},
    {"cli"},
]
FLOOR_OF = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}


def dotted(path: Path) -> str:
    """The module below vmtest, such as ``vm.machine``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The modules below vmtest that ``path`` imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.removeprefix("vmtest.") for name in found if name.startswith("vmtest.")}


MODULES = [path for path in sorted(ROOT.rglob("*.py")) if not dotted(path).startswith("guest")]
PLACED = [path for path in MODULES if path.parent != ROOT and path.name != "__init__.py"]
PLACED += [ROOT / "errors.py", ROOT / "kernels" / "__init__.py"]


@pytest.mark.parametrize("path", PLACED, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    own = dotted(path).split(".")[0]
    assert own in FLOOR_OF, f"{own} stands on no floor"
    others = {name.split(".")[0] for name in imported(path)} - {own}
    assert {name for name in others if FLOOR_OF.get(name, -1) >= FLOOR_OF[own]} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also where a function imports: who changes one of them has to read them all."""
    names = {dotted(path): path for path in sorted(ROOT.rglob("*.py"))}
    arrows = {name: imported(path) & set(names) for name, path in names.items()}
    assert set(TopologicalSorter(arrows).static_order()) == set(names)


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=str)
def test_every_folder_says_what_lives_there(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_the_root_holds_little_beside_folders() -> None:
    named = {"__init__.py", "__main__.py", "errors.py", "default_kernels.toml", "py.typed"}
    assert {path.name for path in ROOT.iterdir() if path.is_file()} == named


FUNCTIONS = [
    (path, node)
    for path in sorted(ROOT.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def test_no_function_has_over_60_lines() -> None:
    lines = {
        f"{path.relative_to(ROOT)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, node in FUNCTIONS
    }
    assert len(lines) > 1000
    assert {name: count for name, count in lines.items() if count > 60} == {}


def test_no_function_outside_the_command_line_has_over_8_parameters() -> None:
    """Beside ``self`` and ``cls``; a command has one for each option."""
    counts = {
        f"{path.relative_to(ROOT)}: {node.name}": len(
            [
                argument
                for argument in (
                    *node.args.posonlyargs,
                    *node.args.args,
                    *node.args.kwonlyargs,
                )
                if argument.arg not in ("self", "cls")
            ]
        )
        for path, node in FUNCTIONS
        if path.relative_to(ROOT).parts[0] != "cli"
    }
    assert {name: count for name, count in counts.items() if count > 8} == {}


@pytest.mark.parametrize(("folder", "other"), [("report", "matrix"), ("matrix", "report")])
def test_report_and_matrix_do_not_know_each_other(folder: str, other: str) -> None:
    there = {path: imported(path) for path in MODULES if path.parent.name == folder}
    assert there, f"vmtest/{folder} has no module"
    knowing = [path for path, names in there.items() if other in {n.split(".")[0] for n in names}]
    assert knowing == []


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

    # Scripts of their own: supervisor and reaper, and the host's setup.
    scripts = {"host/supervisor.py", "host/reaper.py", "host/requirements.py", "host/__main__.py"}
    talking = {
        path.relative_to(ROOT).as_posix()
        for path in PLACED
        if talks(path) and not dotted(path).startswith("cli.")
    }
    assert talking <= scripts

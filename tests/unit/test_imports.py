"""Imports go one way; the guest's code stands alone."""

import ast
import sys
from pathlib import Path

import pytest

import vmtest

ROOT = Path(vmtest.__file__).parent

# From the bottom up: folders and modules; a module may import its own layer and those before it.
LAYERS = [
    {"errors", "host.write", "model"},
    {
        "bisect.search",
        "command.formats",
        "host.cache",
        "host.interrupt",
        "host.files",
        "host.plain",
        "host.requirements",
        "host.seal",
        "host.tarstream",
        "objects.btf",
        "objects.sections",
    },
    {
        "bisect.observe",
        "config",
        "host.debian",
        "kernels.kconfig",
        "kernels.store.modules",
        "kernels.store.record",
        "objects.inspect",
        "suites.known",
    },
    {
        "host.process",
        "host.supervisor",
        "matrix.follow",
        "matrix.wire",
        "objects.builds",
        "rootfs.wheels",
        "runs",
        "storage.transfer",
        "verify.baseline",
        "verify.columns",
        "verify.revision",
        "vm",
    },
    {
        "kernels",
        "rootfs.image",
        "rootfs.libbpf",
        "suites.collect",
        "suites.events",
        "suites.process",
    },
    {
        "bisect.commits",
        "bisect.rounds",
        "command.process",
        "rootfs.prepare",
        "storage.prune",
        "storage.verify",
    },
    {"verify.events"},
    {"verify.missing", "verify.untold"},
    {"verify.process"},
    {"verify.libraries", "verify.objects"},
    {"verify.types"},
    {"matrix.intact"},
    {"matrix.job"},
    {"matrix.judge"},
    {"command.task", "suites.task", "verify.task"},
    {"bisect.render", "matrix.runner", "report", "verify.veristat"},
    {"bisect.probes"},
    {"cli", "host.__main__"},
]
PLACES = {place: number for number, places in enumerate(LAYERS) for place in places}


def dotted(path: Path) -> str:
    """The module below vmtest, such as ``vm.machine``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def layer(module: str) -> int | None:
    """The layer of ``module``: its own entry's, else that of the nearest folder with one."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (number := PLACES.get(".".join(parts[:length]))) is not None:
            return number
    return None


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
    own = layer(dotted(path).removesuffix(".__init__"))
    assert own is not None, f"{dotted(path)} has no layer"
    above = {name for name in imported(path) if (other := layer(name)) is not None and other > own}
    assert above == set()


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=str)
def test_every_folder_says_what_lives_there(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_report_and_matrix_do_not_know_each_other() -> None:
    for path in MODULES:
        folders = {name.split(".")[0] for name in imported(path)}
        if dotted(path).startswith("report."):
            assert "matrix" not in folders, path
        if dotted(path).startswith("matrix."):
            assert "report" not in folders, path


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
    scripts = {"host/supervisor.py", "host/requirements.py", "host/__main__.py"}
    talking = {
        path.relative_to(ROOT).as_posix()
        for path in PLACED
        if talks(path) and not dotted(path).startswith("cli.")
    }
    assert talking <= scripts

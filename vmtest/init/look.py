"""What a repository has that a first kernels.toml is about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmtest.errors import UsageError
from vmtest.host.project import every_file, project_files
from vmtest.model.versions import unique
from vmtest.objects.builds import check_object

_MAKEFILES = {"Makefile", "GNUmakefile", "makefile"}
_NOT_OURS = re.compile(
    r"\.tmp\.bpf\.o$|_(arm|arm64|loongarch|mips|powerpc|riscv|s390|sparc)_bpfel\.o$"
)
"""Half of a build (``bpftool gen object`` links it), and what bpf2go makes for other machines."""
_GITHUB, _GITLAB = ".github", ".gitlab-ci.yml"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; every path is relative to the repository.

    ``sources`` are BPF programs in C, ``objects`` BPF objects of this byte order that are there
    now, ``tests`` the topmost folders with pytest files (only "." where files lie beside
    kernels.toml: that has all of them),
    ``makefiles`` the folders that have a Makefile, ``pythonpath`` the one that the project's
    package is imported from.  ``ci`` is ``github``, ``gitlab`` or "".
    """

    sources: tuple[PurePosixPath, ...] = ()
    objects: tuple[PurePosixPath, ...] = ()
    tests: tuple[PurePosixPath, ...] = ()
    pythonpath: str = "."
    makefiles: tuple[PurePosixPath, ...] = ()
    go: bool = False
    cargo: bool = False
    ci: str = ""


def look(root: Path) -> Found:
    """Look at the files of the project at ``root``; raises OSError."""
    files = [PurePosixPath(path.relative_to(root)) for path in project_files(root)]
    names = {str(path) for path in files}
    return Found(
        sources=tuple(path for path in files if path.name.endswith(".bpf.c")),
        objects=_objects(root),
        tests=_tests(files),
        pythonpath="src" if _has_package(names) else ".",
        makefiles=tuple({path.parent: True for path in files if path.name in _MAKEFILES}),
        go="go.mod" in names,
        cargo="Cargo.toml" in names,
        ci=_ci(root),
    )


def _objects(root: Path) -> tuple[PurePosixPath, ...]:
    """The BPF objects, those that git ignores too: most projects build theirs."""
    found = []
    for path in every_file(root):
        if path.suffix == ".o" and not _NOT_OURS.search(path.name) and _is_object(path):
            found.append(PurePosixPath(path.relative_to(root)))
    return tuple(found)


def _is_object(path: Path) -> bool:
    try:
        check_object(path.name, path)
    except UsageError:
        return False
    return True


def _tests(files: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    tests = [
        path
        for path in files
        if path.suffix == ".py" and (path.stem.startswith("test_") or path.stem.endswith("_test"))
    ]
    folders = unique(path.parts[0] if path.parent.name else "." for path in tests)
    return tuple(map(PurePosixPath, ["."] if "." in folders else folders))


def _has_package(names: Iterable[str]) -> bool:
    return any(
        name.startswith("src/") and name.endswith("/__init__.py") and name.count("/") == 2
        for name in names
    )


def _ci(root: Path) -> str:
    if (root / _GITHUB).is_dir():
        return "github"
    return "gitlab" if (root / _GITLAB).is_file() else ""

"""The files of the user's project: those that git knows, and all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from vmtest.host.cache import find_tool
from vmtest.host.git import run_git

_NEVER = {".git", ".vmtest", "__pycache__", "node_modules"}
_ENVIRONMENT = "pyvenv.cfg"
"""The file at the top of a Python virtual environment, whatever its folder's name is."""


def project_files(root: Path) -> tuple[Path, ...]:
    """The files of the project at ``root``, in order.

    In a git repository these are the files that git knows or would add: what ``.gitignore`` leaves
    out is built or downloaded, and may be large.  Elsewhere all that :func:`every_file` gives
    and whose name does not begin with a dot.
    """
    tool = find_tool("git")
    if tool is not None:
        # Two questions: git refuses to list submodules and untracked files in one.
        tracked = _listed(tool, root, "--cached", "--recurse-submodules")
        untracked = _listed(tool, root, "--others", "--exclude-standard")
        if tracked is not None and untracked is not None:
            names = sorted({*tracked, *untracked})
            return tuple(root / name for name in names if _wanted(root, name))
    visible = (path for path in every_file(root) if not _hidden(path.relative_to(root)))
    return tuple(visible)


def every_file(root: Path) -> Iterator[Path]:
    """All files below ``root`` in order, those that git ignores as well.

    Left out are git's and vmtest's own folders, caches of Python and node, virtual environments.
    """
    for folder, folders, names in os.walk(root):
        if _ENVIRONMENT in names and folder != str(root):
            folders.clear()
            continue
        folders[:] = sorted(set(folders) - _NEVER)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                yield path


def selected(paths: Iterable[Path], root: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    """Those of ``paths`` that a pattern of ``patterns`` (as in a ``.gitignore``) matches."""
    spec = GitIgnoreSpec.from_lines(patterns)
    return tuple(path for path in paths if spec.match_file(path.relative_to(root).as_posix()))


def _listed(tool: str, root: Path, *which: str) -> list[str] | None:
    done = run_git(tool, "-C", str(root), "ls-files", "-z", *which)
    return None if done.returncode else [name for name in done.stdout.split("\0") if name]


def _wanted(root: Path, name: str) -> bool:
    return _NEVER.isdisjoint(Path(name).parts) and (root / name).is_file()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)

"""Reads what results depend on, and tells saves that changed something from those that did not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vmtest.api.inputs import parts
from vmtest.config import select
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.model.project import Config, Suite
from vmtest.rootfs import lock as lockfile
from vmtest.suites.payload import files_of
from vmtest.verify import objects as loadables
from vmtest.watch.due import Inputs, What

_WHOLE = 16 << 20  # bytes up to which a file's contents tell, and not its size and time
# Of editors: swap and backup files, Emacs' locks, Vim's trial whether it can write.
_OF_AN_EDITOR = re.compile(r".*(~|\.sw[a-z]|\.tmp|___jb_(tmp|old)___)|#.*#|4913")


def digest(path: Path) -> str:
    """A digest of the file at ``path``; "" where there is none, or nobody may read it."""
    try:
        status = path.stat()
        if status.st_size > _WHOLE:
            return f"{status.st_size} {status.st_mtime_ns}"
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def read_inputs(
    settings: Config, what: What, arguments: Sequence[str], suites: Sequence[str], here: Path
) -> Inputs:
    """What is there now, of the objects ``arguments`` (none: those of kernels.toml) and ``suites``.

    Raises UsageError where there is nothing to watch, or an argument means nothing.
    """
    chosen = select.select_suites(settings.suites, suites) if what is What.RUN else ()
    if what is What.RUN and not chosen:
        raise UsageError(
            f"{settings.file}: there is no [[suite]]; add one, or watch objects alone: "
            "vmtest watch verify"
        )
    builds = objects_of(settings, arguments, chosen if suites else None, here)
    if not builds and not chosen:
        raise UsageError(f"name objects to watch, or add an [[object]] to {settings.file}")
    return Inputs(
        settings,
        {name: tuple(map(digest, paths)) for name, paths in builds.items()},
        {suite.name: _tests(suite, settings.suites) for suite in chosen},
        {path: digest(path) for path in _parts(settings) if path.is_file()},
    )


def _parts(settings: Config) -> Iterator[Path]:
    """The files that every VM is made of, and the one that may say which wheels it has."""
    yield from parts(settings)
    yield lockfile.beside(settings.file)


def objects_of(
    settings: Config, arguments: Sequence[str], suites: Sequence[Suite] | None, here: Path
) -> dict[str, tuple[Path, ...]]:
    """The builds of each object that is watched, by its name, or by its path where that was named.

    ``suites`` are those that were chosen: then it is what they need.
    """
    found: dict[str, list[Path]] = {}
    if not arguments:
        needed = None if suites is None else {name for suite in suites for name in suite.objects}
        for build in settings.objects:
            if needed is None or build.name in needed:
                found.setdefault(build.name, []).append(build.path)
    for argument in arguments:
        if builds := loadables.named(argument, settings.objects, here):
            found[argument] = [build.path for build in builds]
            continue
        for given in loadables.expand([argument], settings.objects, here):
            found[str(given.build.path)] = [given.build.path]
    return {name: tuple(paths) for name, paths in found.items()}


def _tests(suite: Suite, suites: Iterable[Suite]) -> str:
    """A digest of what the tests of ``suite`` may be made of: its files, and what lies above.

    The file of another suite is that suite's alone, unless this one takes the whole project along.
    """
    folder, files = _folder(suite), Files()
    found = set(files_of(suite, files))
    for other in suites:
        found |= {p for p in files_of(other, files) if folder.is_relative_to(p.parent)}
    if suite.root is None:
        found -= {other.tests for other in suites} - {suite.tests}
    total = hashlib.sha256()
    for path in sorted(found):
        total.update(f"{path}\0{digest(path)}\0".encode())
    return total.hexdigest()


def _folder(suite: Suite) -> Path:
    return suite.tests if suite.tests.is_dir() else suite.tests.parent


def is_noise(path: Path, root: Path) -> bool:
    """Whether a change of ``path`` below ``root`` says nothing: hidden, a cache, an editor's."""
    below = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    hidden = any(part.startswith(".") or part == "__pycache__" for part in below.parts)
    return hidden or _OF_AN_EDITOR.fullmatch(path.name) is not None


def own_outputs() -> frozenset[Path]:
    """The files that this process writes its output to: what it prints there is no save."""
    found = set()
    for stream in (1, 2):
        with suppress(OSError):
            found.add(Path(f"/proc/self/fd/{stream}").resolve())
    return frozenset(path for path in found if path.is_file())


class Contents:
    """What was in the files that changed so far: a save of the same bytes is no change."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def changed(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Those of ``paths`` whose bytes differ from the last time; a folder never does."""
        found = []
        for path in sorted(set(paths)):
            now = digest(path)
            if not path.is_dir() and self._known.get(path) != now:
                self._known[path] = now
                found.append(path)
        return tuple(found)

"""A run among those that the project has kept: what fails since one that passed."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile

from vmtest.api.page import leave_page
from vmtest.errors import UsageError
from vmtest.model.results import Matrix, exit_status
from vmtest.report.again import ABBREVIATED, git_log
from vmtest.report.diff import UNSEEN, Difference, compare, failures
from vmtest.report.text import counted
from vmtest.runs import matrix_json
from vmtest.runs.events import is_written
from vmtest.runs.folder import STATE, RunFolder, before, create, kept
from vmtest.runs.read import read_facts, read_matrix

_EARLIER = 30  # runs that are looked at for one that passed
_MAY_RUN = 3600.0
_LARGEST = 4 << 30  # bytes of an archive, unpacked
_DAMAGED = (
    BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # encrypted
    NotImplementedError,
    ValueError,
)
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Since:
    """What fails in a run that did not in an earlier one which passed, on the same branch.

    ``new`` counts results: a test or program that fails on two kernels counts twice.  ``unseen``
    are the failures of what that run has no result of.  ``commit`` is that run's, ``now`` this
    one's, "" where it is not known.
    """

    run: str
    branch: str
    new: int
    unseen: int
    commit: str = ""
    now: str = ""

    def __str__(self) -> str:
        """``3 new failing results since run 2026..., the last on branch "main" that passed``."""
        where = f' on branch "{self.branch}"' if self.branch else ""
        at = f" (commit {self.commit[:ABBREVIATED]})" if self.commit else ""
        words = counted(self.new, "new failing result") if self.new else "no new failing result"
        told = f"{words} since run {self.run}, the last{where} that passed{at}"
        if self.unseen:
            number = counted(self.unseen, "failing result")
            verbs = ("has", "is") if self.unseen == 1 else ("have", "are")
            told += f"; {number} {verbs[0]} no counterpart in that run and {verbs[1]} not compared"
        commits = git_log(self.commit, self.now) if self.new else ""
        return told + (f"; {commits} lists the commits since" if commits else "")


def since(folder: RunFolder, matrix: Matrix) -> Since | None:
    """``matrix``, the run in ``folder``, against the last one before that passed.

    It is one on the same branch, of the same kind, that had at least one kernel of this one with
    a result that both have.  None where there is none.
    """
    own = read_facts(folder.path)
    branch, now = _of_project(own, "branch"), _of_project(own, "commit")
    for earlier in reversed(before(folder)[-_EARLIER:]):
        facts = read_facts(earlier.path)
        if _of_project(facts, "branch") != branch:
            continue
        try:
            old = read_matrix(earlier)
        except (UsageError, OSError):
            continue  # another vmtest's, or damaged
        if exit_status(old) == 0 and _comparable(old, matrix):
            found = compare(old, matrix)
            new = sum(len(d.kernels) for d in found if d.worse)
            unseen, commit = _unseen(found, old, matrix), _of_project(facts, "commit")
            return Since(earlier.name, branch, new, unseen, commit, now)
    return None


def _unseen(found: Iterable[Difference], old: Matrix, new: Matrix) -> int:
    """How many failures are of what ``old`` has no result of: tests, loads, kernels."""
    of_both = sum(len(d.kernels) for d in found if d.kind == UNSEEN)
    there = {kernel.kernel for kernel in old.kernels}
    return of_both + sum(failures(k) for k in new.kernels if k.kernel not in there)


def superfluous(
    project: Path, now: float, keep: int | None, older_than: float | None
) -> list[RunFolder]:
    """The runs that may go: not among the last ``keep``, older than ``older_than`` seconds.

    The latest stays, so does the last of every branch that passed, what still runs, and what was
    written to in the hour before ``now`` (time.time()): it may run on another machine.
    """
    every = kept(project)
    protected = {(project / STATE / "latest").resolve()} | _passed_last(every)
    chosen = []
    for place, folder in enumerate(reversed(every)):
        if folder.path.resolve() in protected or (keep is not None and place < keep):
            continue
        age = now - _last_written(folder.path)
        if age < _MAY_RUN or is_written(folder.path):
            continue
        if older_than is None or age > older_than:
            chosen.append(folder)
    return list(reversed(chosen))


def _last_written(folder: Path) -> float:
    """When anything in ``folder`` was last written to (time.time()).

    What appends to a file leaves the times of the folders alone.
    """
    last = folder.stat().st_mtime
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(OSError):
                last = max(last, (Path(place) / name).lstat().st_mtime)
    return last


def _passed_last(every: list[RunFolder]) -> set[Path]:
    """The last run of every branch that passed."""
    last: dict[str, Path] = {}
    for folder in reversed(every):
        branch = _of_project(read_facts(folder.path), "branch")
        if branch in last:
            continue
        with suppress(UsageError, OSError):
            if exit_status(read_matrix(folder)) == 0:
                last[branch] = folder.path.resolve()
    return set(last.values())


def take_in(path: Path, project: Path) -> Iterator[tuple[str, bool]]:
    """Copy the runs in ``path``, a folder or a .zip, into ``project``; their names as they come.

    Each comes with whether it is new.  Only files are taken, no link.  Raises UsageError for a
    path without a run, and for an archive that is damaged or too big.
    """
    with TemporaryDirectory(prefix="vmtest-import-") as scratch:
        if path.is_file():
            _unpack(path, Path(scratch))
        found = sorted((Path(scratch) if path.is_file() else path).rglob("matrix.json"))
        if not found:
            raise UsageError(f"{path}: there is no run in it: no matrix.json; name another file")
        for file in found:
            matrix = matrix_json.read(file)
            name = matrix.run if _NAME.fullmatch(matrix.run) else ""
            runs = project / STATE / "runs"
            is_new = not name or not (runs / name).exists()
            if is_new:
                runs.mkdir(parents=True, exist_ok=True)
                with TemporaryDirectory(prefix="import-", dir=project / STATE) as beside:
                    whole = Path(beside) / "run"
                    _copy(file.parent, whole)
                    leave_page(matrix, whole, lambda event: None)
                    target = runs / name if name else create(project).path
                    whole.rename(target)  # only what is whole is there
                name = target.name
            yield name, is_new


def _unpack(archive: Path, into: Path) -> None:
    try:
        with ZipFile(archive) as files:
            if sum(info.file_size for info in files.infolist()) > _LARGEST:
                raise UsageError(f"{archive}: unpacks to more than {_LARGEST >> 30} GiB")
            files.extractall(into)  # which leaves no name outside of the folder, and no link
    except _DAMAGED as error:
        raise _cannot_unpack(archive, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _cannot_unpack(archive, error) from error  # as bz2 says it


def _cannot_unpack(archive: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{archive}: is not a .zip file, is damaged, or is of a kind that cannot be read: "
        f"{error}; fetch it again, or unpack it and name the folder"
    )


def _copy(source: Path, target: Path) -> None:
    """The files of a run, and no link: what a run's folder holds is text to be read."""
    for file in sorted(source.rglob("*")):
        if file.is_file() and not file.is_symlink():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def _of_project(facts: dict[str, Any], name: str) -> str:
    """The project's ``branch`` or ``commit`` when the run began; "" where it is not known."""
    project = facts.get("project")
    value = project.get(name, "") if isinstance(project, dict) else ""
    return value if isinstance(value, str) else ""


def _comparable(old: Matrix, new: Matrix) -> bool:
    if old.command != new.command:
        return False
    return bool(_results(old) & _results(new))


def _results(matrix: Matrix) -> set[tuple[str, str, str]]:
    """What has a result, by kernel: tests, loads; a command as itself."""
    found = {(k.kernel, t.suite, t.test) for k in matrix.kernels for t in k.tests if t.outcome.ran}
    found |= {(k.kernel, load.object, load.program) for k in matrix.kernels for load in k.loads}
    return found or {(k.kernel, "", "") for k in matrix.kernels if k.came_to_something}

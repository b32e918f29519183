"""An index that is fetched, checked, and kept until it is old; one a suite or repository.

One that is gone, expired or badly signed fails alone.  Whatever fetches it, the rest is here.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vmtest.errors import InfrastructureError
from vmtest.host.cache import (
    age_of,
    disk_errors,
    locked,
    read_record,
    remove_tree,
    sha256_file,
    write_record,
)
from vmtest.kernels.archive.candidates import Candidate, Package
from vmtest.model.kernels import Progress

_FAILURE_KEPT = 60.0
_RECENT = 5.0
_RUNNER = secrets.token_hex(8)
"""This process: what failed for another one, before we asked, is asked again."""


class SuiteUnreadable(InfrastructureError):
    """A suite cannot be read; ``transient`` when the network and not the suite is to blame."""

    def __init__(self, reason: str, transient: bool) -> None:
        super().__init__(reason)
        self.transient = transient

    def __reduce__(self) -> tuple[type[SuiteUnreadable], tuple[str, bool]]:
        return SuiteUnreadable, (str(self), self.transient)


@dataclass(frozen=True, slots=True)
class Index:
    """A suite's package index that has been checked; ``note`` says when it is not fresh.

    ``flavours`` are those of all its kernels; of an image all its tags.
    """

    suite: str
    candidates: tuple[Candidate, ...]
    note: str = ""
    flavours: frozenset[str] = frozenset()


class KeptIndex(ABC):
    """The index of one suite or repository, kept in ``directory`` of the cache."""

    __slots__ = ()

    cache: Path
    suite: str

    @property
    @abstractmethod
    def directory(self) -> Path:
        """Where it keeps its state: two folders below the cache."""

    @abstractmethod
    def _update(self) -> None:
        """Fetch the index and check it, then call :meth:`_refreshed`; raises SuiteUnreadable."""

    @abstractmethod
    def _lists(self) -> list[Path]:
        """The files of the index that are here."""

    @abstractmethod
    def _read(self, note: str) -> Index:
        """The index, from the files that are here."""

    def index(self, max_age: float, *, refresh: bool = True) -> Index:
        """The suite's index, fetched when it is older than ``max_age`` seconds.

        Without a network an older one is used, and the note says so.  With ``refresh``
        False whatever is there is used.  Raises SuiteUnreadable.
        """
        if (age := self._age()) is not None and (age <= max_age or not refresh):
            return self._read("")
        asked = time.time()
        with (
            locked(self.cache, f"{self.directory.parent.name}-{self.directory.name}"),
            disk_errors(self.cache, f"{self.suite}: reading the index"),
        ):
            if (age := self._age()) is not None and age <= max_age:  # another runner was faster
                return self._read("")
            damaged = age is None and self._drop_lists()
            try:
                self._known_failure(asked)
                self._update()
            except SuiteUnreadable as error:
                age = self._age()
                if damaged:
                    why = f"its index in the cache was damaged and is removed; {error}"
                    raise SuiteUnreadable(why, error.transient) from error
                if not error.transient or age is None:
                    raise
                return self._read(
                    f"{self.suite}: its index is {_hours(age)} old and could not be "
                    f"refreshed: {error}"
                )
        return self._read("")

    def _refreshed(self) -> None:
        """Note that the files are fresh, and as they should be."""
        lists = {file.name: sha256_file(file) for file in self._lists()}
        write_record(self.directory / "refreshed.json", {"when": time.time(), "lists": lists})
        (self.directory / "failed.json").unlink(missing_ok=True)

    def _failure(self, reason: str, transient: bool) -> SuiteUnreadable:
        write_record(
            self.directory / "failed.json",
            {"when": time.time(), "reason": reason, "transient": transient, "runner": _RUNNER},
        )
        return SuiteUnreadable(reason, transient)

    def _known_failure(self, asked: float) -> None:
        """Raise what failed a moment ago: kernels of one suite do not wait one by one.

        That is for this process, and for others that waited for it since ``asked``.  A command
        that begins later asks the mirror, which may be mended.
        """
        failed = read_record(self.directory / "failed.json") or {}
        age, reason = age_of(failed), failed.get("reason")
        if age is None or not 0 <= age < _FAILURE_KEPT or not isinstance(reason, str):
            return
        if failed.get("runner") != _RUNNER and time.time() - age < asked:
            return
        if age > _RECENT:
            reason += f" ({age:.0f} s ago; it is asked again {_FAILURE_KEPT:.0f} s after that)"
        raise SuiteUnreadable(reason, bool(failed.get("transient")))

    def _age(self) -> float | None:
        """Seconds since the index was fetched, None when there is none that is whole."""
        refreshed = read_record(self.directory / "refreshed.json", older=True)
        lists = self._lists()
        if refreshed is None or not lists:
            return None
        try:
            if "lists" in refreshed and refreshed["lists"] != {f.name: _digest(f) for f in lists}:
                return None
        except OSError:
            return None
        age = age_of(refreshed)
        # In the future: the clock was put back since, and nobody knows how old it is.
        return None if age is None else abs(age)

    def _drop_lists(self) -> bool:
        """Remove lists that are not as they were fetched, which would be taken as they are."""
        lists = self._lists()
        for file in lists:
            remove_tree(file)
        return bool(lists)


class PackageIndex(KeptIndex):
    """An index whose packages are downloaded by it."""

    __slots__ = ()

    @abstractmethod
    def download(
        self,
        packages: tuple[Package, ...],
        into: Path,
        name: str,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Download ``packages`` into the empty folder ``into``, checked; raises KernelUnavailable.

        ``name`` is what errors call the kernel.
        """


def _digest(file: Path) -> str:
    status = file.stat()
    return _digest_of(file, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


@lru_cache(maxsize=64)
def _digest_of(file: Path, mtime: int, ctime: int, size: int) -> str:
    del mtime, ctime, size  # another file by them
    return sha256_file(file)


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"

"""The libbpf that ``[guest] libbpf`` names: of a package of Debian's, or a file of the user's.

A package's is kept below ``libbpf/`` in the cache.  It is laid over the guest's own; the
image stays as it is.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection

from vmtest.config.schema import is_path
from vmtest.errors import ImageError, InfrastructureError, KernelUnavailable, UsageError
from vmtest.host.cache import (
    age_of,
    hold,
    locked,
    publish,
    read_record,
    read_recorded,
    safe_name,
    scratch,
    write_record,
)
from vmtest.host.debian import Mirrors
from vmtest.host.files import Files
from vmtest.host.tarstream import TooLarge, open_stream, regular
from vmtest.kernels.archive.candidates import Package
from vmtest.kernels.archive.kept import SuiteUnreadable
from vmtest.kernels.debian.suite import SuiteState
from vmtest.kernels.files.unpack import deb_part
from vmtest.model.kernels import AptArchive, Library

KIND = "libbpf"
"""The folder of the cache for packages' libraries, and the kind of its entries."""

NEWEST = "newest"
SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid")
"""Debian's suites with a libbpf 1.x, the oldest first."""

_PACKAGE = "libbpf1"
_FILE = "libbpf.so.1"
_RECORD = "libbpf.json"
_LARGEST = 16 << 20
_VERSION = re.compile(r"LIBBPF_(\d+)\.(\d+)\.\d+")
_CURE = 'give a shared library of x86-64, such as the libbpf.so.1 that its "make" leaves'


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where versions of libbpf come from; ``suites`` are tried before all others.

    ``mirrors`` is asked only when nothing in ``cache`` will do; ``archive`` says how its
    indexes are read, None as by default.
    """

    cache: Path
    mirrors: Callable[[], Mirrors]
    archive: AptArchive | None = None
    suites: tuple[str, ...] = ()
    files: Files = field(default_factory=Files)

    def take(self, wanted: str, log: Callable[[str], None]) -> tuple[Library, str]:
        """The library that ``wanted`` means, and a note ("" without one).

        A version is taken from the cache where it is there, ``newest`` only while its index
        would count as fresh.  Raises UsageError for what there is not, ImageError for what
        cannot be had.
        """
        if is_path(wanted):
            return of_file(Path(wanted), self.files), ""
        if (kept := self._kept(wanted)) is not None:
            return self._used(kept)
        log(f"libbpf {wanted}: looking for its package")
        with locked(self.cache, "libbpf"):
            if (kept := self._kept(wanted)) is not None:  # another runner was faster
                return self._used(kept)
            try:
                return self._fetch(wanted)
            except InfrastructureError as error:
                stored = list(self._entries()) if wanted == NEWEST else []
                if not stored:
                    raise
                best = max(stored, key=lambda library: _numbers(library.version))
                return self._used((best, f"{error}; the stored libbpf {best.version} is used"))

    # --- the cache ---

    @property
    def _folder(self) -> Path:
        return self.cache / KIND

    def _used(self, kept: tuple[Library, str]) -> tuple[Library, str]:
        """``kept``, whose use is noted."""
        if (place := place_of(kept[0], self.cache)) is not None:
            hold(self.cache, f"{KIND}-{place.name}")
        return kept

    def _kept(self, wanted: str) -> tuple[Library, str] | None:
        if wanted != NEWEST:
            return next(((one, "") for one in self._entries() if one.version == wanted), None)
        answer = read_record(self._newest)
        age = None if answer is None else age_of(answer)
        if answer is None or age is None or not 0 <= age <= self._max_age:
            return None
        try:
            library = read_entry(self._folder / safe_name(str(answer["entry"])))
        except (KeyError, ValueError):
            return None
        return library, str(answer.get("note", ""))

    def _entries(self) -> Iterator[Library]:
        """What is whole, of one version the newest package first; the rest is fetched again."""
        for place in reversed(places(self.cache)):
            with suppress(ValueError):
                yield read_entry(place)

    @property
    def _newest(self) -> Path:
        """What the newest was; another file where an index past its date counts as well."""
        return self._folder / ("newest.json" if self._valid else "newest-of-any-date.json")

    # --- Debian's suites ---

    @property
    def _valid(self) -> bool:
        return self.archive is None or self.archive.check_valid_until

    @property
    def _max_age(self) -> float:
        return (self.archive or AptArchive("")).max_index_age

    def _state(self, suite: str) -> SuiteState | None:
        mirror = self.mirrors().of(suite)
        return None if mirror is None else SuiteState(self.cache, suite, mirror, self._valid)

    def _fetch(self, wanted: str) -> tuple[Library, str]:
        there: dict[str, str] = {}
        failed: dict[str, str] = {}
        order = reversed(SUITES) if wanted == NEWEST else dict.fromkeys((*self.suites, *SUITES))
        for suite in order:
            state = self._state(suite)
            if state is None:
                failed[suite] = "no Debian mirror is known for it"
                continue
            try:
                state.index(self._max_age)
            except SuiteUnreadable as error:
                failed[suite] = str(error)
                continue
            for package in reversed(state.packages(_PACKAGE)):
                version = _of_package(package)
                there.setdefault(version, suite)
                if wanted == version:
                    return self._download(package, state)[0], ""
                if wanted == NEWEST:
                    library, entry = self._download(package, state)
                    note = f"libbpf {version} is the newest that can be had: {_unread(failed)}"
                    answer = {"when": time.time(), "entry": entry, "note": note if failed else ""}
                    write_record(self._newest, answer)
                    return library, str(answer["note"])
        raise _nothing(wanted, there, failed)

    def _download(self, package: Package, state: SuiteState) -> tuple[Library, str]:
        """The library in ``package``, put into the cache, and its name there."""
        name = f"libbpf {_of_package(package)}"
        entry = safe_name(f"{package.version}-{package.sha256[:12]}")
        with scratch(self.cache, "libbpf") as folder:
            into, made = folder / "package", folder / "entry"
            into.mkdir()
            made.mkdir()
            try:
                (file,) = state.download((package,), into, name)
                data = _unpacked(file, name)
            except KernelUnavailable as error:
                raise ImageError(str(error)) from error
            origin = f"{_PACKAGE} {package.version} of {state.suite}"
            version = _version(data, f"{name}: {origin}")
            (made / _FILE).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            record = {"version": version, "origin": origin, "library": digest}
            write_record(made / _RECORD, record)
            hold(self.cache, f"{KIND}-{entry}")  # nobody removes it from here on
            publish(made, self._folder / entry)
        return Library(version, origin, digest, data), entry


def places(cache: Path) -> list[Path]:
    """The folders of all packages' libraries in ``cache``, damaged ones too."""
    return sorted(path for path in (cache / KIND).glob("*") if path.is_dir())


def place_of(library: Library, cache: Path) -> Path | None:
    """The folder in ``cache`` that ``library`` is from; None for the user's own file."""
    for place in places(cache):
        with suppress(ValueError):
            if read_entry(place) == library:
                return place
    return None


def read_entry(place: Path) -> Library:
    """The library in the folder ``place`` of the cache.

    Raises ValueError with the file and what is wrong with it.
    """
    record, data = read_recorded(place, _RECORD, _FILE, "library")
    digest = str(record["library"])
    return Library(str(record.get("version")), str(record.get("origin")), digest, data)


def check_entry(place: Path) -> None:
    """Raise ValueError unless ``place`` holds a library of the version that it names."""
    found = read_entry(place)
    try:
        version = _version(found.data, _FILE)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if version != found.version:
        raise ValueError(f"{_FILE} is libbpf {version}, and {_RECORD} says {found.version[:20]}")


def of_file(path: Path, files: Files) -> Library:
    """The user's own, read by ``files``; raises UsageError unless it is a libbpf 1.x."""
    try:
        content = files.read(path, "libbpf")
    except OSError as error:
        raise UsageError(
            f"[guest] libbpf, or `libbpf`: {path}: {error.strerror}; correct the path, or write "
            f'a version ("1.5") or "newest"'
        ) from error
    version = _version(content.data, f"[guest] libbpf, or `libbpf`: {path}")
    return Library(version, str(path), content.sha256, content.data)


def _version(data: bytes, what: str) -> str:
    """The version of the libbpf in ``data``, by the versions of its symbols; raises UsageError."""
    try:
        elf = ELFFile(io.BytesIO(data))
        fits = (elf["e_machine"], elf["e_type"]) == ("EM_X86_64", "ET_DYN")
        names = list(_sonames(elf))
        found = [(int(m[1]), int(m[2])) for m in map(_VERSION.fullmatch, _defined(elf)) if m]
    except (ELFError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise UsageError(f"{what}: cannot be read as a shared library; {_CURE}") from error
    if not fits:
        raise UsageError(f"{what}: is not a shared library for x86-64; {_CURE}")
    if _FILE not in names or not found:
        called = names[0] if names else "nothing"
        raise UsageError(f"{what}: its name within is {called} and not {_FILE}; {_CURE}")
    major, minor = max(found)
    return f"{major}.{minor}"


def _sonames(elf: ELFFile) -> Iterable[str]:
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags("DT_SONAME"):
                yield str(vars(tag).get("soname", ""))  # pyelftools names it after the tag


def _defined(elf: ELFFile) -> Iterable[str]:
    for section in elf.iter_sections():
        if isinstance(section, GNUVerDefSection):
            for _, names in section.iter_versions():
                yield from (name.name for name in names)


def _of_package(package: Package) -> str:
    """Major and minor number of a package's version: ``1.5`` of ``1:1.5.0-3``."""
    return ".".join(package.version.rpartition(":")[2].split(".")[:2])


def _unpacked(package: Path, name: str) -> bytes:
    """The shared library in a .deb; raises ImageError."""
    try:
        with deb_part(package, "fsys") as stream, open_stream(stream, _LARGEST) as tar:
            for member in tar:
                if regular(member) and Path(member.name).name.startswith(f"{_FILE}."):
                    content = tar.extractfile(member)
                    return content.read() if content is not None else b""
    except (tarfile.TarError, EOFError, TooLarge) as error:
        raise ImageError(f"{name}: {package.name} cannot be unpacked: {error}") from error
    raise ImageError(f"{name}: {package.name} has no {_FILE}")


def _nothing(
    wanted: str, there: dict[str, str], failed: dict[str, str]
) -> UsageError | InfrastructureError:
    known = sorted(there.items(), key=lambda pair: _numbers(pair[0]))
    listed = ", ".join(f"{version} ({suite})" for version, suite in known)
    what = f"no Debian suite has libbpf {wanted}"
    cure = f"there are {listed or 'none'}; "
    cure += "name one of these as [guest] libbpf, or the path of a libbpf.so.1"
    if not failed:
        return UsageError(f"{what}: {cure}")
    return ImageError(f"{what} that can be read: {cure}; {_unread(failed)}")


def _unread(failed: dict[str, str]) -> str:
    return "; ".join(f"{suite} cannot be read ({why})" for suite, why in failed.items())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

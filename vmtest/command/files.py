"""The files of vmtest exec --copy, and the command as the guest is given it."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmtest.command.formats.format import Format
from vmtest.errors import UsageError
from vmtest.host.files import Files, tar
from vmtest.matrix.payload import module_list
from vmtest.model.secrets import HIDDEN, words_without_secrets
from vmtest.objects.builds import read_object
from vmtest.vm.guest_code import GUEST_ROOT, guest_code

WORK = f"{GUEST_ROOT}/work"
"""The command's working folder in the guest: what ``--copy`` names lies there."""
COPY_LIMIT = 128 << 20
"""Bytes of copied files: they are in the guest's memory twice while they are unpacked."""


_LONGEST_NAME = 100
_STAYING = {".git", ".vmtest"}


@dataclass(frozen=True, slots=True)
class Copy:
    """One ``--copy``: a file or folder of the host, and its place below the working folder.

    The place ``.`` spreads a folder's content in the working folder itself.  git's and vmtest's
    own folders stay behind.
    """

    source: Path
    target: PurePosixPath


def parse_copy(text: str) -> Copy:
    """Read ``FILE|DIR[:GUESTPATH]``; raises UsageError for a place outside the working folder.

    ``DIR/.`` and ``.`` mean what is in the folder, as for cp.
    """
    source, separator, place = text.rpartition(":")
    if not separator or Path(text).exists():  # a colon may be part of a name
        source, place = text, ""
    if not place and (source == "." or source.endswith("/.")):
        place = "."
    path = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would lose a link's name
    name = path.name
    if not (source and name):
        raise UsageError(f"`copy` {text}: names no file; write FILE, DIR or FILE:GUESTPATH")
    target = PurePosixPath(place or name)
    if target.is_absolute() or ".." in target.parts:
        raise UsageError(
            f"`copy` {text}: {place} is outside of the working folder {WORK}; write a relative "
            "path, and have the command move it if it must lie elsewhere"
        )
    if place.endswith("/") or (place == "." and not path.is_dir()):
        target = target / name
    return Copy(path, target)


def members(copies: Sequence[Copy]) -> dict[PurePosixPath, Path]:
    """Everything that ``copies`` bring, by its place below the working folder.

    Raises UsageError for what is missing, unreadable, no file, there twice, or
    more than 128 MiB together.
    """
    found: dict[PurePosixPath, Path] = {}
    size = 0
    for copy in copies:
        for place, path in _entries(copy):
            if place in found and not (path.is_dir() and found[place].is_dir()):
                raise UsageError(f"`copy`: {found[place]} and {path} would both be {place}")
            found[place] = path
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
        if size > COPY_LIMIT:
            raise UsageError(
                f"`copy` {copy.source}: {size >> 20} MiB in all, more than {COPY_LIMIT >> 20}, "
                f"the largest is {_largest(found)}: strip binaries, name only what is needed"
            )
    return found


def _entries(copy: Copy) -> Iterator[tuple[PurePosixPath, Path]]:
    try:
        source = copy.source.resolve(strict=True)
    except OSError as error:
        raise UsageError(
            f"`copy` {copy.source}: {error.strerror}; does the [build] command make it?"
        ) from error
    if not (source.is_file() or source.is_dir()):
        raise UsageError(f"`copy` {copy.source}: is neither a file nor a folder")
    if not os.access(source, os.R_OK):
        raise UsageError(f"`copy` {copy.source}: cannot be read; check its permissions")
    yield copy.target, source
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if not _STAYING.isdisjoint(path.relative_to(source).parts):
            continue
        if path.is_symlink() or path.is_file() or path.is_dir():  # no sockets, no devices
            yield copy.target / path.relative_to(source), path


def _largest(found: Mapping[PurePosixPath, Path]) -> str:
    sizes = {path: path.lstat().st_size for path in found.values() if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    return f"{largest} ({sizes[largest] >> 20} MiB)"


def check_program(command: Sequence[str], there: Mapping[PurePosixPath, Path]) -> None:
    """Raise UsageError unless a program named by a relative path was copied and is executable.

    A name without a slash is searched in the guest's PATH (and must be no copied
    file's: the path was forgotten), an absolute path is the guest's.
    """
    program = command[0] if command else ""
    if not program:
        raise UsageError("the command is empty; write it after --, for example: -- uname -r")
    if program.startswith("/"):
        return
    if "/" not in program:
        if (copied := there.get(PurePosixPath(program))) is not None and copied.is_file():
            raise UsageError(
                f"{program}: a name without a slash is searched in the guest's PATH; "
                f"for the copied file write ./{shlex.quote(program)}"
            )
        return
    place = PurePosixPath(os.path.normpath(program))
    if ".." in place.parts:
        return
    path = there.get(place)
    if path is not None:
        if path.is_file() and not os.access(path, os.X_OK):
            raise UsageError(f"{program}: {path} is not executable; make it so with chmod +x")
        return
    inside = [str(target) for target, path in there.items() if target.name == place.name]
    if inside:
        raise UsageError(f"{program}: in the guest it is ./{inside[0]}; write that after --")
    raise UsageError(
        f"{program} is not in the guest: only what `copy` names is copied; "
        f"write `copy` {shlex.quote(program)} -- ./{place.name}"
    )


@dataclass(frozen=True, slots=True)
class Copied:
    """What ``--copy`` brings, read once: the same bytes go to every kernel.

    ``places`` is as of ``members``; ``archive`` is a tar without its end, the working
    folder in it; ``facts`` has mode and sha256 ("" for a folder or a link) by place.
    """

    places: Mapping[PurePosixPath, Path]
    archive: bytes
    facts: Mapping[str, tuple[int, str]]

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of each file, by its place."""
        return {place: digest for place, (_, digest) in self.facts.items() if digest}


def read_copies(copies: Sequence[Copy]) -> Copied:
    """Read everything that ``copies`` name; raises UsageError as ``members`` does, OSError."""
    places = members(copies)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("work")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        facts = {str(place): _add(archive, place, path) for place, path in places.items()}
        end = archive.offset
    return Copied(places, buffer.getvalue()[:end], facts)


def _add(archive: tarfile.TarFile, place: PurePosixPath, path: Path) -> tuple[int, str]:
    info = archive.gettarinfo(path, f"work/{place}")
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if not info.isreg():
        archive.addfile(info)
        linked = hashlib.sha256(path.read_bytes()).hexdigest() if info.islnk() else ""
        return info.mode, linked
    data = path.read_bytes()
    info.size = len(data)  # it may have grown since it was looked at
    archive.addfile(info, io.BytesIO(data))
    return info.mode, hashlib.sha256(data).hexdigest()


def suite_of(command: Sequence[str]) -> str:
    """The program's name, which the rows of ``command`` stand under."""
    return PurePosixPath(command[0]).name or command[0]


@dataclass(frozen=True, slots=True)
class Command:
    """A command and what goes into the guest with it.

    ``archive`` is a tar, ``objects`` has name and sha256 of each BPF object,
    ``copied`` says whether the program itself was copied.
    """

    argv: tuple[str, ...]
    archive: bytes
    objects: tuple[tuple[str, str], ...] = ()
    format: Format | None = None
    copied: bool = False

    @property
    def suite(self) -> str:
        """The suite that its rows belong to."""
        return suite_of(self.argv)

    @property
    def line(self) -> str:
        """The command as one would type it, without its secrets."""
        return shlex.join(words_without_secrets(self.argv)).replace(f"'{HIDDEN}'", HIDDEN)

    @property
    def row(self) -> str:
        """What the command's own row is called: no node id, which ``::`` would make it."""
        line = " ".join(self.line.split()).replace("::", ": :")
        return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def pack_command(
    argv: Sequence[str],
    copied: Copied,
    objects: Mapping[str, Path],
    format: Format | None = None,
    files: Files | None = None,
    modules: Sequence[str] = (),
) -> Command:
    """``argv`` with its files and ``objects`` by name; raises UsageError, OSError.

    ``modules`` of the kernel are loaded before.
    """
    check_program(argv, copied.places)
    files = files or Files()
    read = {name: read_object(name, path, files) for name, path in sorted(objects.items())}
    members = {f"objects/{name}.o": content for name, content in read.items()}
    archive = copied.archive + tar({**guest_code(files), **members, **module_list(modules)})
    digests = tuple((name, content.sha256) for name, content in read.items())
    own = PurePosixPath(os.path.normpath(argv[0])) in copied.places  # else check_program speaks
    return Command(tuple(argv), archive, digests, format, own)

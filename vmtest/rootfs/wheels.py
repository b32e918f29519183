"""Python wheels for the guest, unpacked without pip, network or the guest's interpreter.

A wheel is a zip whose tree goes into site-packages (PEP 427); scripts are made from
``entry_points.txt``.
"""

from __future__ import annotations

import configparser
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from vmtest.errors import ImageError
from vmtest.host.cache import FULL
from vmtest.host.files import Files
from vmtest.host.packed import unpack_limit

_SITE = PurePosixPath("usr/lib/python3/dist-packages")
_SCRIPTS = PurePosixPath("usr/local/bin")
_LARGEST_TEXT = 16 << 20
"""What a script or the list of entry points may have, in bytes."""
# RuntimeError for an encrypted file, NotImplementedError for a way of packing that Python lacks.
_DAMAGED = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    configparser.Error,
)
_NAME = re.compile(
    r"^(?P<name>[^-]+)-(?P<version>[^-]+)(-(?P<build>\d[^-]*))?"
    r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$"
)


def stage_wheels(wheels: Iterable[Path], tar: Path, files: Files | None = None) -> None:
    """Write a tar whose root holds ``wheels`` installed, all files root's; ``files`` reads them.

    Raises ImageError for a file that is not a wheel, is for another platform, or is unsafe.
    """
    files = files or Files()
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
        for wheel in wheels:
            try:
                _stage(wheel, out, files)
            except _DAMAGED as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                raise ImageError(
                    f"guest image: wheels: {wheel} cannot be read as a wheel: {error}"
                ) from error


def _stage(wheel: Path, out: tarfile.TarFile, files: Files) -> None:
    for path, size, content, mode in _files(wheel, files):
        info = tarfile.TarInfo(str(path))
        info.size, info.mode, info.mtime = size, mode, 0
        out.addfile(info, content)


_File = tuple[PurePosixPath, int, IO[bytes], int]
"""A file of the guest: where it goes, its size in bytes, its content and its mode."""


def _files(wheel: Path, files: Files) -> Iterator[_File]:
    _check_name(wheel)
    with zipfile.ZipFile(io.BytesIO(files.read(wheel, "wheels").data)) as archive:
        _check_size(wheel, archive)
        for item in archive.infolist():
            if item.is_dir():
                continue
            path = _checked(wheel, item.filename)
            target, mode = _target(path)
            if target is not None and target.parent == _SCRIPTS:
                data = re.sub(rb"\A#!python[^\n]*", b"#!/usr/bin/python3", _text(archive, item))
                yield target, len(data), io.BytesIO(data), mode
            elif target is not None:
                # Never more than item.file_size, whatever is packed there.
                with archive.open(item) as content:
                    yield target, item.file_size, content, mode
            if path.parts[0].endswith(".dist-info") and path.name == "entry_points.txt":
                points = _text(archive, item).decode("utf-8", "replace")
                for place, script in _entry_points(wheel, points):
                    yield place, len(script), io.BytesIO(script), 0o755


def _check_size(wheel: Path, archive: zipfile.ZipFile) -> None:
    """Raise ImageError for a wheel that unpacks to more than it should, before any of it is."""
    limit = unpack_limit(wheel.stat().st_size)
    if (size := sum(item.file_size for item in archive.infolist())) > limit:
        raise ImageError(
            f"guest image: wheels: {wheel} is refused: it unpacks to {size >> 20} MiB, more than "
            f"{limit >> 20} MiB; it is damaged or forged: get it again from where it is made"
        )


def _text(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bytes:
    if item.file_size > _LARGEST_TEXT:
        raise zipfile.BadZipFile(f"{item.filename[:120]} is larger than {_LARGEST_TEXT >> 20} MiB")
    return archive.read(item)


def _check_name(wheel: Path) -> None:
    match = _NAME.match(wheel.name)
    if match is None:
        raise ImageError(f"guest image: wheels: {wheel} is not named as a wheel (NAME-VERSION-...)")
    platforms = match["platform"].split(".")
    if not any(p == "any" or (p.endswith("_x86_64") and "linux" in p) for p in platforms):
        raise ImageError(
            f"guest image: wheels: {wheel.name} is for {match['platform']} and the guest is "
            f"linux_x86_64; give the wheel for that"
        )


def _checked(wheel: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ImageError(f"guest image: wheels: {wheel} holds an unsafe path {name!r}")
    return path


def _target(path: PurePosixPath) -> tuple[PurePosixPath | None, int]:
    if path.parts[0].endswith(".data") and len(path.parts) > 2:
        kind, rest = path.parts[1], PurePosixPath(*path.parts[2:])
        if kind in ("purelib", "platlib"):
            return _SITE / rest, 0o644
        if kind == "scripts":
            return _SCRIPTS / rest, 0o755
        if kind == "data":
            return PurePosixPath("usr/local") / rest, 0o644
        return None, 0
    return _SITE / path, 0o644


def _entry_points(wheel: Path, text: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read_string(text)
    if not parser.has_section("console_scripts"):
        return
    for name, target in parser.items("console_scripts"):
        module, _, function = target.partition("[")[0].strip().partition(":")
        if (
            "/" in name
            or not re.fullmatch(r"[\w.]+", module)
            or not re.fullmatch(r"[\w.]+", function)
        ):
            raise ImageError(f"guest image: wheels: {wheel}: bad entry point {name} = {target}")
        script = (
            f"#!/usr/bin/python3\nimport sys\nimport {module}\nsys.exit({module}.{function}())\n"
        )
        yield _SCRIPTS / name, script.encode()

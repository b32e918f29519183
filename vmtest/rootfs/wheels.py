"""Python wheels unpacked as Debian's pip would install them below /usr/local, without pip.

A wheel is a zip whose tree goes into dist-packages (PEP 427); scripts are made from
``entry_points.txt``.
"""

from __future__ import annotations

import configparser
import io
import lzma
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from vmtest.errors import ImageError
from vmtest.host.cache import FULL
from vmtest.host.files import Files
from vmtest.host.packed import unpack_limit

_SCRIPTS = PurePosixPath("bin")
_LARGEST_TEXT = 16 << 20
"""What a script or the list of entry points may have, in bytes."""
# RuntimeError for an encrypted file, NotImplementedError for a way of packing that Python lacks.
DAMAGED = (
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
"""What reading a damaged wheel raises."""
_NAME = re.compile(
    r"^(?P<name>[^-]+)-(?P<version>[^-]+)(-(?P<build>\d[^-]*))?"
    r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$"
)


def unpack_wheel(wheel: Path, prefix: Path, python: str, files: Files | None = None) -> None:
    """Install ``wheel`` below the folder ``prefix``, which stands for the guest's /usr/local.

    ``python`` is the version of the guest's Python (``3.13``); ``files`` reads the wheel.  Raises
    ImageError for a file that is not a wheel, is for another platform, or is unsafe.
    """
    _check_name(wheel, python)
    site = PurePosixPath(f"lib/python{python}/dist-packages")
    try:
        for path, content, mode in _files(wheel, site, files or Files()):
            place = prefix / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as out:
                shutil.copyfileobj(content, out)
            place.chmod(mode)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise ImageError(f"[guest] wheels: {wheel} cannot be read as a wheel: {error}") from error


_File = tuple[PurePosixPath, IO[bytes], int]
"""A file of the guest: where it goes below /usr/local, its content and its mode."""


def _files(wheel: Path, site: PurePosixPath, files: Files) -> Iterator[_File]:
    with zipfile.ZipFile(io.BytesIO(files.read(wheel, "wheels").data)) as archive:
        _check_size(wheel, archive)
        for item in archive.infolist():
            if item.is_dir():
                continue
            path = _checked(wheel, item.filename)
            target, mode = _target(path, site, item.external_attr >> 16)
            if target is not None and target.parent == _SCRIPTS:
                data = re.sub(rb"\A#!python[^\n]*", b"#!/usr/bin/python3", _text(archive, item))
                yield target, io.BytesIO(data), mode
            elif target is not None:
                # zipfile gives never more than item.file_size, whatever is packed there.
                with archive.open(item) as content:
                    yield target, content, mode
            if path.parts[0].endswith(".dist-info") and path.name == "entry_points.txt":
                points = _text(archive, item).decode("utf-8", "replace")
                for place, script in _entry_points(wheel, points):
                    yield place, io.BytesIO(script), 0o755


def _check_size(wheel: Path, archive: zipfile.ZipFile) -> None:
    """Raise ImageError for a wheel that unpacks to more than it should, before any of it is."""
    limit = unpack_limit(wheel.stat().st_size)
    if (size := sum(item.file_size for item in archive.infolist())) > limit:
        raise ImageError(
            f"[guest] wheels: {wheel} is refused: it unpacks to {size >> 20} MiB, more than "
            f"{limit >> 20} MiB; it is damaged or forged: get it again from where it is made"
        )


def _text(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bytes:
    if item.file_size > _LARGEST_TEXT:
        raise zipfile.BadZipFile(f"{item.filename[:120]} is larger than {_LARGEST_TEXT >> 20} MiB")
    return archive.read(item)


def _check_name(wheel: Path, python: str) -> None:
    match = _NAME.match(wheel.name)
    if match is None:
        raise ImageError(f"[guest] wheels: {wheel} is not named as a wheel (NAME-VERSION-...)")
    platforms = match["platform"].split(".")
    if not any(p == "any" or (p.endswith("_x86_64") and "linux" in p) for p in platforms):
        raise ImageError(
            f"[guest] wheels: {wheel.name} is for {match['platform']} and the guest is "
            f"linux_x86_64; give the wheel for that"
        )
    minor = int(python.partition(".")[2])
    if not any(_runs(tag, match["abi"], minor) for tag in match["python"].split(".")):
        raise ImageError(
            f"[guest] wheels: {wheel.name} is for {match['python']} and the guest has Python "
            f"{python}; give the wheel for cp3{minor} or py3"
        )


def _runs(tag: str, abi: str, minor: int) -> bool:
    """Whether CPython 3.``minor`` runs a wheel with that Python tag and those ABI tags."""
    kind, number = tag[:2], tag[2:]
    if not number.startswith("3"):
        return False
    least = int(number[1:] or 0) if number[1:].isdigit() or number == "3" else minor + 1
    if kind == "py" or "abi3" in abi.split(".") or "none" in abi.split("."):
        return kind in ("py", "cp") and least <= minor
    return kind == "cp" and least == minor


def _checked(wheel: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ImageError(f"[guest] wheels: {wheel} holds an unsafe path {name!r}")
    return path


def _target(
    path: PurePosixPath, site: PurePosixPath, packed: int
) -> tuple[PurePosixPath | None, int]:
    """Where a file of a wheel goes, and its mode there; ``packed`` is that in the wheel."""
    mode = 0o755 if packed & 0o111 else 0o644
    if path.parts[0].endswith(".data") and len(path.parts) > 2:
        kind, rest = path.parts[1], PurePosixPath(*path.parts[2:])
        if kind in ("purelib", "platlib"):
            return site / rest, mode
        if kind == "scripts":
            return _SCRIPTS / rest, 0o755
        if kind == "data":
            return rest, mode
        return None, 0
    return site / path, mode


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
            raise ImageError(f"[guest] wheels: {wheel}: bad entry point {name} = {target}")
        script = (
            f"#!/usr/bin/python3\nimport sys\nimport {module}\nsys.exit({module}.{function}())\n"
        )
        yield _SCRIPTS / name, script.encode()

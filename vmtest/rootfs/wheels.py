"""Python wheels for the guest, unpacked without pip, network or the guest's interpreter.

A wheel is a zip whose tree goes into site-packages (PEP 427); scripts are made from
``entry_points.txt``.
"""

from __future__ import annotations

import configparser
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from vmtest.errors import ImageError
from vmtest.host.files import Files

_SITE = PurePosixPath("usr/lib/python3/dist-packages")
_SCRIPTS = PurePosixPath("usr/local/bin")
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
            for path, data, mode in _files(wheel, files):
                info = tarfile.TarInfo(str(path))
                info.size, info.mode, info.mtime = len(data), mode, 0
                out.addfile(info, io.BytesIO(data))


def _files(wheel: Path, files: Files) -> Iterator[tuple[PurePosixPath, bytes, int]]:
    _check_name(wheel)
    try:
        with zipfile.ZipFile(io.BytesIO(files.read(wheel, "wheels").data)) as archive:
            for item in archive.infolist():
                if item.is_dir():
                    continue
                data = archive.read(item)
                path = _checked(wheel, item.filename)
                target, mode = _target(path)
                if target is not None:
                    if target.parent == _SCRIPTS and data.startswith(b"#!python"):
                        data = (
                            b"#!/usr/bin/python3"
                            + data.partition(b"\n")[1]
                            + data.partition(b"\n")[2]
                        )
                    yield target, data, mode
                if path.parts[0].endswith(".dist-info") and path.name == "entry_points.txt":
                    yield from _entry_points(wheel, data.decode("utf-8", "replace"))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ImageError(
            f"guest image: wheels: {wheel} cannot be read as a wheel: {error}"
        ) from error


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


def _entry_points(wheel: Path, text: str) -> Iterator[tuple[PurePosixPath, bytes, int]]:
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
        yield _SCRIPTS / name, script.encode(), 0o755

"""What wheels require in the guest, by its Python and not by the one that runs vmtest."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from vmtest.host.files import Files
from vmtest.rootfs.wheels import DAMAGED

_LARGEST = 16 << 20
"""What the description of a wheel may have, in bytes."""


def in_guest(needed: Requirement, python: str, extra: str = "") -> bool:
    """Whether the marker of ``needed`` holds in a guest with that Python (``3.13``)."""
    full = f"{python}.0"
    guest = {
        "extra": extra,
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": full,
        "python_version": python,
        "sys_platform": "linux",
    }
    return needed.marker is None or needed.marker.evaluate(guest)


def requires(wheel: Path, python: str, files: Files, extra: str = "") -> Iterator[Requirement]:
    """What ``wheel`` requires, with ``extra``; what cannot be read is told by who installs it."""
    try:
        with zipfile.ZipFile(io.BytesIO(files.read(wheel).data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            text = "".join(
                archive.read(name).decode("utf-8", "replace")
                for name in names
                if archive.getinfo(name).file_size <= _LARGEST
            )
    except DAMAGED:
        return
    for line in HeaderParser().parsestr(text).get_all("Requires-Dist", []):
        try:
            needed = Requirement(line)
        except InvalidRequirement:
            continue
        if in_guest(needed, python, extra):
            yield needed


def without_marker(needed: Requirement) -> str:
    """``needed`` in words that hold wherever they are read."""
    bare = Requirement(str(needed))
    bare.marker = None
    return str(bare)


def closure(
    wanted: Iterable[Requirement], wheels: Iterable[Path], python: str, there: Mapping[str, str]
) -> tuple[list[Path], list[str]]:
    """Those of ``wheels`` that ``wanted`` come to in the guest, and what is missing there.

    ``there`` are packages of the image by name, with their version: they bring what they need.
    """
    found = {parse_wheel_filename(wheel.name)[0]: wheel for wheel in wheels}
    files, left = Files(), list(wanted)
    used: dict[Path, None] = {}
    missing: dict[str, None] = {}
    seen = set()
    while left:
        needed = left.pop(0)
        name = canonicalize_name(needed.name)
        wheel = found.get(name)
        version = str(parse_wheel_filename(wheel.name)[1]) if wheel else there.get(name)
        if version is None or not needed.specifier.contains(version, prereleases=True):
            missing[without_marker(needed)] = None
        elif wheel is not None and there.get(name) != version:
            used[wheel] = None
            for extra in sorted({"", *needed.extras}):
                if (name, extra) not in seen:
                    seen.add((name, extra))
                    left += requires(wheel, python, files, extra)
    return sorted(used), list(missing)

"""Whether the guest's pytest is one that the wheels can work with."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.wheels import DAMAGED

_PYTEST = "pytest"
_LARGEST = 16 << 20
"""What the description of a wheel may have, in bytes."""


def check_pytest(wheels: Sequence[Path], python: GuestPython, files: Files) -> None:
    """Raise UsageError when one of ``wheels`` requires another pytest than the guest will have.

    That is the last one among ``wheels``, else the image's.
    """
    own = [wheel.name.split("-")[1] for wheel in wheels if wheel.name.startswith(f"{_PYTEST}-")]
    version = own[-1] if own else python.pytest
    for wheel in wheels:
        for needed in _requires(wheel, python.version, files):
            if needed.name == _PYTEST and not needed.specifier.contains(version, prereleases=True):
                raise UsageError(
                    f"[guest] wheels: {wheel.name} requires {needed}, and the guest has pytest "
                    f"{version}; choose another in kernels.toml: "
                    f'[guest] pytest = "{needed.specifier}"'
                )


def _requires(wheel: Path, python: str, files: Files) -> Iterator[Requirement]:
    """What ``wheel`` requires without any extra; what cannot be read is told by who installs it."""
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
    guest = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    for line in HeaderParser().parsestr(text).get_all("Requires-Dist", []):
        try:
            needed = Requirement(line)
        except InvalidRequirement:
            continue
        if needed.marker is None or needed.marker.evaluate(guest):
            yield needed

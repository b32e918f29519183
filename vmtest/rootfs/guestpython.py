"""The Python of a guest image, its version and its pytest: read, and nothing of it runs here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import ImageError
from vmtest.host import interrupt
from vmtest.model.text import last_line
from vmtest.rootfs.disks import require

_PACKAGES = "usr/lib/python3/dist-packages"
_LINK = re.compile(r"/usr/bin/python3 -> python(3\.\d+)$", re.MULTILINE)
_PYTEST = re.compile(r"/pytest-([^/\s]+)\.(?:dist|egg)-info$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GuestPython:
    """The Python in the squashfs ``image``: ``version`` is ``3.13``, ``pytest`` ``8.3.5``."""

    image: Path
    version: str
    pytest: str


def python_of(image: Path) -> GuestPython:
    """The Python of a guest image of ours; raises ImageError."""
    tool = require("unsquashfs", "squashfs-tools")
    inside = ("usr/bin/python3", f"{_PACKAGES}/pytest-*")
    done = interrupt.run([tool, "-lln", str(image), *inside])
    version, pytest = _LINK.search(done.stdout), _PYTEST.search(done.stdout)
    if version is None or pytest is None:
        why = last_line(done.stderr) or "its packages do not tell"
        raise ImageError(f"guest image: {image} has no Python and pytest for wheels: {why}")
    return GuestPython(image, version[1], pytest[1])

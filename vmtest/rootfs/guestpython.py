"""The Python of a guest image: its version and its pytest, and what it compiles on this host."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import ImageError, InfrastructureError
from vmtest.host import interrupt
from vmtest.host.cache import require_tool
from vmtest.model.text import last_line

_PACKAGES = "usr/lib/python3/dist-packages"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
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
    done = _unsquashfs("-lln", str(image), "usr/bin/python3", f"{_PACKAGES}/pytest-*")
    version, pytest = _LINK.search(done.stdout), _PYTEST.search(done.stdout)
    if version is None or pytest is None:
        why = last_line(done.stderr) or "its packages do not tell"
        raise ImageError(f"guest image: {image} has no Python and pytest for wheels: {why}")
    return GuestPython(image, version[1], pytest[1])


def compile_tree(python: GuestPython, tree: Path, scratch: Path) -> None:
    """Compile the modules below ``tree``, which stands for the guest's /usr/local.

    The image's own interpreter does it, unpacked into the folder ``scratch``: the host may have
    another Python.  What it cannot compile, a template or a file for another Python, is left out;
    so is everything where the image has no such interpreter: then the guest compiles.
    """
    own = scratch / "python"
    _unsquashfs(
        *("-q", "-n", "-d", str(own), str(python.image), _LOADER),
        *(f"{_LIBRARIES}/{name}.so.*" for name in ("libc", "libm", "libz", "libexpat")),
        f"usr/bin/python{python.version}",
        f"usr/lib/python{python.version}",
    )
    if not (own / _LOADER).exists():
        return
    interrupt.run(
        [
            *(str(own / _LOADER), "--library-path", str(own / _LIBRARIES)),
            *(str(own / f"usr/bin/python{python.version}"), "-I", "-S", "-m", "compileall"),
            *("-q", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(tree), "-p", "/usr/local", str(tree / "lib")),
        ],
        merged=True,
    )


def _unsquashfs(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        tool = require_tool("unsquashfs", "squashfs-tools", "to look into the guest image")
    except InfrastructureError as error:
        raise ImageError(f"guest image: {error}") from None
    return interrupt.run([tool, *words])

"""Our own code that every guest has, and where it lies there."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vmtest.host.files import FileContent, Files, tar

GUEST_ROOT = "/tmp/vmtest"
"""Where the payload lies in the guest (a file system in its memory)."""


def guest_code(files: Files) -> dict[str, FileContent | bytes]:
    """Our own code that every payload has, by its place in the archive."""
    package = Path(__file__).parents[1]
    paths = (package / "__init__.py", *sorted((package / "guest").rglob("*.py")))
    return {f"vmtest/{path.relative_to(package)}": files.read(path) for path in paths}


@cache
def guest_archive() -> bytes:
    """The archive of it that is in a saved guest; read once, as it names the snapshot as well."""
    return tar(guest_code(Files()))

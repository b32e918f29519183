"""The index of a kernel's modules, which a guest and virtme-ng look things up in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import disk_full, require_tool
from vmtest.model.text import last_line

_INDEX = ("alias", "dep", "devname", "softdep", "symbols", "weakdep")
"""Of ``modules.*`` what depmod writes, beside all that ends in .bin."""


def index_modules(entry: Path, release: str, name: str) -> None:
    """Make the index of ``lib/modules/RELEASE`` in ``entry`` anew.

    One that came along is not taken: it can name any file of the host's as a module, which
    would end up in the guest.  Raises KernelUnavailable, for the kernel ``name``, and
    InfrastructureError where there is no depmod.
    """
    depmod = require_tool("depmod", "kmod", "to index a kernel's modules")
    modules = entry / "lib" / "modules" / release
    for file in modules.glob("modules.*"):
        if file.suffix == ".bin" or file.name.removeprefix("modules.") in _INDEX:
            file.unlink()
    # A depmod built for a merged /usr looks in usr/lib/modules, any other in lib/modules.
    usr = entry / "usr"
    usr.mkdir(exist_ok=True)
    link = usr / "lib"
    link.symlink_to(Path("..") / "lib")
    try:
        done = subprocess.run(
            [depmod, "-a", "-b", str(entry), release], capture_output=True, text=True, check=False
        )
    finally:
        link.unlink()
        usr.rmdir()
    if "No space left" in done.stderr:
        raise disk_full(entry, f"{name}: indexing the modules")
    if done.returncode != 0 or not (modules / "modules.dep").is_file():
        why = last_line(done.stderr) or f"exit status {done.returncode}"
        raise KernelUnavailable(f"{name}: depmod could not index the modules: {why}")

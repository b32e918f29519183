#!/usr/bin/env python3
"""What CI installs: only what a lock names, and only with its hashes.

``fetch LOCK FOLDER`` has pip bring all of the lock into the folder, which checks the hashes.
``install FOLDER WHAT...`` has pip install from that folder. It knows no other place then: what the
lock lacks is an error, also what a package needs to be built.

pip cannot do both at once: with hashes it takes no package that the project built itself, and no
requirement without a version, which is what tox gives it.
"""

import os
import shutil
import sys
from pathlib import Path

PIP = [sys.executable, "-I", "-m", "pip"]


def fetch(lock: Path, folder: Path) -> None:
    """Replace this process with the pip that fills ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)  # an older lock's files would be chosen too
    options = ["--quiet", "--require-hashes", "--only-binary", ":all:"]
    os.execv(PIP[0], [*PIP, "download", *options, "-r", str(lock), "-d", str(folder)])


def install(folder: Path, what: list[str]) -> None:
    """Replace this process with the pip that installs ``what`` from ``folder``."""
    # The settings of the host name indexes, and folders beside this one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    # As an address: pip takes a blank in a path for the end of it.
    only = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder.resolve().as_uri()}
    ours = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    os.execve(PIP[0], [*PIP, "install", "--quiet", *what], {**kept, **only, **ours})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fetch", lock, folder]:
            fetch(Path(lock), Path(folder))
        case ["install", folder, *what] if what:
            install(Path(folder), what)
        case _:
            sys.exit(__doc__)

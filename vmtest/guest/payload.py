# SPDX-License-Identifier: MIT
"""Where the payload's files lie in the guest."""

import hashlib
import os
import pathlib

BYTECODE = "bytecode"
"""The payload's file with code of the suites' modules, where the host keeps it."""

OBJECTS_VARIABLE = "VMTEST_OBJECTS"


def code_key(place: str, sha256: str) -> str:
    """What names the code of the module at `place` in the guest whose text has that digest."""
    return hashlib.sha256(f"{place}\0{sha256}".encode("utf-8", "surrogateescape")).hexdigest()


def object_path(name: str) -> pathlib.Path:
    """Path of the compiled BPF object `name` (without `.o`) in the folder `$VMTEST_OBJECTS`.

    Raises FileNotFoundError, naming what is there instead, if there is no such object, and
    RuntimeError if the variable is not set.
    """
    folder = os.environ.get(OBJECTS_VARIABLE)
    if not folder:
        raise RuntimeError(f"{OBJECTS_VARIABLE} is not set: it names the folder of the BPF objects")
    path = pathlib.Path(folder) / f"{name}.o"
    if not path.is_file():
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.o"))) or "none"
        raise FileNotFoundError(f"no BPF object {path.name} in {folder} (there: {there})")
    return path

# SPDX-License-Identifier: MIT
"""Where the payload's files lie in the guest."""

import os
import pathlib

OBJECTS_VARIABLE = "VMTEST_OBJECTS"


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

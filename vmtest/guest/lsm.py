# SPDX-License-Identifier: MIT
"""Whether the kernel calls BPF programs at its LSM hooks: only where the BPF LSM is active."""

import pathlib
import subprocess

from vmtest.guest.failures import Reason

_ACTIVE = pathlib.Path("/sys/kernel/security/lsm")
_FUNCTION = "bpf_lsm_"
"""What the functions are called that an active BPF LSM calls, and only that."""


def is_hooked(program_type: str, section: str) -> bool:
    """Whether a program is attached to an LSM hook: by its type, or to the hook's function."""
    target = section.partition("/")[2].partition("+")[0]
    return program_type == "lsm" or (
        program_type in ("tracing", "kprobe") and target.startswith(_FUNCTION)
    )


def never_called(program_type: str, section: str) -> Reason | None:
    """Why this kernel attaches such a program and never calls it; None if it does, or none knows.

    Mounts securityfs if nobody has.
    """
    if not is_hooked(program_type, section):
        return None
    _mount()
    return inactive(_ACTIVE)


def inactive(listed: pathlib.Path) -> Reason | None:
    """The reason, by the file `listed` that names the active LSMs: None if BPF is among them."""
    try:
        names = [name for name in listed.read_text().strip().split(",") if name]
    except OSError:
        return None  # a kernel that does not tell
    if "bpf" in names:
        return None
    # The kernel sets capability by itself.
    order = ",".join([*(name for name in names if name != "capability"), "bpf"])
    return Reason(
        "lsm-inactive",
        f"it is attached, and this kernel never calls it: the BPF LSM is not active "
        f"(active are: {', '.join(names) or 'none'})",
        f'boot it with the BPF LSM: cmdline = ["lsm={order}"] in its [[kernel]], or take a kernel '
        "with bpf in CONFIG_LSM",
        f"probe: {listed} has no bpf: {','.join(names)}",
        name="bpf",
    )


def _mount() -> None:
    if _ACTIVE.parent.is_dir() and not _ACTIVE.exists():
        mount = ["mount", "-t", "securityfs", "securityfs", str(_ACTIVE.parent)]
        subprocess.run(mount, check=False, capture_output=True)

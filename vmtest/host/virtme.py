"""virtme-ng as it is installed: where its command is, and what it needs around it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from vmtest.errors import InfrastructureError


def find_vng() -> Path:
    """The ``vng`` of this interpreter's environment, else of PATH.

    Raises InfrastructureError when there is none.
    """
    beside = Path(sys.executable).parent / "vng"
    found = str(beside) if beside.exists() else shutil.which("vng")
    if found is None:
        raise InfrastructureError(
            "vng is not installed next to this Python nor on PATH; "
            "install it with: pip install 'virtme-ng>=1.42'"
        )
    return Path(found)


def vng_environment(environment: Mapping[str, str], vng: Path, temporary: Path) -> dict[str, str]:
    """The environment for ``vng``: its helpers on PATH, its leftovers in the VM's folder.

    ``vng`` starts ``virtme-run`` by name through a shell; ``virtme_ret*`` files
    go to TMPDIR and stay there when it is killed.  ``/usr/sbin`` holds depmod.
    """
    path = environment.get("PATH", "/usr/bin:/bin")
    return {
        **environment,
        "PATH": f"{vng.parent}:{path}:/usr/sbin:/sbin",
        "TMPDIR": str(temporary),
        # Whoever looks at a QEMU can see whose it is.
        "VMTEST_RUNNER": str(os.getpid()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

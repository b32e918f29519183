"""Whether the guest's pytest is one that the wheels can work with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.needed import requires

_PYTEST = "pytest"


def check_pytest(wheels: Sequence[Path], python: GuestPython, files: Files) -> None:
    """Raise UsageError when one of ``wheels`` requires another pytest than the guest will have.

    That is the last one among ``wheels``, else the image's.
    """
    own = [wheel.name.split("-")[1] for wheel in wheels if wheel.name.startswith(f"{_PYTEST}-")]
    version = own[-1] if own else python.pytest
    for wheel in wheels:
        for needed in requires(wheel, python.version, files):
            if needed.name == _PYTEST and not needed.specifier.contains(version, prereleases=True):
                raise UsageError(
                    f"[guest] wheels: {wheel.name} requires {needed}, and the guest has pytest "
                    f"{version}; choose another in kernels.toml: "
                    f'[guest] pytest = "{needed.specifier}"'
                )

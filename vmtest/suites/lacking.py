"""The Python modules that the tests of a run asked for and the guest does not have.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vmtest.model.results import Matrix

_LACKS = re.compile(r"\bModuleNotFoundError: No module named '([A-Za-z_]\w*)")


def notes(matrix: Matrix) -> tuple[str, ...]:
    """How to bring each module that tests of ``matrix`` did not find, one note for all."""
    names = sorted(set(_lacking(matrix)))
    if not names:
        return ()
    packages = ", ".join(f'"python3-{name.lower().replace("_", "-")}"' for name in names)
    return (
        f"the guest has no Python module {', '.join(names)}: add the Debian package to "
        f"kernels.toml, mostly [guest] packages = [{packages}], or what pip calls it to "
        "[guest] requirements; what is the project's own comes with root and pythonpath of the "
        "[[suite]]",
    )


def _lacking(matrix: Matrix) -> Iterator[str]:
    for kernel in matrix.kernels:
        for test in kernel.tests:
            if test.outcome.bad:
                yield from _LACKS.findall(test.message)

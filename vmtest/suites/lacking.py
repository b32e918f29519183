"""The Python modules that the tests of a run asked for and the guest does not have.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmtest.model.results import Matrix
from vmtest.report.cures import LACKS, lacking


def notes(matrix: Matrix, root: str) -> tuple[str, ...]:
    """How to bring each module that tests of ``matrix`` did not find, one note for all.

    ``root`` is the guest's, as in kernels.toml: what is not built here gets no package from there.
    """
    names = sorted(set(_lacking(matrix)))
    if not names:
        return ()
    return (
        f"{LACKS} {', '.join(names)}: {_cure(names, root)}; "
        "what is the project's own comes with root and pythonpath of the [[suite]]",
    )


def _cure(names: Sequence[str], root: str) -> str:
    packages = [f"python3-{name.lower().replace('_', '-')}" for name in names]
    if root == "debian":
        quoted = ", ".join(f'"{package}"' for package in packages)
        return (
            f"add the Debian package to kernels.toml, mostly [guest] packages = [{quoted}], "
            "or what pip calls it to [guest] requirements"
        )
    if root == "host":
        return (
            'with root = "host" tests run in the Python that runs vmtest: install it there on '
            f"the host, with pip in a virtual environment, else as Debian's {', '.join(packages)}"
        )
    return f"install it in {root}, which the guest boots on"


def _lacking(matrix: Matrix) -> Iterator[str]:
    for kernel in matrix.kernels:
        for test in kernel.tests:
            if test.outcome.bad:
                yield from lacking(test.message)

"""The command that runs one cell of the page again, as patterns that its script fills in.  Pure.

A page with a hundred thousand cells has no room for a command each.
"""

from __future__ import annotations

from typing import Any

from vmtest.model.loads import LoadResult, Verdict, row_of
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import printable
from vmtest.report import loads
from vmtest.report.again import as_argument, command_of
from vmtest.report.causes import Cause
from vmtest.report.table import Line, Tone

_KERNEL, _SUITE, _OBJECT = "@kernel@", "@suite@", "@object@"
_NAME = "VMTEST__NAME"  # pytest takes it as a word of -k
_ANY = Line("", Tone.BAD)


def patterns(matrix: Matrix) -> dict[str, Any]:
    """What the page's script makes a command of.

    ``test`` names the test, ``suite`` only its suite, for a name that ``-k`` does not take;
    ``program`` and ``object`` are of a load; ``objects`` are the arguments, "" for one that is
    none.  A pattern is "" where no command is known.
    """
    return {
        "test": _of_a_test(matrix, _NAME),
        "suite": _of_a_test(matrix, "a b"),
        "program": _of_a_load(matrix, _NAME),
        "object": _of_a_load(matrix, ""),
        "objects": _arguments(matrix),
    }


def _of_a_test(matrix: Matrix, name: str) -> str:
    if not any(kernel.tests for kernel in matrix.kernels):
        return ""
    test = TestResult(f"t.py::{name}", _SUITE, Outcome.FAILED)
    kernel = KernelResult(_KERNEL, Status.FAILED, tests=(test,))
    return command_of(Cause(_ANY, "", "", (kernel,), False, tests=((kernel, test),)), matrix)


def _of_a_load(matrix: Matrix, program: str) -> str:
    if not any(kernel.loads for kernel in matrix.kernels):
        return ""
    load = LoadResult(_OBJECT, program, Verdict.REJECTED)
    kernel = KernelResult(_KERNEL, Status.FAILED, loads=(load,))
    return command_of(Cause(_ANY, "", "", (kernel,), False, loads=((kernel, load),)), matrix)


def _arguments(matrix: Matrix) -> list[str]:
    """How each object is named on a command line, in the order of ``loads.objects_of``."""
    owners: dict[str, str] = {}
    for kernel in matrix.kernels:
        for load in kernel.loads:
            owners.setdefault(load.object, load.object.removesuffix(row_of("", load.by)))
    names = (as_argument(owners.get(name, "")) for name in loads.objects_of(matrix))
    return [name if printable(name) == name and "\n" not in name else "" for name in names]

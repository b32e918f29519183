"""What did not run and why: tests that a kernel did not reach, kernels that ran none.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vmtest.model.loads import Verdict
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.model.text import one_line, printable
from vmtest.report.table import unreached

_MOST = 200  # names of one row
_LISTED_NONE = (Status.BOOT_FAILED, Status.INFRA_ERROR, Status.CANCELLED, Status.PANICKED)


@dataclass(frozen=True, slots=True)
class Unrun:
    """What some kernels did not run, for the same reason; ``count`` is that of a kernel.

    ``labels`` are the first of them; none where nothing is known but that it was everything.
    """

    kernels: tuple[str, ...]
    reason: str
    labels: tuple[str, ...]
    count: int

    @property
    def more(self) -> int:
        """How many have no label here."""
        return self.count - len(self.labels)


def unrun(matrix: Matrix) -> tuple[Unrun, ...]:
    """The tests and programs that did not run; kernels that agree are one."""
    tests = [(one.kernels, one.reason, one.labels) for one in unreached(matrix)]
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for kernel in matrix.kernels:
        groups: dict[str, list[str]] = {}
        for load in kernel.loads:
            if load.verdict is Verdict.NOT_LOADED:
                reason = one_line(load.line) or why(kernel)
                groups.setdefault(reason, []).append(printable(load.label))
        if not (kernel.tests or kernel.loads) and kernel.status in _LISTED_NONE:
            groups[why(kernel)] = []
        for reason, names in groups.items():
            found.setdefault((reason, tuple(names)), []).append(printable(kernel.kernel))
    loads = [(tuple(kernels), reason, names) for (reason, names), kernels in found.items()]
    return tuple(
        Unrun(kernels, reason, names[:_MOST], len(names))
        for kernels, reason, names in (*tests, *loads)
    )


def why(kernel: KernelResult) -> str:
    """Why a kernel did not reach all: ``PANICKED: kernel panicked ...``."""
    reason = one_line(kernel.reason)
    return f"{kernel.status.value}: {reason}" if reason else kernel.status.value

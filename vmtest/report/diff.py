"""Two runs compared: what fails anew, is mended, still fails, is slower or skipped now.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmtest.model.loads import LoadResult
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import one_line, printable
from vmtest.report.assertions import said
from vmtest.report.table import WELL, WRONG, labels_of

NEW, FIXED, STILL, SKIPPED, SLOWER, KERNEL, UNSEEN = (
    "new failure",
    "fixed",
    "still failing",
    "newly skipped",
    "slower",
    "kernel",
    "not there before",
)
"""What a change is; ``kernel`` is one of a kernel that no test or load of its own tells.

``not there before`` is a failure of what the earlier run has no result of.
"""

_SLOWER, _LEAST = 3.0, 1.0  # times, and seconds more
_TOLD = (NEW, KERNEL, UNSEEN, SLOWER, SKIPPED, STILL, FIXED)


@dataclass(frozen=True, slots=True)
class Difference:
    """One test, load or kernel that is not what it was, or still fails; ``kernels`` agree."""

    kind: str
    label: str
    words: str
    kernels: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether the later run is worse for it."""
        return self.kind in (NEW, KERNEL)


def compare(before: Matrix, after: Matrix) -> tuple[Difference, ...]:
    """What ``after`` has that ``before`` had otherwise, worst first.

    Kernels of one run alone are no difference, and neither is what ``after`` did not reach.  A test
    of ``after`` alone is one if it fails.
    """
    old = {kernel.kernel: kernel for kernel in before.kernels}
    found: dict[tuple[str, str, str], list[str]] = {}
    labels = labels_of(after)
    for kernel in after.kernels:
        if kernel.kernel not in old:
            continue
        for key in _of_kernel(old[kernel.kernel], kernel, labels):
            found.setdefault(key, []).append(printable(kernel.kernel))
    return tuple(
        Difference(*key, tuple(kernels))
        for key, kernels in sorted(found.items(), key=lambda item: _TOLD.index(item[0][0]))
    )


_Key = tuple[str, str, str]


def _of_kernel(
    old: KernelResult, new: KernelResult, labels: dict[tuple[str, str], str]
) -> Iterable[_Key]:
    found = [*_of_tests(old, new, labels), *_of_loads(old, new)]
    yield from found
    told = any(kind == NEW for kind, *_ in found) or new.status is Status.FAILED
    if new.status not in WELL and old.status in WELL and not (_results(new) and told):
        yield KERNEL, "kernel", f"{new.status.value}: {one_line(new.reason)}"


def _of_tests(
    old: KernelResult, new: KernelResult, labels: dict[tuple[str, str], str]
) -> Iterable[_Key]:
    tests = {(test.suite, test.test): test for test in old.tests}
    for test in new.tests:
        key = (test.suite, test.test)
        if kind := _of_test(tests.get(key), test):
            yield kind, labels[key], _words(kind, tests.get(key), test)


def _of_loads(old: KernelResult, new: KernelResult) -> Iterable[_Key]:
    loads = {(load.object, load.program): load for load in old.loads}
    for load in new.loads:
        before = loads.get((load.object, load.program))
        if kind := _of_load(before, load):
            why = one_line(load.reason.text if load.reason else load.line)
            yield kind, printable(load.label), f"{load.verdict}{f': {why}' if why else ''}"


def failures(kernel: KernelResult) -> int:
    """How many tests and loads of it went wrong; 1 for a kernel that did so as a whole."""
    return _results(kernel) or int(kernel.status not in WELL)


def _results(kernel: KernelResult) -> int:
    tests = sum(test.outcome in WRONG for test in kernel.tests)
    return tests + sum(load.verdict.bad for load in kernel.loads)


def _of_test(old: TestResult | None, new: TestResult) -> str:
    unreached = (Outcome.NOT_RUN, Outcome.COLLECTED)
    if new.outcome in unreached:
        return ""
    if old is None or old.outcome in unreached:
        return UNSEEN if new.outcome in WRONG else ""
    if new.outcome in WRONG:
        return STILL if old.outcome in WRONG else NEW
    if old.outcome in WRONG:
        return FIXED if new.outcome.ran else SKIPPED
    if old.outcome.ran and not new.outcome.ran:
        return SKIPPED
    longer = new.duration - old.duration
    slower = longer > _LEAST and new.duration > _SLOWER * old.duration
    return SLOWER if slower and old.outcome.ran else ""


def _words(kind: str, old: TestResult | None, new: TestResult) -> str:
    if old is not None and kind == SLOWER:
        return f"{old.duration:.1f} s -> {new.duration:.1f} s"
    if old is not None and kind == FIXED:
        return f"{old.outcome} -> {new.outcome}"
    return said(new)


def _of_load(old: LoadResult | None, new: LoadResult) -> str:
    if old is None:
        return UNSEEN if new.verdict.bad else ""
    if new.verdict.bad:
        return STILL if old.verdict.bad else NEW
    return FIXED if old.verdict.bad else ""

"""``--last-failed`` and ``--failed-first``: which tests did not pass in earlier runs.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from vmtest.errors import UsageError
from vmtest.matrix.payload import FAILED
from vmtest.model.project import Suite
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.vm.guest_code import GUEST_ROOT

PLACE = f"{GUEST_ROOT}/{FAILED}"
"""Where the guest finds them."""
NONE_THERE = (
    "pytest found none of the tests that failed in the last runs: they were deleted or renamed, or "
    "another option leaves them out; run once without --last-failed"
)
_LEFT = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED, Outcome.LOST, Outcome.NOT_RUN)


@dataclass(frozen=True, slots=True)
class Failed:
    """The tests that did not pass, by kernel; None for a kernel that ran none of its tests.

    Each is a suite and a node id.  With ``only`` the others do not run, else they run behind;
    ``none_there`` is said where pytest finds none.
    """

    tests: Mapping[str, frozenset[tuple[str, str]] | None]
    only: bool
    none_there: str = NONE_THERE

    def for_guest(self, kernel: str) -> bytes:
        """The JSON for ``vmtest.guest.plugins.failed``; b"" where every test is to run."""
        tests = self.tests.get(kernel)
        if not tests:
            return b""
        return json.dumps({"tests": sorted(test for _, test in tests), "only": self.only}).encode()

    def absent(self, kernel: str) -> str:
        """Why ``kernel`` has no tests where pytest finds none, "" where all of them may run."""
        return self.none_there if self.only and self.tests.get(kernel) else ""

    def of(self, chosen: tuple[Suite, ...]) -> Failed:
        """Those of the suites that were ``chosen``; a kernel with none of them is left out."""
        names = {suite.name for suite in chosen}
        kept = {
            kernel: tests and frozenset(test for test in tests if test[0] in names)
            for kernel, tests in self.tests.items()
        }
        left = {name: tests for name, tests in kept.items() if tests is None or tests}
        return replace(self, tests=left)

    def suites(self, chosen: tuple[Suite, ...]) -> tuple[Suite, ...]:
        """Those of ``chosen`` that have something to run; raises UsageError where none has."""
        if not self.only or None in self.tests.values():
            return chosen
        names = {suite for tests in self.tests.values() for suite, _ in tests or ()}
        left = tuple(suite for suite in chosen if suite.name in names)
        if not left:
            raise UsageError(
                "nothing that was chosen failed in the last runs, so there is nothing to run "
                "again; leave --last-failed out"
            )
        return left


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier run; it is ``whole`` where nothing left tests of its suites out."""

    matrix: Matrix
    whole: bool = False


def failed(runs: Iterable[Earlier], *, only: bool) -> Failed:
    """What did not pass by the newest result of each test; ``runs`` come newest first.

    Runs that listed their tests, loaded objects or ran a command say nothing of tests.  A kernel
    that failed although no test did runs all of them.
    """
    kernels: dict[str, _Newer] = {}
    for run in runs:
        if run.matrix.command or not run.matrix.suites:
            continue
        for kernel in run.matrix.kernels:
            if kernel.status is not Status.COLLECTED:
                kernels.setdefault(kernel.kernel, _Newer()).add(kernel, run.whole)
    found = {
        name: None if newer.everything else frozenset(newer.left) for name, newer in kernels.items()
    }
    return Failed({name: tests for name, tests in found.items() if tests != frozenset()}, only)


@dataclass(slots=True)
class _Newer:
    """What the runs of a kernel say, from the newest on.

    ``left`` did not pass; ``rows`` have a result, ``seen`` are these and what they are in;
    ``whole`` are the suites all of whose tests a run had.
    """

    left: set[tuple[str, str]] = field(default_factory=set)
    everything: bool = False
    rows: set[tuple[str, str]] = field(default_factory=set)
    seen: set[tuple[str, str]] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)

    def add(self, kernel: KernelResult, whole: bool) -> None:
        """Take what an older run says beyond the newer ones."""
        if not kernel.tests:
            self.everything |= kernel.status is not Status.PASSED and not self.rows
            return
        new = [test for test in kernel.tests if not self._outdated(test)]
        self.left |= {(test.suite, test.test) for test in new if test.outcome in _LEFT}
        told = any(test.outcome in _LEFT for test in kernel.tests)
        # As with a complaint of the kernel, or a process that ended badly.
        self.everything |= bool(new) and not told and kernel.status is not Status.PASSED
        for test in kernel.tests:
            self.rows.add((test.suite, test.test))
            self.seen |= {(test.suite, name) for name in (test.test, *_above(test.test))}
            if whole and "::" in test.test:  # pytest had come through all files
                self.whole.add(test.suite)

    def _outdated(self, test: TestResult) -> bool:
        """Whether a newer run has a result of it, or of what is in it, or shows that it is gone."""
        if (test.suite, test.test) in self.seen:
            return True
        unread = any((test.suite, name) in self.rows for name in _above(test.test))
        return test.suite in self.whole and not unread


def _above(test: str) -> Iterator[str]:
    """The folders, the module and the classes that a test is in."""
    file, _, inside = test.partition("::")
    yield from (str(folder) for folder in PurePosixPath(file).parents[:-1])
    names = inside.split("[", 1)[0].split("::") if inside else []
    yield from ("::".join([file, *names[:number]]) for number in range(len(names)))

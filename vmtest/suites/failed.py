"""``--last-failed`` and ``--failed-first``: which tests did not pass in earlier runs.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmtest.errors import UsageError
from vmtest.matrix.payload import FAILED, GUEST_ROOT
from vmtest.model.project import Suite
from vmtest.model.results import KernelResult, Matrix, Outcome, Status

PLACE = f"{GUEST_ROOT}/{FAILED}"
"""Where the guest finds them."""
_LEFT = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED, Outcome.LOST, Outcome.NOT_RUN)


@dataclass(frozen=True, slots=True)
class Failed:
    """The tests that did not pass, by kernel; None for a kernel that ran none of its tests.

    Each is a suite and a node id.  With ``only`` the others do not run, else they run behind.
    """

    tests: Mapping[str, frozenset[tuple[str, str]] | None]
    only: bool

    def for_guest(self, kernel: str) -> bytes:
        """The JSON for ``vmtest.guest.plugins.failed``; b"" where every test is to run."""
        tests = self.tests.get(kernel)
        if not tests:
            return b""
        return json.dumps({"tests": sorted(test for _, test in tests), "only": self.only}).encode()

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


def failed(matrices: Iterable[Matrix], *, only: bool) -> Failed:
    """What did not pass by the newest result of each test; ``matrices`` come newest first.

    Runs that listed their tests, loaded objects or ran a command say nothing of tests.
    """
    left: dict[str, set[tuple[str, str]] | None] = {}
    seen: set[tuple[str, str, str]] = set()
    for matrix in matrices:
        if matrix.command or not matrix.suites:
            continue
        for kernel in matrix.kernels:
            _of_kernel(kernel, left, seen)
    found = {name: None if tests is None else frozenset(tests) for name, tests in left.items()}
    return Failed({name: tests for name, tests in found.items() if tests != frozenset()}, only)


def _of_kernel(
    kernel: KernelResult,
    left: dict[str, set[tuple[str, str]] | None],
    seen: set[tuple[str, str, str]],
) -> None:
    if kernel.status is Status.COLLECTED:
        return
    if not kernel.tests:
        if kernel.status is not Status.PASSED:
            left.setdefault(kernel.kernel, None)
        return
    tests = left.setdefault(kernel.kernel, set())
    for test in kernel.tests:
        key = (kernel.kernel, test.suite, test.test)
        if tests is not None and key not in seen and test.outcome in _LEFT:
            tests.add((test.suite, test.test))
        seen.add(key)

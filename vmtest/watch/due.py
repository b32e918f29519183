"""What a change makes due, and in which order: pure.

Objects are verified first, then the suites that failed before, then the others.  What was
cancelled stays due, until it is done or other bytes take its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Matrix, Outcome, Status

_FINE = (
    Outcome.PASSED,
    Outcome.SKIPPED,
    Outcome.XFAILED,
    Outcome.NOT_APPLICABLE,
    Outcome.COLLECTED,
)


class What(StrEnum):
    """What is watched: objects alone, or suites as well."""

    RUN = "run"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What results depend on, after a build.

    ``objects`` has the digests of each object's builds by its name (or its path, where it was
    named by that), ``tests`` a digest of all that a suite's tests are made of by the suite's name,
    in the order of kernels.toml; ``parts`` the digests of what kernels and guest image are
    made of.  Suites that are not watched are not in it.
    """

    settings: Config
    objects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tests: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One matrix: the objects ``names`` verified, or the suites ``names`` run."""

    what: What
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Due:
    """Objects that are to be verified and suites that are to run."""

    objects: frozenset[str] = frozenset()
    suites: frozenset[str] = frozenset()

    def __or__(self, other: Due) -> Due:
        return Due(self.objects | other.objects, self.suites | other.suites)


def due_after(before: Inputs | None, now: Inputs) -> Due:
    """What the change from ``before`` to ``now`` makes due; everything, where all may differ."""
    if before is None or before.settings != now.settings or before.parts != now.parts:
        return Due(frozenset(now.objects), frozenset(now.tests))
    objects = {name for name, digests in now.objects.items() if before.objects.get(name) != digests}
    suites = {
        suite.name
        for suite in now.settings.suites
        if suite.name in now.tests
        and (
            before.tests.get(suite.name) != now.tests[suite.name]
            or not objects.isdisjoint(suite.objects)
        )
    }
    return Due(frozenset(objects), frozenset(suites))


def gives_way(stage: Stage, before: Inputs, now: Inputs) -> bool:
    """Whether ``stage``, which runs with ``before``, is outdated or in the way with ``now``.

    A verifier's verdict is what is waited for: suites give way to any object that changed.
    """
    due = due_after(before, now)
    if stage.what is What.VERIFY:
        return not due.objects.isdisjoint(stage.names)
    return bool(due.objects) or not due.suites.isdisjoint(stage.names)


@dataclass(frozen=True, slots=True)
class State:
    """Where a watch is: the last ``inputs``, what is ``due``, which suites ``failed``.

    ``held``: nothing is done until the next save, as after a build that failed.
    """

    inputs: Inputs | None = None
    due: Due = Due()
    failed: frozenset[str] = frozenset()
    held: bool = False

    def built(self, now: Inputs) -> State:
        """The state after a build that came to ``now``: what is no longer there is not due."""
        due = self.due | due_after(self.inputs, now)
        due = Due(due.objects & now.objects.keys(), due.suites & now.tests.keys())
        return State(now, due, self.failed & now.tests.keys())

    def hold(self) -> State:
        """The state until the next save."""
        return replace(self, held=True)

    def done(self, stage: Stage, failed: Iterable[str] = ()) -> State:
        """The state after ``stage`` ran to its end; ``failed`` are those of its suites that did."""
        names = frozenset(stage.names)
        if stage.what is What.VERIFY:
            return replace(self, due=Due(self.due.objects - names, self.due.suites))
        due = Due(self.due.objects, self.due.suites - names)
        return replace(self, due=due, failed=self.failed - names | frozenset(failed))

    @property
    def next(self) -> Stage | None:
        """What is done next; None when there is nothing to do until the next save."""
        if self.held or self.inputs is None:
            return None
        objects = tuple(name for name in self.inputs.objects if name in self.due.objects)
        if objects:
            return Stage(What.VERIFY, objects)
        suites = tuple(name for name in self.inputs.tests if name in self.due.suites)
        failed = tuple(name for name in suites if name in self.failed)
        if failed or suites:
            return Stage(What.RUN, failed or suites)
        return None


def failed_suites(matrix: Matrix, suites: Iterable[str]) -> frozenset[str]:
    """Those of ``suites`` that did not pass on some kernel of ``matrix``.

    A kernel that died or did not boot has failed all suites of which it has not every test.
    """
    return frozenset(
        suite for suite in suites if any(_failed(kernel, suite) for kernel in matrix.kernels)
    )


def _failed(kernel: KernelResult, suite: str) -> bool:
    outcomes = [test.outcome for test in kernel.tests if test.suite == suite]
    if any(outcome not in _FINE for outcome in outcomes):
        return True
    return not outcomes and kernel.status is not Status.PASSED

"""Results: of a test, of a kernel, of the matrix; and the exit status that follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from vmtest.model.loads import Change, LoadResult, LoadSet, Verdict
from vmtest.model.splats import fingerprint

SCHEMA = 1
"""Version of the schema of ``matrix.json``; raised when a reader would misread it."""


class Status(StrEnum):
    """What became of one kernel."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    COLLECTED = "COLLECTED"
    """Its tests were listed (``--collect-only``); none was meant to run."""
    NO_TESTS = "NO_TESTS"
    BOOT_FAILED = "BOOT_FAILED"
    PANICKED = "PANICKED"
    TIMED_OUT = "TIMED_OUT"
    LOST = "LOST"
    SPLAT = "SPLAT"
    INFRA_ERROR = "INFRA_ERROR"
    CANCELLED = "CANCELLED"


class Outcome(StrEnum):
    """What became of one test on one kernel."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"
    NOT_APPLICABLE = "not applicable"
    LOST = "lost"
    NOT_RUN = "not run"
    COLLECTED = "collected"
    """Listed, and not meant to run."""

    @property
    def bad(self) -> bool:
        """Whether this outcome makes its kernel fail."""
        return self in (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED)

    @property
    def ran(self) -> bool:
        """Whether the test began on its kernel, and was meant for it."""
        return self not in (
            Outcome.SKIPPED,
            Outcome.NOT_APPLICABLE,
            Outcome.NOT_RUN,
            Outcome.COLLECTED,
        )


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test on one kernel.

    ``test`` is pytest's node id, ``duration`` seconds in the guest, ``message``
    one line, ``details`` the assertion with its context, ``output`` and ``stderr`` what the
    test wrote (``stderr`` also what it logged), ``kernel_log`` what the kernel said meanwhile.
    ``file``, relative to the folder of kernels.toml, and ``line``, from 1, are where
    it went wrong, else where it is defined ("" and 0 where that is not known).  ``phase`` is that
    in which it failed or skipped: collect, setup, call, teardown ("" for one that passed).
    ``started`` is UTC, ISO 8601, and ``uptime`` the seconds since the guest's kernel began, both
    when the test started.
    """

    __test__: ClassVar[bool] = False  # pytest would collect it by its name

    test: str
    suite: str
    outcome: Outcome
    duration: float = 0.0
    message: str = ""
    details: str = ""
    output: str = ""
    flaky: bool = False
    file: str = ""
    line: int = 0
    stderr: str = ""
    kernel_log: str = ""
    phase: str = ""
    started: str = ""
    uptime: float = 0.0


@dataclass(frozen=True, slots=True)
class Repeated:
    """How often a test of ``--repeat`` failed (``failed``, ``error``), of how often it ``ran``."""

    suite: str
    test: str
    failed: int
    ran: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """A complaint of the kernel that counts; ``test`` ran when it came ("" where none did)."""

    text: str
    fingerprint: str
    test: str = ""

    @property
    def meanwhile(self) -> str:
        """`` while TEST ran``, "" where that is not known."""
        return f" while {self.test} ran" if self.test else ""

    @property
    def told(self) -> str:
        """Its text, and a line with its fingerprint and its test."""
        meanwhile = f";{self.meanwhile}" if self.test else ""
        return f"{self.text}\n(fingerprint: {self.fingerprint}{meanwhile})"


@dataclass(frozen=True, slots=True)
class KnownComplaint:
    """A complaint of the kernel that does not count; ``reason`` is its entry's in kernels.toml.

    ``test`` ran when it came ("" where none did).
    """

    text: str
    fingerprint: str
    reason: str
    test: str = ""


@dataclass(frozen=True, slots=True)
class KernelResult:
    """One kernel of a matrix; ``reason`` says in a sentence why it is not PASSED.

    Durations are seconds of wall time on the host; ``factor`` is what the
    deadlines were multiplied with; ``directory`` holds its logs; ``objects``
    has the name and sha256 of each object that was copied in, by name;
    ``guest`` is the digest of the guest's root; ``loads`` is what ``vmtest verify`` found,
    ``against`` the loads of other builds in the same boot, ``changes`` how the loads
    differ from those or from a baseline; ``exit_status`` is that of the command that
    ``vmtest exec`` ran to its end; ``programs`` are the patterns of ``--program``, none
    when all programs were asked for; ``libbpf`` is the version of the guest's libbpf, "" where
    that was not seen; ``start`` is warm when its guests were restored from a snapshot, cold when
    they booted, cold+warm when some did, "" where none came up; ``counts`` are the things for which
    ``vmtest verify`` failed it, each with its number: ``reason`` begins with them;
    ``fingerprints`` has that of each of ``splats``, in their order, and ``splat_tests`` the test
    that ran when it came ("" where none did); ``known_splats`` are those that do not count;
    ``console_log`` is the file in ``directory`` that ``console_tail`` is the end of; ``repeated``
    are the tests of ``--repeat``, with how often each failed.
    """

    kernel: str
    status: Status
    version: str = ""
    release: str = ""
    accelerator: str = ""
    start: str = ""
    tests: tuple[TestResult, ...] = ()
    reason: str = ""
    note: str = ""
    boot_seconds: float = 0.0
    duration: float = 0.0
    factor: float = 1.0
    splats: tuple[str, ...] = ()
    console_tail: tuple[str, ...] = ()
    console_log: str = "console.log"
    directory: str = ""
    digest: str = ""
    gate: bool = True
    objects: tuple[tuple[str, str], ...] = ()
    guest: str = ""
    loads: tuple[LoadResult, ...] = ()
    against: LoadSet | None = None
    changes: tuple[Change, ...] = ()
    exit_status: int | None = None
    programs: tuple[str, ...] = ()
    libbpf: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    fingerprints: tuple[str, ...] = ()
    splat_tests: tuple[str, ...] = ()
    known_splats: tuple[KnownComplaint, ...] = ()
    repeated: tuple[Repeated, ...] = ()

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        """Each complaint that counts, also in a file of an older vmtest."""
        known = len(self.fingerprints) == len(self.splats)
        prints = self.fingerprints if known else tuple(map(fingerprint, self.splats))
        of = self.splat_tests if len(self.splat_tests) == len(self.splats) else ("",) * len(prints)
        return tuple(map(Complaint, self.splats, prints, of))

    @property
    def came_to_something(self) -> bool:
        """Whether a test ran or a load was made, or the tests were listed as was asked."""
        if self.status is Status.COLLECTED:
            return True
        if self.tests or self.loads:
            ran = any(test.outcome.ran for test in self.tests)
            return ran or any(load.verdict is not Verdict.NOT_LOADED for load in self.loads)
        return _EXIT_OF_STATUS[self.status] in (0, 1)

    @property
    def has_console(self) -> bool:
        """Whether a VM was started for it, which wrote a ``console_log``."""
        booted = self.start or self.boot_seconds or self.status is Status.BOOT_FAILED
        return bool(booted or self.console_tail)

    def count(self, *outcomes: Outcome) -> int:
        """How many tests ended in one of ``outcomes``."""
        return sum(test.outcome in outcomes for test in self.tests)


def with_complaints(result: KernelResult, of: Iterable[KernelResult]) -> KernelResult:
    """``result`` with the complaints of all of ``of``, in their order, and no others."""
    each = tuple(of)
    complaints = [complaint for one in each for complaint in one.complaints]
    return replace(
        result,
        splats=tuple(one.text for one in complaints),
        fingerprints=tuple(one.fingerprint for one in complaints),
        splat_tests=tuple(one.test for one in complaints),
        known_splats=tuple(known for one in each for known in one.known_splats),
    )


def counted(counts: Sequence[tuple[str, int]]) -> str:
    """Counts in words, as the reason of a kernel has them: ``3 rejected, 1 regressed``."""
    return ", ".join(f"{number} {what}" for what, number in counts)


@dataclass(frozen=True, slots=True)
class Matrix:
    """All kernels of one run, in the order of kernels.toml.

    ``suites`` keeps the order of the rows; ``started`` is UTC, ISO 8601; ``notes``
    say what the user should know of no kernel in particular, a line each; ``command``
    is what ``vmtest exec`` ran, empty for a run of suites.  ``again`` is the command line that ran
    it, in groups: the command, each option with its value, what follows ``--``; without kernels,
    reports and secrets.  It is ``call`` for a call of the API or of the pytest plugin, which no
    command line does again, and empty where that is not known.
    """

    schema: int
    run: str
    started: str
    duration: float
    suites: tuple[str, ...]
    kernels: tuple[KernelResult, ...]
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    again: tuple[tuple[str, ...], ...] = ()


OWN_FAULT = 125
"""Exit status for a fault of vmtest's own where others are the guest's."""
_EXIT_OF_STATUS = {
    Status.PASSED: 0,
    Status.COLLECTED: 0,
    Status.FAILED: 1,
    Status.PANICKED: 1,
    Status.TIMED_OUT: 1,
    Status.LOST: 1,
    Status.SPLAT: 1,
    Status.BOOT_FAILED: 3,
    Status.INFRA_ERROR: 3,
    Status.NO_TESTS: 5,
    Status.CANCELLED: 130,
}


def exit_status(matrix: Matrix) -> int:
    """The command's exit status for ``matrix``: where several hold, 130, 2, 1, 3, 5.

    A kernel with ``gate = false`` is shown but does not decide.  0 takes that something ran
    as well: on a kernel with a gate, or where none has one, on any.  The status of a
    command in a single kernel is passed on, with 125 for faults of the infrastructure.
    """
    if matrix.interrupted:
        return 130
    status = _gravest(matrix)
    if status or not ran_nothing(matrix):
        return status
    faults = any(_EXIT_OF_STATUS[kernel.status] == 3 for kernel in matrix.kernels)
    return 3 if faults else 5


def ran_nothing(matrix: Matrix) -> bool:
    """Whether nothing ran on the kernels that decide: those with a gate, else all."""
    deciding = [kernel for kernel in matrix.kernels if kernel.gate] or matrix.kernels
    return not any(kernel.came_to_something for kernel in deciding)


def _gravest(matrix: Matrix) -> int:
    if matrix.command and len(matrix.kernels) == 1:
        (only,) = matrix.kernels
        own = _EXIT_OF_STATUS[only.status]
        return only.exit_status or (OWN_FAULT if own == 3 else own)
    found = {_EXIT_OF_STATUS[kernel.status] for kernel in matrix.kernels if kernel.gate}
    return next((code for code in (130, 2, 1, 3, 5) if code in found), 0)

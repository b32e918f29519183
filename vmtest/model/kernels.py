"""The values that travel through vmtest: frozen, comparable, picklable, without I/O.

``Kernel`` (what was asked) becomes ``KernelImage`` (files in the store), which
becomes ``KernelResult`` (what happened), which many of make a ``Matrix``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import total_ordering
from pathlib import Path
from typing import Any, ClassVar, Literal

from vmtest.model.loads import Change, LoadResult, LoadSet, Verdict

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


class Network(StrEnum):
    """What network card a VM has; NONE is false."""

    NONE = ""
    CLOSED = "closed"
    """A card with an address and nobody behind it."""
    OUTBOUND = "outbound"
    """A card that reaches what the host reaches, and the host's own loopback."""


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


_VERSION = re.compile(r"^v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~]?rc(\d+))?")
_CONSTRAINT = re.compile(r"^(>=|<=|==|!=|>|<)\s*v?(\d+(?:\.\d+){0,2})$")


@total_ordering
@dataclass(frozen=True, slots=True)
class KernelVersion:
    """An upstream version such as 6.12.117 or 7.3-rc2; release candidates sort before it.

    ``text`` is what it was parsed from (a Debian package version, a release
    string) and does not take part in comparisons.
    """

    major: int
    minor: int
    patch: int
    rc: int | None
    text: str

    @classmethod
    def parse(cls, text: str) -> KernelVersion:
        """Read the leading version of ``text``; raises ValueError when there is none."""
        match = _VERSION.match(text)
        if match is None:
            raise ValueError(f"{text!r} does not begin with a kernel version such as 6.12.117")
        major, minor, patch, rc = match.groups()
        return cls(int(major), int(minor), int(patch or 0), int(rc) if rc else None, text)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Major, minor and patch."""
        return (self.major, self.minor, self.patch)

    @property
    def _key(self) -> tuple[int, int, int, int]:
        final = 1 << 30
        return (*self.numbers, final if self.rc is None else self.rc)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelVersion) and self._key == other._key

    def __lt__(self, other: KernelVersion) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        rc = "" if self.rc is None else f"-rc{self.rc}"
        patch = f".{self.patch}" if self.patch or self.rc is None else ""
        return f"{self.major}.{self.minor}{patch}{rc}"


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A conjunction of constraints such as ``>=6.1,<6.13``.

    A constraint compares as many numbers as it names: ``<=6.12`` and ``==6.12``
    hold for every 6.12.x, ``>6.12`` for none of them.
    """

    constraints: tuple[tuple[str, tuple[int, ...]], ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read ``text``; raises ValueError naming the part that is no constraint."""
        constraints = []
        for part in text.split(","):
            match = _CONSTRAINT.match(part.strip())
            if match is None:
                raise ValueError(
                    f"{part.strip()!r} is no version constraint; write for example '>=6.1,<6.13'"
                )
            numbers = tuple(int(n) for n in match.group(2).split("."))
            constraints.append((match.group(1), numbers))
        return cls(tuple(constraints), text)

    @staticmethod
    def looks_like(text: str) -> bool:
        """Whether ``text`` is meant as a range (rather than a name)."""
        return text[:1] in "<>=!" and text != ""

    def __contains__(self, version: KernelVersion) -> bool:
        def holds(operator: str, wanted: tuple[int, ...]) -> bool:
            have = version.numbers[: len(wanted)]
            tests: dict[str, bool] = {
                ">=": have >= wanted,
                "<=": have <= wanted,
                ">": have > wanted,
                "<": have < wanted,
                "==": have == wanted,
                "!=": have != wanted,
            }
            return tests[operator]

        return all(holds(operator, wanted) for operator, wanted in self.constraints)


@dataclass(frozen=True, slots=True)
class AptSpec:
    """A kernel from the Debian suites of the archive ``archive`` in kernels.toml.

    ``version`` is an exact upstream or package version, or a pattern that ends
    in ``.*`` (the newest match), or ``*``.  ``suites`` narrows the archive's.
    """

    archive: str
    version: str
    suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathSpec:
    """A kernel from files: vmlinuz, bzImage or ELF, its modules and its config."""

    image: Path
    modules: Path | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A .deb or .rpm: its path, or its URL, which has a ``sha256`` (in hex) always."""

    place: Path | str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class PackageSpec:
    """A kernel from package files: one holds the image, the same or others the modules."""

    files: tuple[PackageFile, ...]


@dataclass(frozen=True, slots=True)
class MainlineSpec:
    """A tag of upstream's (``v6.6.17``) as Ubuntu's mainline archive builds it."""

    version: str


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """A kernel built from the git tree at ``path``.

    ``rev`` None is its present state; ``config`` a fragment on top of ours.
    """

    path: Path
    rev: str | None = None
    config: Path | None = None


KernelSpec = AptSpec | PathSpec | PackageSpec | MainlineSpec | TreeSpec
"""What kernels.toml asks for, one kind a source."""


@dataclass(frozen=True, slots=True)
class LockedSpec:
    """A kernel as kernels.lock has it: ``exact`` is what its source would be asked for.

    ``key``, ``version``, ``origin`` and ``digest`` are those of a ``Resolved``.
    """

    exact: KernelSpec
    key: str
    version: str
    origin: str
    digest: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds, as configured for KVM; scaled when emulated."""

    boot: float
    silence: float
    total: float


@dataclass(frozen=True, slots=True)
class Kernel:
    """One ``[[kernel]]`` of kernels.toml: what was asked for."""

    name: str
    spec: KernelSpec | LockedSpec
    tags: tuple[str, ...] = ()
    gate: bool = True
    memory_mib: int = 1024
    cpus: int = 1
    limits: Limits = Limits(boot=30.0, silence=60.0, total=300.0)
    cmdline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AptArchive:
    """One ``[apt.NAME]``: Debian suites, and where they are on a host that is not Debian.

    ``check_valid_until`` false accepts an index past its date, ``max_index_age``
    is in seconds.
    """

    name: str
    suites: tuple[str, ...] = ()
    mirror: str | None = None
    security_mirror: str | None = None
    keyring: Path | None = None
    check_valid_until: bool = True
    max_index_age: float = 3600.0


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """``[guest]``: the user space to boot on.

    ``root`` is ``debian`` (built here from ``suite`` with ``packages`` and
    ``wheels``), ``host``, or the path of a directory or a squashfs image.
    ``libbpf`` are versions (``1.5``, ``newest``) or paths that are laid over the root's own; the
    first is what suites and commands get.
    """

    root: str = "debian"
    suite: str = "trixie"
    packages: tuple[str, ...] = ()
    wheels: tuple[Path, ...] = ()
    libbpf: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """One ``[[suite]]``: a pytest file or folder (absolute), the objects it needs by name.

    ``network`` is the card that its VMs get.
    """

    name: str
    tests: Path
    objects: tuple[str, ...] = ()
    network: Network = Network.NONE


@dataclass(frozen=True, slots=True)
class Loading:
    """How an object wants to be loaded, where its ELF file does not say.

    ``types`` is type, or ``type:attach type``, by program or pattern; ``max_entries``
    a number or ``cpus`` by map; ``globals`` values by variable; ``inner_maps`` the
    inner map's template by outer map; ``skip`` programs not to load; ``modules`` of the kernel
    are loaded before.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    max_entries: Mapping[str, int | str] = field(default_factory=dict)
    globals: Mapping[str, Any] = field(default_factory=dict)
    inner_maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """One ``[[object]]``: the build at ``path`` goes to kernels within ``kernels``.

    What is not ``required`` does not decide what ``vmtest verify`` ends with.
    """

    name: str
    path: Path
    kernels: VersionRange | None = None
    required: bool = True
    loading: Loading = field(default_factory=Loading)


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """One ``[[known_failure]]``: tests that are expected to fail on kernels within ``kernels``.

    ``test`` is a pattern for pytest's node ids (``vmtest.guest.patterns``), ``until`` the last day
    (UTC) on which it counts.
    """

    test: str
    reason: str
    kernels: VersionRange | None = None
    until: date | None = None

    def concerns(self, version: KernelVersion) -> bool:
        """Whether it is about a kernel of ``version``."""
        return self.kernels is None or version in self.kernels

    def expired(self, today: date) -> bool:
        """Whether it no longer counts on ``today``."""
        return self.until is not None and today > self.until


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a ``Kernel`` means today, before anything is downloaded.

    ``key`` names the exact thing (it decides whether the store has it),
    ``size`` is what a download would cost in bytes, ``note`` says what the user
    should know (a suite that is gone, for one).  ``digest`` is that of the image it
    becomes, empty where only a download tells.
    """

    kernel: Kernel
    version: KernelVersion
    key: str
    origin: str
    size: int = 0
    cached: bool = False
    note: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel in the store, ready to boot.

    ``image`` is the ELF (or the compressed image where the ELF would not
    boot), ``modules`` is ``.../lib/modules/RELEASE`` with its ``modules.dep``,
    ``digest`` the sha256 of what it was made of.
    """

    name: str
    version: KernelVersion
    release: str
    image: Path
    modules: Path | None
    config: Path | None
    digest: str
    origin: str
    note: str = ""


RootKind = Literal["disk", "directory", "host"]

Share = Literal["9p", "virtiofs"]
"""How a guest mounts what is the host's: 9P works everywhere, virtiofs needs a daemon there."""


@dataclass(frozen=True, slots=True)
class Library:
    """A libbpf for the guest: ``version`` is ``1.5``, ``origin`` a package or a path.

    ``data`` is the shared object, ``sha256`` its digest.
    """

    version: str
    origin: str
    sha256: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RootImage:
    """The guest's user space.

    ``kind`` is ``disk`` (a squashfs image at ``path``), ``directory`` (a tree at
    ``path``) or ``host`` (the host's own root, no path); ``digest`` names what
    it was made of, ``python`` is the interpreter inside the guest; ``note`` is what the
    user should know of how it came here; ``libraries`` are laid over its own libbpf.
    """

    kind: RootKind
    path: Path | None
    digest: str
    python: str
    note: str = ""
    libraries: tuple[Library, ...] = ()


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test on one kernel.

    ``test`` is pytest's node id, ``duration`` seconds in the guest, ``message``
    one line, ``details`` the assertion with its context, ``output`` what the
    test wrote.
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
    that was not seen.
    """

    kernel: str
    status: Status
    version: str = ""
    release: str = ""
    accelerator: str = ""
    tests: tuple[TestResult, ...] = ()
    reason: str = ""
    note: str = ""
    boot_seconds: float = 0.0
    duration: float = 0.0
    factor: float = 1.0
    splats: tuple[str, ...] = ()
    console_tail: tuple[str, ...] = ()
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

    @property
    def came_to_something(self) -> bool:
        """Whether a test ran or a load was made, or the tests were listed as was asked."""
        if self.status is Status.COLLECTED:
            return True
        if self.tests or self.loads:
            ran = any(test.outcome.ran for test in self.tests)
            return ran or any(load.verdict is not Verdict.NOT_LOADED for load in self.loads)
        return _EXIT_OF_STATUS[self.status] in (0, 1)

    def count(self, *outcomes: Outcome) -> int:
        """How many tests ended in one of ``outcomes``."""
        return sum(test.outcome in outcomes for test in self.tests)


@dataclass(frozen=True, slots=True)
class Matrix:
    """All kernels of one run, in the order of kernels.toml.

    ``suites`` keeps the order of the rows; ``started`` is UTC, ISO 8601; ``notes``
    say what the user should know of no kernel in particular, a line each; ``command``
    is what ``vmtest exec`` ran, empty for a run of suites.
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


def network_of(suites: Iterable[Suite]) -> Network:
    """The card that a VM needs for all of ``suites``."""
    wanted = {suite.network for suite in suites}
    return next((n for n in (Network.OUTBOUND, Network.CLOSED) if n in wanted), Network.NONE)


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """``values`` without repeats, in their first order."""
    return tuple(dict.fromkeys(values))


Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all while something is fetched; of a tree that is built,
with files made and 0."""

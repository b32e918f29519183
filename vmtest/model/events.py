"""What a running matrix tells its display: small frozen values, emitted on the main thread.

The matrix emits them and decides nothing about display; ``vmtest.report.live``
shows them.  Every event names the kernel it is about, ``Note`` alone does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vmtest.model.kernels import Kernel, LockedSpec, TreeSpec
from vmtest.model.loads import LoadResult
from vmtest.model.results import KernelResult, TestResult


@dataclass(frozen=True, slots=True)
class KernelQueued:
    """The kernel will be run; emitted for all of them first, in the order of the table."""

    kernel: str


@dataclass(frozen=True, slots=True)
class Fetching:
    """``done`` of ``total`` bytes are here; ``total`` is 0 where it is not known."""

    kernel: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Building:
    """Its tree is being built: ``done`` files are made, how many are to come nobody knows."""

    kernel: str
    done: int


GUEST_IMAGE, WAITING = "guest image: ", "waiting for "
"""How ``what`` of ``Preparing`` begins for the image that kernels share, and while none works."""


@dataclass(frozen=True, slots=True)
class Preparing:
    """Work on the host before booting; ``what`` as in ``unpacking modules``."""

    kernel: str
    what: str


@dataclass(frozen=True, slots=True)
class Expected:
    """In earlier runs of the same the kernel took about these ``seconds`` in its VM slot."""

    kernel: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SlotTaken:
    """A VM slot has become the kernel's, until it has finished; ``slot`` counts from 1."""

    kernel: str
    slot: int


@dataclass(frozen=True, slots=True)
class Booting:
    """The VM was started; ``attempt`` counts from 1."""

    kernel: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Booted:
    """The session is there, ``seconds`` after the VM was started."""

    kernel: str
    seconds: float
    release: str = ""
    accelerator: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """pytest will run ``count`` tests in this kernel."""

    kernel: str
    count: int


@dataclass(frozen=True, slots=True)
class TestStarted:
    """The test with the node id ``test`` runs now."""

    __test__: ClassVar[bool] = False  # pytest would collect it by its name

    kernel: str
    test: str


@dataclass(frozen=True, slots=True)
class TestFinished:
    """A test ended, or was lost with its VM."""

    __test__: ClassVar[bool] = False  # pytest would collect it by its name

    kernel: str
    result: TestResult


@dataclass(frozen=True, slots=True)
class Output:
    """What a command that is shown live wrote to standard output and standard error."""

    kernel: str
    out: bytes
    err: bytes


@dataclass(frozen=True, slots=True)
class LoadStarted:
    """The verifier reads ``load`` now, of the object number ``place`` of ``objects``."""

    kernel: str
    load: str
    place: int
    objects: int


@dataclass(frozen=True, slots=True)
class LoadFinished:
    """What became of loading one program, or one object as a whole."""

    kernel: str
    result: LoadResult


@dataclass(frozen=True, slots=True)
class KernelFinished:
    """The kernel's VM is gone and its result is final."""

    kernel: str
    result: KernelResult


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know now, about no kernel in particular."""

    text: str


Event = (
    KernelQueued
    | Fetching
    | Building
    | Preparing
    | Expected
    | SlotTaken
    | Booting
    | Booted
    | Collected
    | TestStarted
    | TestFinished
    | Output
    | LoadStarted
    | LoadFinished
    | KernelFinished
    | Note
)
"""Every event a view handles."""


def coming(kernel: Kernel, done: int, total: int) -> Fetching | Building:
    """How far ``kernel`` is on its way into the store, as its source's ``Progress`` was told."""
    spec = kernel.spec.exact if isinstance(kernel.spec, LockedSpec) else kernel.spec
    if isinstance(spec, TreeSpec):
        return Building(kernel.name, done)
    return Fetching(kernel.name, done, total)

"""What a verifier said of objects and programs: frozen values, importing nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What became of loading one program, or one object as a whole."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """The verifier read the program and said no."""
    UNSUPPORTED = "unsupported"
    """This kernel lacks something the program needs, as a probe or the log shows."""
    OPEN_FAILED = "open failed"
    """libbpf could not read the object: nothing was asked of the kernel."""
    REFUSED = "refused as a whole"
    """Before or beside the verifier: a map, a relocation, a shared PROG_ARRAY."""
    TIMED_OUT = "timed out"
    LOADER_CRASHED = "crashed the loader"
    KERNEL_CRASHED = "crashed the kernel"
    NOT_LOADED = "not loaded"
    """Left out: the configuration says so, or the run ended before."""

    @property
    def bad(self) -> bool:
        """Whether the kernel was asked and did not take it, or could not even be asked."""
        return self not in (Verdict.ACCEPTED, Verdict.NOT_LOADED)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, as far as it can be known.

    ``code`` is of the documented set (docs/reference/reason-codes.md); ``evidence`` is a probe
    in that kernel with its answer, or a line of the log; without evidence the code is ``unknown``.
    ``name`` is what it is about, as the source calls it: a helper, function, type, field or
    program ("" where it has none).
    """

    code: str
    text: str
    remedy: str = ""
    evidence: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the verifier and the JIT say of an accepted program (zeros where they say nothing).

    ``verification_us`` is microseconds of the guest's clock, sizes are bytes,
    ``stack_depth`` has one number a subprogram.
    """

    instructions: int = 0
    total_states: int = 0
    peak_states: int = 0
    mark_read: int = 0
    stack_depth: tuple[int, ...] = ()
    verification_us: int = 0
    translated_size: int = 0
    jited_size: int = 0


@dataclass(frozen=True, slots=True)
class SourceLine:
    """How often the verifier read a line of the source.

    ``visits`` counts the instructions that it read there, each as often as it came by;
    ``instructions`` the different ones.  ``place`` is ``FILE:LINE``, "" from kernels before 6.8.
    """

    place: str
    text: str
    visits: int
    instructions: int


@dataclass(frozen=True, slots=True)
class Visits:
    """What the verifier read of a program (``--log-level 2``).

    ``total`` is all of it, ``lines`` are those that it read most often, the worst first, and
    ``left_out`` is how many others there were.
    """

    total: int = 0
    lines: tuple[SourceLine, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Attachment:
    """Whether an accepted program could be attached (``--attach``), and where or why not.

    One that was attached has a ``reason`` where the kernel will never call it.
    """

    attached: bool
    place: str = ""
    errno: str = ""
    reason: Reason | None = None

    @property
    def works(self) -> bool:
        """Whether it was attached and the kernel will call it."""
        return self.attached and self.reason is None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One program of one object on one kernel; ``program`` is "" for the object as a whole.

    ``section``, ``type`` and ``attach_type`` are libbpf's names, ``errno`` is a name
    such as ``EINVAL`` ("" when nothing failed), ``line`` the last meaningful line of
    the verifier's log, ``log`` the path of the whole log relative to the kernel's
    folder, ``log_cut`` whether the buffer was too small for it.  What is not
    ``required`` is shown and does not decide.  ``libbpf`` is the version that loaded it, "" where
    that is not known, and where another library did: then ``loader`` is that one, for example
    ``cilium/ebpf 0.16.0``.  ``visits`` is None where no log of level 2 was had.
    """

    object: str
    program: str
    verdict: Verdict
    section: str = ""
    type: str = ""
    attach_type: str = ""
    errno: str = ""
    cost: Cost = Cost()
    line: str = ""
    log: str = ""
    log_cut: bool = False
    reason: Reason | None = None
    attachment: Attachment | None = None
    required: bool = True
    libbpf: str = ""
    visits: Visits | None = None
    loader: str = ""

    @property
    def by(self) -> str:
        """What loaded it, ``libbpf 1.5`` for example; "" where that is not known."""
        return self.loader or (f"libbpf {self.libbpf}" if self.libbpf else "")

    @property
    def label(self) -> str:
        """``OBJECT: PROGRAM``, or ``OBJECT as a whole``."""
        return f"{self.object}: {self.program}" if self.program else f"{self.object} as a whole"


@dataclass(frozen=True, slots=True)
class LoadSet:
    """Loads of other builds in the same boot (``--against``); ``name`` says which builds.

    ``objects`` has name and sha256 of each.
    """

    name: str
    objects: tuple[tuple[str, str], ...] = ()
    loads: tuple[LoadResult, ...] = ()


class ChangeKind(StrEnum):
    """What a difference from a baseline means."""

    REGRESSED = "regressed"
    """Was accepted, is not any more."""
    DRIFT = "kernel drift"
    """The kernel's release moved and the object's sha256 did not: not the object's doing."""
    CHANGED = "changed"
    """Was not accepted and is not now, in another way."""
    FIXED = "fixed"
    """Was not accepted and is now."""
    COST = "cost"
    """Accepted then and now, at another cost."""
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of one program on one kernel from a baseline.

    ``before`` and ``after`` are verdicts (None where the program is not there);
    ``cost`` names what ``old`` and ``new`` count, "" where the verdict is what
    changed; ``since`` says which kernel and objects ``before`` is of.
    """

    object: str
    program: str
    kind: ChangeKind
    before: Verdict | None = None
    after: Verdict | None = None
    cost: str = ""
    old: int = 0
    new: int = 0
    since: str = ""
    required: bool = True

    @property
    def percent(self) -> float:
        """How much more ``new`` is than ``old``, in percent; 0.0 for a verdict."""
        return 100.0 * (self.new - self.old) / self.old if self.old else 0.0

    @property
    def label(self) -> str:
        """``OBJECT: PROGRAM``, or ``OBJECT as a whole``."""
        return f"{self.object}: {self.program}" if self.program else f"{self.object} as a whole"


INSTRUCTION_LIMIT = 1_000_000
"""BPF_COMPLEXITY_LIMIT_INSNS of include/linux/bpf.h, for a loader with CAP_BPF (5.2 and later)."""
NEAR = 0.9
"""The part of the limit from which on a program is warned of."""


def near_limit(load: LoadResult) -> bool:
    """Whether an accepted program is within a tenth of the instruction limit."""
    return load.verdict is Verdict.ACCEPTED and load.cost.instructions >= NEAR * INSTRUCTION_LIMIT


_LOADERS = (" (libbpf ", " (cilium/ebpf ")


def row_of(name: str, by: str) -> str:
    """What the loads of the object ``name`` are called by one of several loaders."""
    return f"{name} ({by})"


def name_of(row: str) -> str:
    """The object whose loads are called ``row``: by its name alone, or as ``row_of`` has it."""
    return next((name for by in _LOADERS if (name := row.rpartition(by)[0])), row)

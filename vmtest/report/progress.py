"""What a run is doing, as a value: events go in, the next state comes out.

``State.apply`` is the one state machine of a running matrix; both live views
only show what it holds.  Times are seconds of any clock that does not go back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from vmtest.model.events import (
    WAITING,
    Booted,
    Booting,
    Building,
    Collected,
    Event,
    Expected,
    Fetching,
    KernelFinished,
    KernelQueued,
    LoadFinished,
    LoadStarted,
    Note,
    Output,
    Preparing,
    SlotTaken,
    TestFinished,
    TestStarted,
)
from vmtest.model.results import KernelResult
from vmtest.report.table import WRONG

_WINDOW = 5.0  # seconds that a download's rate is taken over
_SPACING = 0.25  # seconds between two samples at least


class Phase(StrEnum):
    """What a kernel is going through."""

    QUEUED = "waiting"
    FETCHING = "fetching"
    BUILDING = "building"
    PREPARING = "preparing"
    BOOTING = "booting"
    TESTING = "testing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class KernelState:
    """One kernel of a running matrix; times are the clock's."""

    kernel: str
    phase: Phase = Phase.QUEUED
    began: float | None = None
    """When work on it began; None while it waits."""
    since: float = 0.0
    """When its phase began."""
    samples: tuple[tuple[float, int], ...] = ()
    done: int = 0
    total: int = 0
    what: str = ""
    attempt: int = 1
    boot_seconds: float = 0.0
    release: str = ""
    accelerator: str = ""
    count: int | None = None
    finished: int = 0
    wrong: int = 0
    test: str = ""
    """The running test's node id; empty between tests."""
    test_since: float = 0.0
    last: str = ""
    """The node id of the test that ended last."""
    noun: str = "test"
    """What is counted: tests, or loads."""
    place: tuple[int, int] | None = None
    """Which object of how many is being loaded."""
    result: KernelResult | None = None
    ended: float = 0.0
    expected: float = 0.0
    """Seconds that it usually takes in its slot; 0.0 where that is not known."""
    slot: int = 0
    """Its VM slot, from 1; 0 before it has one."""
    slot_since: float = 0.0

    def rate(self, now: float) -> float:
        """Bytes a second over the last seconds; it falls while nothing comes."""
        if not self.samples:
            return 0.0
        then, bytes_then = self.samples[0]
        return (self.done - bytes_then) / (now - then) if now > then else 0.0

    def elapsed(self, now: float) -> float:
        """Seconds of work on it until now, or until it ended."""
        if self.began is None:
            return 0.0
        return (self.ended if self.phase is Phase.DONE else now) - self.began


@dataclass(frozen=True, slots=True)
class State:
    """A running matrix: its kernels, in the order they were first heard of."""

    started: float
    kernels: tuple[KernelState, ...] = ()
    notes: tuple[str, ...] = ()

    def apply(self, event: Event, now: float) -> State:
        """The state after ``event``, which came at ``now``."""
        if isinstance(event, Note):
            return replace(self, notes=(*self.notes, event.text))
        before = self.of(event.kernel)
        if before is None:
            after = _next(KernelState(event.kernel), event, now)
            return replace(self, kernels=(*self.kernels, after))
        after = _next(before, event, now)
        return replace(self, kernels=tuple(after if k is before else k for k in self.kernels))

    def of(self, kernel: str) -> KernelState | None:
        """The state of the kernel of this name."""
        return next((state for state in self.kernels if state.kernel == kernel), None)

    def within(self, *phases: Phase) -> tuple[KernelState, ...]:
        """The kernels in one of ``phases``."""
        return tuple(state for state in self.kernels if state.phase in phases)

    def left(self, now: float) -> float | None:
        """Seconds that the rest may take, by what earlier runs took; None where nobody knows.

        That needs a slot that was taken, and a usual time of every kernel that has not ended.  A
        kernel that is over its time may end at any moment.
        """
        ahead = [state for state in self.kernels if state.phase is not Phase.DONE]
        slots = max((state.slot for state in self.kernels), default=0)
        if not (slots and ahead and all(state.expected for state in ahead)):
            return None
        running = [max(0.0, k.expected - (now - k.slot_since)) for k in ahead if k.slot]
        busy = sorted(running + [0.0] * (slots - len(running)))
        for state in ahead:
            if not state.slot:
                busy = sorted((busy[0] + state.expected, *busy[1:]))
        return busy[-1]

    @property
    def active(self) -> tuple[KernelState, ...]:
        """The kernels that something is being done for."""
        return tuple(s for s in self.kernels if s.phase not in (Phase.QUEUED, Phase.DONE))


def _next(state: KernelState, event: Event, now: float) -> KernelState:
    match event:
        case KernelQueued() | Expected() | SlotTaken():
            return _planned(state, event, now)
        case Note() | Output():
            return state
        case Fetching(done=done, total=total):
            state = _entered(state, Phase.FETCHING, now)
            return replace(
                state, done=done, total=total, samples=_sampled(state.samples, now, done)
            )
        case Building(done=done):
            return replace(_entered(state, Phase.BUILDING, now), done=done)
        case Preparing(what=what):
            phase = Phase.QUEUED if what.startswith(WAITING) else Phase.PREPARING
            if (state.phase, state.what) == (phase, what):
                return state
            return replace(_entered(state, phase, now), since=now, what=what)
        case Booting(attempt=attempt):
            return replace(_entered(state, Phase.BOOTING, now), since=now, attempt=attempt)
        case Booted(seconds=seconds, release=release, accelerator=accelerator):
            return replace(
                _entered(state, Phase.TESTING, now),
                boot_seconds=seconds,
                release=release,
                accelerator=accelerator,
            )
        case Collected(count=count):
            return replace(_entered(state, Phase.TESTING, now), count=count)
        case TestStarted(test=test):
            return replace(_entered(state, Phase.TESTING, now), test=test, test_since=now)
        case TestFinished(result=result):
            return replace(
                _entered(state, Phase.TESTING, now),
                finished=_one_more(state),
                wrong=state.wrong + (result.outcome in WRONG),
                test="",
                last=result.test,
            )
        case LoadStarted(load=load, place=place, objects=objects):
            return replace(
                _entered(state, Phase.TESTING, now),
                noun="load",
                test=load,
                test_since=now,
                place=(place, objects),
            )
        case LoadFinished(result=result):
            return replace(
                _entered(state, Phase.TESTING, now),
                noun="load",
                finished=state.finished + 1,
                wrong=state.wrong + result.verdict.bad,
                test="",
                last=result.label,
            )
        case KernelFinished(result=result):
            return replace(_entered(state, Phase.DONE, now), result=result, test="", ended=now)


def _planned(
    state: KernelState, event: KernelQueued | Expected | SlotTaken, now: float
) -> KernelState:
    match event:
        case KernelQueued():
            # Again when it is run again: what its guest had said does not count.
            return KernelState(state.kernel, began=state.began, expected=state.expected)
        case Expected(seconds=seconds):
            return replace(state, expected=seconds)
        case SlotTaken(slot=slot):
            return replace(state, slot=slot, slot_since=now)


def _one_more(state: KernelState) -> int:
    """How many tests have finished; one that runs again (``--retries``) is not one more."""
    return min(state.finished + 1, state.count) if state.count else state.finished + 1


def _entered(state: KernelState, phase: Phase, now: float) -> KernelState:
    if state.phase is phase:
        return state
    began = now if state.began is None else state.began
    return replace(state, phase=phase, since=now, began=began)


def _sampled(
    samples: tuple[tuple[float, int], ...], now: float, done: int
) -> tuple[tuple[float, int], ...]:
    if samples and now - samples[-1][0] < _SPACING:
        return samples
    recent = tuple(sample for sample in samples if now - sample[0] <= _WINDOW) or samples[-1:]
    return (*recent, (now, done))

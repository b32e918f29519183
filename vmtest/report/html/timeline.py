"""What each VM slot and each kernel did when: events -> bars.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vmtest.runs.events import Stamped

PHASES = {
    "wait": "waits",
    "index": "reads the index",
    "fetch": "fetches or builds the kernel",
    "prepare": "prepares on the host",
    "boot": "boots",
    "copy": "copies files in",
    "collect": "starts the work",
    "tests": "runs tests or loads",
    "end": "reads the log, ends",
}
"""The phases of a kernel, in their order, and what they are."""

_STEPS = (
    ("reading the index", "index"),
    ("waiting for a VM", "wait"),
    ("copying", "copy"),
    ("starting", "collect"),
)
_OF_EVENT = {
    "queued": "wait",
    "fetching": "fetch",
    "building": "fetch",
    "slot": "prepare",
    "booting": "boot",
    "booted": "copy",
    "collected": "tests",
    "test started": "tests",
    "load started": "tests",
    "test finished": "end",
    "load finished": "end",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A kernel in a phase from ``start`` to ``end``, seconds; ``slot`` is 0 outside any VM slot."""

    kernel: str
    phase: str
    start: float
    end: float
    slot: int = 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


_DIED = ("PANICKED", "TIMED_OUT", "LOST", "SPLAT", "BOOT_FAILED", "INFRA_ERROR", "CANCELLED")
"""The statuses of a kernel that ended otherwise than by its results."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A test or load that went wrong; with an ``end`` the status in which a kernel ended."""

    kernel: str
    at: float
    what: str
    slot: int
    end: str = ""


def phase_of(event: Stamped) -> str:
    """The phase that begins with ``event``, "" for an event that begins none."""
    if event.event == "preparing":
        return next((phase for start, phase in _STEPS if event.what.startswith(start)), "prepare")
    return _OF_EVENT.get(event.event, "")


def bars(events: Iterable[Stamped]) -> tuple[Bar, ...]:
    """Every kernel's phases in order; what had not finished ends with the last event."""
    found: list[Bar] = []
    now: dict[str, Bar] = {}
    last = 0.0
    for event in events:
        last = max(last, event.at)
        if not event.kernel:
            continue
        old = now.get(event.kernel)
        if event.event == "finished":
            if old is not None:
                found.append(replace(now.pop(event.kernel), end=event.at))
            continue
        phase = phase_of(event)
        if not phase:
            continue
        slot = event.slot or (old.slot if old is not None and event.event != "queued" else 0)
        if old is not None and (old.phase, old.slot) == (phase, slot):
            continue
        if old is not None:
            found.append(replace(old, end=event.at))
        now[event.kernel] = Bar(event.kernel, phase, event.at, event.at, slot)
    found += [replace(bar, end=last) for bar in now.values()]
    return _joined(found)


def _joined(found: Sequence[Bar]) -> tuple[Bar, ...]:
    """``found`` by kernel and time; all from the first test to the last are one bar."""
    joined: list[Bar] = []
    for bar in sorted(found, key=lambda bar: (bar.kernel, bar.start, bar.end)):
        before = joined[-1] if joined and joined[-1].kernel == bar.kernel else None
        if bar.phase == "tests" and before is not None and before.phase == "end":
            joined.pop()  # it was not the end: another test came
            before = joined[-1]
        if before is not None and before.phase == bar.phase == "tests":
            joined[-1] = replace(before, end=bar.end)
        else:
            joined.append(bar)
    return tuple(joined)


def marks(events: Iterable[Stamped], wrong: Iterable[str]) -> tuple[Mark, ...]:
    """The tests and loads whose outcome is one of ``wrong``, and the kernels that did not end well.

    A test that began and never finished was lost when its guest ended: with its kernel, or when
    another guest booted in its place.
    """
    bad = set(wrong)
    slots: dict[str, int] = {}
    running: dict[str, str] = {}
    found = []
    for event in events:
        kernel = event.kernel
        if event.event == "slot":
            slots[kernel] = event.slot
        elif event.event in ("test started", "load started"):
            running[kernel] = event.test
        elif event.event in ("test finished", "load finished"):
            running.pop(kernel, None)
            if event.what in bad:
                what = f"{event.test}: {event.what}"
                found.append(Mark(kernel, event.at, what, slots.get(kernel, 0)))
        elif event.event in ("booting", "finished"):
            lost = running.pop(kernel, "")
            end = event.what if event.event == "finished" and event.what in _DIED else ""
            meanwhile = f" while {lost} ran" if lost else ""
            if end:
                what = f"{kernel}: {end}{meanwhile}"
                found.append(Mark(kernel, event.at, what, slots.get(kernel, 0), end))
            elif lost:
                found.append(Mark(kernel, event.at, f"{lost}: lost", slots.get(kernel, 0)))
    return tuple(found)

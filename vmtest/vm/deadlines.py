"""Deadlines that fit the machine: configured for KVM, scaled where that is not what runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vmtest.errors import DeadlineExceeded, SessionLost
from vmtest.model.kernels import Limits

REFERENCE_BOOT = 3.0
"""Seconds of a probe boot up to which no deadline is stretched."""
MAX_FACTOR = 10.0
"""However slow the machine, a hang is found after this many times the configured limit."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much slower than expected this machine is.

    ``probe_seconds`` is what the accelerator's probe boot took, ``vcpus`` how
    many virtual CPUs run at once, ``load`` the host's load average: the probe's
    seconds are remembered and may be of a calm moment.
    """

    probe_seconds: float
    vcpus: int
    load: float = 0.0

    @classmethod
    def now(cls, probe_seconds: float, vcpus: int) -> Scale:
        """With the load average of the last minute."""
        return cls(probe_seconds, vcpus, os.getloadavg()[0])

    @property
    def factor(self) -> float:
        """What every configured limit is multiplied with; 1.0 to 10.0."""
        # Not their sum: our own virtual CPUs are part of the load.
        crowding = max(self.vcpus, self.load) / len(os.sched_getaffinity(0))
        slowness = self.probe_seconds / REFERENCE_BOOT
        return min(MAX_FACTOR, max(1.0, slowness) * max(1.0, crowding))

    def apply(self, limits: Limits) -> Limits:
        """``limits`` in real seconds on this machine."""
        f = self.factor
        return Limits(limits.boot * f, limits.silence * f, limits.total * f, limits.stall * f)


@contextmanager
def within(seconds: float, what: str, end: Callable[[], None]) -> Iterator[None]:
    """Give the block ``seconds``: after that ``end`` is called, which has to wake who waits.

    The block then raises DeadlineExceeded, which names ``what`` ("copying the payload"):
    the connection that ``end`` closes was not the guest's to lose.
    """
    passed = threading.Event()

    def over() -> None:
        passed.set()
        end()

    timer = threading.Timer(seconds, over)
    timer.daemon = True
    timer.start()
    late = DeadlineExceeded(f"{what} took over {seconds:.0f} s", "answer")
    try:
        yield
    except (SessionLost, OSError) as error:
        if passed.is_set():
            raise late from error
        raise
    finally:
        timer.cancel()
    if passed.is_set():
        raise late

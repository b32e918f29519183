"""How many VMs the host has room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Lock

from vmtest.errors import InfrastructureError
from vmtest.model.kernels import Kernel

QEMU_OVERHEAD_MIB = 200
"""What QEMU takes beside the guest's memory, translated code included."""


def memory_available_mib() -> int:
    """What the kernel says is available, in MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise InfrastructureError("/proc/meminfo has no MemAvailable; vmtest needs Linux 3.14 or later")


def slots(kernels: Sequence[Kernel], cpus: int, memory_mib: int) -> int:
    """How many of ``kernels`` may run at once: by vCPUs and by memory, one at least."""
    return min(len(kernels), room(kernels, cpus, memory_mib))


def room(kernels: Sequence[Kernel], cpus: int, memory_mib: int) -> int:
    """How many VMs as large as the largest of ``kernels`` may run at once, one at least."""
    vcpus = max(kernel.cpus for kernel in kernels)
    need = max(kernel.memory_mib for kernel in kernels) + QEMU_OVERHEAD_MIB
    # A fifth stays free: the guests' page caches are not all that lives here.
    return max(1, min(cpus // vcpus, int(memory_mib * 0.8) // need))


class Slots:
    """The VM slots of a run, numbered from 1; safe to take from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._used: set[int] = set()

    @contextmanager
    def taken(self) -> Iterator[int]:
        """The lowest number that is free, until the context is left."""
        with self._lock:
            slot = next(number for number in count(1) if number not in self._used)
            self._used.add(slot)
        try:
            yield slot
        finally:
            with self._lock:
                self._used.discard(slot)

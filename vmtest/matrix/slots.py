"""How many VMs the host has room for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
    vcpus = max(kernel.cpus for kernel in kernels)
    need = max(kernel.memory_mib for kernel in kernels) + QEMU_OVERHEAD_MIB
    # A fifth stays free: the guests' page caches are not all that lives here.
    room = int(memory_mib * 0.8) // need
    return max(1, min(len(kernels), cpus // vcpus, room))

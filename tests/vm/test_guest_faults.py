"""What a guest may do to itself: noticed, named, and at the cost of its own kernel alone.

A BPF program that counts to 2**46 makes the stalls: where it is attached says what stands still.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from any_guest import in_guest
from command import Said
from real_kernels import KERNEL

from tests.faults.fixtures import Noticed
from vmtest.objects.compile import clang_argv

SPIN = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static int nothing(__u32 n, void *context)
{
    return 0;
}

static int counts(__u32 n, void *context)
{
    bpf_loop(1 << 23, nothing, NULL, 0);
    return 0;
}

SEC("raw_tp/sys_enter") int spins(void *context)
{
    bpf_loop(1 << 23, counts, NULL, 0);
    return 0;
}

SEC("raw_tp/sys_enter") int spins_on_the_second_cpu(void *context)
{
    if (bpf_get_smp_processor_id() == 1)
        bpf_loop(1 << 23, counts, NULL, 0);
    return 0;
}

SEC("raw_tp/sched_switch") int spins_without_interrupts(void *context)
{
    bpf_loop(1 << 23, counts, NULL, 0);
    return 0;
}

char _license[] SEC("license") = "GPL";
"""

SUITE = """
import ctypes, fcntl, mmap, os, pathlib, struct, threading, time
from vmtest.guest.loader import autoattach
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path

def write(path, value):
    pathlib.Path(path).write_text(str(value))

def spin(program, meanwhile=os.sched_yield):
    with BpfObject(object_path("spin")) as opened:
        opened.load()
        with autoattach._where_it_says(opened, opened.programs[program]):
            while True:
                meanwhile()

def wait_for_every_cpu():
    if os.fork() == 0:
        os.sched_setaffinity(0, {1})
        os.sched_yield()
    ctypes.CDLL(None).syscall(324, 1, 0)  # membarrier(MEMBARRIER_CMD_GLOBAL)

def userfault():
    # A page of which nobody ever says what is in it.
    descriptor = ctypes.CDLL(None).syscall(323, os.O_CLOEXEC)
    assert descriptor >= 0
    fcntl.ioctl(descriptor, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
    pages = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    fcntl.ioctl(descriptor, 0xC020AA00, struct.pack("QQQQ", address, mmap.PAGESIZE, 1, 0))
    return memoryview(pages)

def test_before():
    pass

def test_it():
    {body}

def test_after():
    pass
"""

KERNELS = """
schema = 1

[apt.debian]
suites = ["bookworm-security", "trixie-security"]

[defaults]
memory = "512M"
cpus = {cpus}
silence_timeout = "{silence}"
stall_timeout = "2s"

{kernels}
[[object]]
name = "spin"
path = "spin.o"

[[suite]]
name = "own"
tests = "test_own.py"
objects = ["spin"]
"""

ONE = """
[[kernel]]
name = "{name}"
apt = "debian"
version = "{name}.*"
"""


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., Said]:
    """Runs a test of this body."""
    (tmp_path / "spin.bpf.c").write_text(SPIN)
    subprocess.run(clang_argv(tmp_path / "spin.bpf.c", tmp_path / "spin.o", tmp_path), check=True)

    def run(
        body: str, silence: str = "20s", cpus: int = 1, names: Sequence[str] = (KERNEL,)
    ) -> Said:
        kernels = "".join(ONE.format(name=name) for name in names)
        text = KERNELS.format(kernels=kernels, silence=silence, cpus=cpus)
        (tmp_path / "kernels.toml").write_text(text)
        indented = textwrap.indent(textwrap.dedent(body).strip(), "    ").strip()
        (tmp_path / "test_own.py").write_text(SUITE.replace("{body}", indented))
        return in_guest("run", cwd=tmp_path, timeout=580)

    return run


def kernels_of(project: Path) -> list[dict[str, Any]]:
    matrix = json.loads((project / ".vmtest" / "latest" / "matrix.json").read_text())
    return list(matrix["kernels"])


def outcomes(kernel: dict[str, Any]) -> list[str]:
    return [test["outcome"] for test in kernel["tests"]]


STALLS = [
    pytest.param(
        'write("/proc/sys/kernel/watchdog_thresh", 3); spin("spins")',
        "soft lockup",
        id="soft lockup",
    ),
    pytest.param(
        'write("/proc/sys/kernel/watchdog", 0)\n'
        'write("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", 3)\n'
        'write("/sys/module/rcupdate/parameters/rcu_exp_cpu_stall_timeout", 3000)\n'
        "os.sched_setaffinity(0, {0})\n"
        'spin("spins_on_the_second_cpu", wait_for_every_cpu)',
        "stall",
        id="RCU stall",
    ),
    pytest.param(
        'write("/proc/sys/kernel/hung_task_timeout_secs", 3)\n'
        "page = userfault()\n"
        'file = os.open("/tmp/held", os.O_CREAT | os.O_RDWR)\n'
        "# Holds the file's lock for as long as it waits for the page.\n"
        "threading.Thread(target=os.write, args=(file, page), daemon=True).start()\n"
        "time.sleep(1)\n"
        'os.write(file, b"waits for the lock")',
        "blocked for more than",
        id="hung task",
    ),
]


@pytest.mark.parametrize(("body", "said_by_the_kernel"), STALLS)
def test_a_kernel_that_stalls_is_given_up_soon_after_it_says_so(
    body: str, said_by_the_kernel: str, ran: Callable[..., Said], tmp_path: Path, noticed: Noticed
) -> None:
    said = ran(body, cpus=2)
    assert said.status == 1, said
    (kernel,) = kernels_of(tmp_path)
    assert kernel["status"] == "TIMED_OUT", said.out
    assert outcomes(kernel) == ["passed", "lost", "not run"]
    assert "s after the kernel stalled: " in kernel["reason"], said.out
    assert said_by_the_kernel in kernel["reason"]
    assert "while test_own.py::test_it ran" in kernel["reason"]
    assert said_by_the_kernel in kernel["splats"][0]
    noticed.in_run(tmp_path, "test_it", KERNEL)


def test_a_guest_with_interrupts_off_is_given_up_at_the_silence_deadline(
    ran: Callable[..., Said], tmp_path: Path, noticed: Noticed
) -> None:
    stuck = f'if os.uname().release.startswith("{KERNEL}."): spin("spins_without_interrupts")'
    said = ran(stuck, silence="5s", names=(KERNEL, "6.1"))
    assert said.status == 1, said
    one, other = kernels_of(tmp_path)
    assert (one["status"], outcomes(one)) == ("TIMED_OUT", ["passed", "lost", "not run"]), said.out
    assert "silence deadline" in one["reason"]
    assert (other["status"], outcomes(other)) == ("PASSED", ["passed"] * 3), said.out
    noticed.in_run(tmp_path, "test_it", KERNEL)


def test_a_pytest_that_ends_and_whose_process_does_not_is_not_passed(
    ran: Callable[..., Said], tmp_path: Path
) -> None:
    said = ran("threading.Thread(target=threading.Event().wait).start()", silence="5s")
    assert said.status == 1, said
    (kernel,) = kernels_of(tmp_path)
    assert (kernel["status"], outcomes(kernel)) == ("TIMED_OUT", ["passed"] * 3), said.out
    assert "pytest had ended with status 0, and its process did not" in kernel["reason"]
    (log,) = (tmp_path / ".vmtest" / "latest").rglob("pytest.log")
    assert "in wait" in log.read_text()


def test_a_fork_bomb_costs_its_own_guest_and_the_next_run_works(
    ran: Callable[..., Said], tmp_path: Path, noticed: Noticed
) -> None:
    bomb = """
    while True:
        try:
            os.fork()
        except OSError:
            pass
    """
    said = ran(bomb, silence="5s")
    assert said.status == 1, said
    (kernel,) = kernels_of(tmp_path)
    assert kernel["status"] in ("LOST", "TIMED_OUT"), said.out
    assert outcomes(kernel) == ["passed", "lost", "not run"]
    assert "while test_own.py::test_it ran" in kernel["reason"]
    noticed.in_run(tmp_path, "test_it", KERNEL)
    assert ran("pass").status == 0


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (0, "pytest's process ended before pytest had"),
        (3, "a test closed or replaced descriptors that it had not opened"),
    ],
)
def test_a_test_that_closes_all_descriptors_is_no_pass_and_keeps_what_had_finished(
    first: int, reason: str, ran: Callable[..., Said], tmp_path: Path, noticed: Noticed
) -> None:
    said = ran(f"os.closerange({first}, 4096)")
    assert said.status == 1, said
    (kernel,) = kernels_of(tmp_path)
    assert kernel["status"] == "LOST", said.out
    assert outcomes(kernel) == ["passed", "lost", "not run"]
    assert reason in kernel["reason"]
    noticed.in_run(tmp_path, "test_it", KERNEL)


@pytest.mark.parametrize("years", [10, -10])
def test_a_guest_whose_clock_is_ten_years_off_passes_with_its_real_durations(
    years: int, ran: Callable[..., Said], tmp_path: Path
) -> None:
    said = ran(f"time.clock_settime(time.CLOCK_REALTIME, time.time() + {years * 365 * 86400})")
    assert said.status == 0, said
    (kernel,) = kernels_of(tmp_path)
    assert (kernel["status"], outcomes(kernel)) == ("PASSED", ["passed"] * 3), said.out
    assert all(0 <= test["duration"] < 300 for test in kernel["tests"]) and kernel["tests"]
    assert 0 < kernel["duration"] < 600

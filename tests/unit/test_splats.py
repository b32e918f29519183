"""A complaint's fingerprint: kind, function and module, the same on every kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.model.results import KernelResult, KnownComplaint, Status, with_complaints
from vmtest.model.splats import fingerprint, stalls
from vmtest.vm.console import ConsoleLog, Sign

SAME = [
    (
        "WARNING in check_it [a_module]",
        "WARNING: CPU: 0 PID: 12 at kernel/bpf/a.c:12 check_it+0x1/0x2 [a_module]",
        "WARNING: CPU: 3 PID: 9999 at kernel/bpf/b.c:99 check_it.isra.0+0x9/0x20 [a_module(OE)]",
        "WARNING: kernel/bpf/b.c:99 at check_it+0x9/0x20 [a_module], CPU#3: cat/42",
    ),
    (
        "KASAN: use-after-free in f",
        "BUG: KASAN: use-after-free in f+0x12/0x30",
        "BUG: KASAN: slab-use-after-free in f.constprop.0+0x44/0x50",
    ),
    (
        "NULL pointer dereference",
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "BUG: unable to handle kernel NULL pointer dereference at 0000000000000010",
    ),
    (
        "page fault",
        "BUG: unable to handle page fault for address: ffffc90000000000",
        "BUG: unable to handle kernel paging request at ffff8880deadbeef",
    ),
    (
        "general protection fault",
        "general protection fault: 0000 [#1] SMP",
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#2] SMP",
        "Oops: general protection fault, probably for non-canonical address 0x1: 0000 [#1] SMP",
    ),
    (
        "soft lockup",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]",
        "NMI watchdog: BUG: soft lockup - CPU#7 stuck for 45s! [python3:812]",
    ),
    (
        "RCU stall",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        "INFO: rcu_preempt self-detected stall on CPU",
    ),
    (
        "hung task",
        "INFO: task sh:12 blocked for more than 120 seconds.",
        "INFO: task kworker/0:1:99 blocked for more than 241 seconds.",
        "INFO: task jbd2/vda-8:99 blocked in I/O wait for more than 122 seconds.",
    ),
    ("divide error", "divide error: 0000 [#1] SMP", "Oops: divide error: 0000 [#1] PREEMPT SMP"),
    ("kernel BUG in mm/slub.c", "kernel BUG at mm/slub.c:305!", "kernel BUG at ./mm/slub.c:12!"),
    (
        "UBSAN: shift-out-of-bounds in net/a.c",
        "UBSAN: shift-out-of-bounds in net/a.c:12:7",
        "UBSAN: shift-out-of-bounds in /build/linux-1/linux-6.1/net/a.c:99:1",
    ),
    (
        "WARNING in bpf_prog_mine",
        "WARNING: CPU: 0 PID: 1 at kernel/a.c:1 bpf_prog_6deef7357e7b4530_mine+0x1/0x2",
        "WARNING: CPU: 0 PID: 1 at kernel/a.c:1 bpf_prog_0123456789abcdef_mine+0x8/0x9",
    ),
    ("BUG: an unknown …", "BUG: an unknown 0xffff", "BUG: an unknown 0x12"),
]


@pytest.mark.parametrize(
    ("expected", "text"), [(expected, text) for expected, *texts in SAME for text in texts]
)
def test_a_fingerprint_has_nothing_of_one_kernel_or_run(expected: str, text: str) -> None:
    assert fingerprint(text) == expected


OOPS = """\
[    9.000001] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    9.000002] #PF: supervisor write access in kernel mode
[    9.000003] Oops: 0002 [#1] PREEMPT SMP NOPTI
[    9.000004] CPU: 0 PID: 77 Comm: cat Not tainted 6.12.1 #1
[    9.000005] RIP: 0010:write_it+0x1d/0x60 [a_module]
[    9.000006] Call Trace:
[    9.000007]  vfs_write+0xce/0x4a0
"""
STALL = """\
[    9.000001] INFO: task sh:12 blocked for more than 120 seconds.
[    9.000002] task:sh              state:D stack:0     pid:12    tgid:12    ppid:1
[    9.000003] Call Trace:
[    9.000004]  <TASK>
[    9.000005]  __schedule+0x3f/0x90
[    9.000006]  ? asleep+0x1/0x2
[    9.000007]  schedule+0x5a/0xd0
[    9.000008]  take_it+0x12/0x20
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            OOPS,
            [
                "NULL pointer dereference in write_it [a_module]",
                "oops in write_it [a_module]",
            ],
        ),
        (STALL, ["hung task in take_it"]),
        (STALL.partition("[    9.000003]")[0], ["hung task"]),
    ],
)
def test_the_lines_behind_a_complaint_tell_its_function(
    said: str, expected: list[str], tmp_path: Path
) -> None:
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    console.feed(said.encode())
    assert [found.fingerprint for found in console.findings(Sign.SPLAT)] == expected


def test_a_function_behind_another_complaint_is_not_that_of_the_first(tmp_path: Path) -> None:
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    console.feed(b"[    8.000000] BUG: scheduling while atomic: sh/7/0x2\n" + OOPS.encode())
    assert console.findings(Sign.SPLAT)[0].fingerprint == "scheduling while atomic"


def test_what_a_process_prints_behind_a_complaint_tells_no_function(tmp_path: Path) -> None:
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    console.feed(
        b"[    8.000000] BUG: scheduling while atomic: sh/7/0x2\n RIP: 0010:forged+0x1/0x2\n"
    )
    assert console.findings(Sign.SPLAT)[0].fingerprint == "scheduling while atomic"


def test_results_put_together_keep_every_complaint_with_its_fingerprint() -> None:
    known = KnownComplaint("WARNING: b", "WARNING in b", "issue 8")
    one = KernelResult("k", Status.SPLAT, splats=("BUG: a",), fingerprints=("oops in a",))
    two = KernelResult("k", Status.PASSED, known_splats=(known,))
    old = KernelResult("k", Status.SPLAT, splats=("BUG: scheduling while atomic: sh/1/0x2",))
    result = with_complaints(two, (one, two, old))
    assert result.fingerprints == ("oops in a", "scheduling while atomic")
    assert result.known_splats == (known,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]", True),
        ("watchdog: Watchdog detected hard LOCKUP on cpu 0", True),
        ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-.... }", True),
        ("INFO: task python3:12 blocked for more than 120 seconds.", True),
        ("WARNING: CPU: 0 PID: 12 at kernel/bpf/a.c:12 check_it+0x1/0x2", False),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", False),
    ],
)
def test_a_lockup_a_stall_and_a_hung_task_say_that_the_kernel_does_not_go_on(
    text: str, expected: bool
) -> None:
    assert stalls(text) == expected


HUNG = "INFO: task {} blocked for more than 120 seconds."


@pytest.mark.parametrize(
    ("line", "of_the_kernel"),
    [
        # Linux 6.12, 5.10 and 4.19.
        (
            "task:kworker/u4:0    state:D stack:0   pid:11    tgid:11    ppid:2 flags:0x4",
            True,
        ),
        ("task:kworker/0:1H   state:D stack:    0 pid:   70 ppid:     2 flags:0x00004000", True),
        ("kworker/u4:0    D    0    11      2 0x80000000", True),
        (
            "task:sh          state:D stack:0     pid:12    tgid:12    ppid:1 flags:0x",
            False,
        ),
        ("task:sh              state:D stack:    0 pid:   12 ppid:    23 flags:0x00004000", False),
        ("sh              D    0     2     12 0x00000000", False),
        ("Workqueue: events_unbound ppid:2", False),
    ],
)
def test_a_hung_thread_of_the_kernels_own_is_told_from_a_process(
    line: str, of_the_kernel: bool, tmp_path: Path
) -> None:
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    said = f"[    9.000001] {HUNG.format('it:11')}\n[    9.000002]       Not tainted 6.12.1 #1\n"
    console.feed(f"{said}[    9.000003] {line}\n[    9.000004]  take_it+0x12/0x20\n".encode())
    (found,) = console.findings(Sign.SPLAT)
    assert found.kernel_thread == of_the_kernel
    assert found.fingerprint == "hung task in take_it"


def test_what_stands_behind_the_first_frame_says_nothing_of_the_task(tmp_path: Path) -> None:
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    late = "task:kworker/u4:0 state:D stack:0 pid:11 ppid:2 flags:0x4"
    said = f"[    9.000001] {HUNG.format('sh:12')}\n[    9.000002]  take_it+0x12/0x20\n"
    console.feed(f"{said}[    9.000003] {late}\n".encode())
    assert not console.findings(Sign.SPLAT)[0].kernel_thread

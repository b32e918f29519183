"""The end of a console, without what every boot says."""

import re
from pathlib import Path

import pytest

from vmtest.model.results import Complaint, KernelResult, Outcome, Status, TestResult
from vmtest.report import console
from vmtest.report.written import written
from vmtest.vm.console import ConsoleLog
from vmtest.vm.klog import as_dmesg

DATA = Path(__file__).parent / "data" / "klog"

ENDS = {
    "5.10": "[    4.150394] virtme-ng-init: /run previously mounted, skipping",
    "6.1": "[    3.812044] Freeing unused kernel image (initmem) memory: 2804K",
    "6.12": "[    4.241355] 9pnet: Limiting 'msize' to 512000 as this is the maximum supported",
    "7.3": "[    3.013118] evm: security.ima",
    "caller": "[    3.013118][    T1] evm: security.ima",
}
LAST = "[    9.000000] reboot: Restarting system"


@pytest.mark.parametrize("line", ENDS.values(), ids=ENDS)
def test_what_every_boot_says_is_left_out_and_counted(line: str) -> None:
    words = "console's last lines, without 1 line that every boot has"
    assert console.tail([line, LAST], 8) == console.Tail([LAST], 0, words)


@pytest.mark.parametrize(
    "line",
    [
        "[    3.2] VFS: Unable to mount root fs on unknown-block(0,0)",
        "[    3.2] virtme-ng-init: ERROR: failed to mount /run",
        "[    3.2] 9p: Could not find request transport: virtio",
        "[    3.2] ACPI Error: AE_NOT_FOUND",
        "[    3.2] 9pnet_virtio: no channels available for device root",
        "[    3.2] squashfs: SQUASHFS error: unable to read inode lookup table",
        "virtme-ng-init: running systemd-tmpfiles",
    ],
)
def test_what_only_some_boots_say_stays(line: str) -> None:
    assert console.tail([line, LAST], 8) == console.Tail([line, LAST], 0, "console's last lines")


def test_the_last_line_stays_whatever_it_is() -> None:
    assert console.tail([ENDS["5.10"]], 8).lines == [ENDS["5.10"]]


def test_lines_that_are_left_out_make_room_for_those_before() -> None:
    lines = ["Oops", *ENDS.values(), LAST]
    assert console.tail(lines, 2).lines == ["Oops", LAST]


OOPS = """\
[   10.1] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   10.2] #PF: supervisor read access in kernel mode
[   10.2] PGD 0 P4D 0
[   10.3] Oops: 0000 [#1] PREEMPT SMP NOPTI
[   10.3] CPU: 0 PID: 141 Comm: python3 Tainted: G           OE      6.1.0-41-amd64 #1
[   10.3] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2 04/01/2014
[   10.4] RIP: 0010:check_it+0x12/0x40 [a_module]
[   10.4] Code: 0f 1f 44 00 00 <48> 8b 47 08 c3
[   10.4] RSP: 0018:ffffc9000043fe60 EFLAGS: 00010246
[   10.4] RAX: 0000000000000000 RBX: ffff888003a5e000 RCX: 0000000000000000
[   10.4] FS:  00007f2b1c0f0740(0000) GS:ffff88803ec00000(0000) knlGS:0000000000000000
[   10.4] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[   10.4] CR2: 0000000000000008 CR3: 0000000003a9c000 CR4: 00000000000006f0
[   10.5] Call Trace:
[   10.5]  <TASK>
[   10.5]  ? __die_body.cold+0x1a/0x1f
[   10.5]  write_it+0x31/0x60 [a_module]
[   10.5]  vfs_write+0xc4/0x270
[   10.5]  </TASK>
[   10.6] Modules linked in: a_module(OE) 9pnet_virtio
[   10.6] ---[ end trace 0000000000000000 ]---
[   10.7] RIP: 0010:check_it+0x12/0x40 [a_module]
[   10.7] RAX: 0000000000000000 RBX: ffff888003a5e000 RCX: 0000000000000000
[   10.8] Kernel panic - not syncing: Fatal exception
[   10.8] Kernel Offset: disabled""".splitlines()
TOLD = [OOPS[n] for n in (0, 3, 4, 6, 13, 16, 17, 23)]


def test_a_panic_is_its_complaint_function_and_call_trace() -> None:
    before = ["[    9.0] a test", "[    9.1] another"]
    assert console.tail([*before, *OOPS], 14).lines == TOLD


@pytest.mark.parametrize("most", [4, 6, 7])
def test_a_panic_with_little_room_keeps_its_beginning_and_its_line(most: int) -> None:
    lines = console.tail(OOPS, most).lines
    assert len(lines) == most
    assert lines[: most - 2] == TOLD[: most - 2]
    assert lines[-2:] == [f"... {len(TOLD) - most + 1} more lines; the log has all", TOLD[-1]]


def test_registers_are_left_out_of_what_the_kernel_said_during_a_test() -> None:
    test = TestResult("t", "s", Outcome.FAILED, kernel_log="\n".join(OOPS))
    ((_, text),) = written(test)
    assert text.splitlines() == TOLD


def test_a_complaint_is_shown_with_its_call_trace_from_the_test_that_ran() -> None:
    log = "\n".join(["[    9.0] a test", *OOPS])
    test = TestResult("t", "s", Outcome.PASSED, kernel_log=log)
    of = KernelResult("a", Status.SPLAT, tests=(test,))
    complaint = Complaint(OOPS[0][10:], "f", "t")
    assert console.of_a_complaint(complaint, of, 12) == TOLD[:-1]
    assert console.of_a_complaint(complaint, of, 3) == [
        *TOLD[:2],
        "... 5 more lines; the log has all",
    ]
    assert console.of_a_complaint(Complaint("BUG: x", "f", "t"), of, 3) == ["BUG: x"]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            "5.10",
            ["proc_dir_entry", "WARNING: CPU: 0 PID: ", "CPU: 0 PID", "RIP: 0010:proc_register"],
        ),
        (
            "backports",
            ["proc_dir_entry", "WARNING: fs/proc/generic.c", "CPU: 0", "RIP: 0010:proc_r"],
        ),
    ],
)
def test_a_real_complaint_is_its_words_function_and_call_trace(file: str, said: list[str]) -> None:
    log = as_dmesg((DATA / f"warning-{file}.kmsg").read_text())
    first = next(line for line in log.splitlines() if "WARNING: " in line and "generic.c" in line)
    told = console.story(log, first.partition("] ")[2], 40)
    texts = [line.partition("] ")[2] for line in told]
    assert [text.startswith(part) for text, part in zip(texts, said, strict=False)] == [True] * 4
    assert texts[4] == "Call Trace:"
    assert " pktgen_thread_write" in "\n".join(texts)
    assert not any(
        re.match(r"R[ABCDS]?[XPI0-9]+: [0-9a-f]{16}|Code|Modules", text) for text in texts
    )


def test_a_real_panic_is_shown_from_its_words_on(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "console.log", lambda: None)
    log.feed((DATA.parent / "console" / "panic-6.12.log").read_bytes())
    told = [line.partition("] ")[2] for line in console.tail(log.tail, 14).lines]
    assert told[0] == "proc_dir_entry 'pktgen/pgctrl' already registered"
    assert told[1].startswith("WARNING: CPU: 0 PID: 197 at fs/proc/generic.c:399 proc_register+")
    assert told[3] == "RIP: 0010:proc_register+0x182/0x220"
    assert told[4:7] == [
        "Call Trace:",
        " proc_create_data+0x38/0x50",
        " pktgen_thread_write+0x5cc/0x7d0 [pktgen]",
    ]
    assert told[-1] == "Kernel panic - not syncing: kernel: panic_on_warn set ..."


def test_lines_before_the_last_are_counted() -> None:
    assert console.tail([f"line {n}" for n in range(10)], 4).left_out == 6

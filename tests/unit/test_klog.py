"""The kernel's log: what recorded logs mean, and its reader against a pty that plays /dev/kmsg."""

from __future__ import annotations

import os
import select
import signal
import threading
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fake_session import HostSession

from vmtest.errors import DeadlineExceeded, SessionLost
from vmtest.vm.console import ConsoleLog, Finding, Sign
from vmtest.vm.klog import KernelLog, LogReader, Record, merged, parse_record, taints

DATA = Path(__file__).parent / "data" / "klog"
UP = b"12,500,41519699,-;vmtest: the guest is up\n"
WARNING = b"4,517,174063716,-;WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n"


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b"6,1,5,-;text; with, all", Record(1, 5, "text; with, all")),
        (b"6,1,5,-,caller=T12;x", Record(1, 5, "x")),
        (b"4,9,1000001,c;x", Record(9, 1000001, "x")),
        (rb"6,1,5,-;a\x0ab\xc3\xa4\x5c", Record(1, 5, "a\nbä\\")),
        (rb"6,1,5,-;\xff", Record(1, 5, "�")),
        (b" SUBSYSTEM=virtio", None),
        (b"", None),
        (b"no record", None),
    ],
)
def test_a_record_is_read_as_the_kernel_documents_it(line: bytes, record: Record | None) -> None:
    assert parse_record(line) == record


def test_a_stamp_is_as_on_the_console() -> None:
    assert Record(1, 10_000_042, "").stamp == "10.000042"


def nothing() -> None:
    pass


def children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in listed] + [c for n in listed for c in children(int(n))]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def kill(pid: int) -> None:
    """Kill a process and what it has started, and wait until all of them are gone."""
    for one in [pid, *children(pid)]:
        with suppress(ProcessLookupError):  # it ended by itself
            pidfd = os.pidfd_open(one)
            os.kill(one, signal.SIGKILL)
            assert select.select([pidfd], [], [], 20)[0]
            os.close(pidfd)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[KernelLog]:
    opened = KernelLog(tmp_path / "dmesg.log")
    yield opened
    opened.close()


def texts(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found]


@pytest.mark.parametrize("recorded", sorted(DATA.glob("*.kmsg")), ids=lambda path: path.name)
def test_a_recorded_warning_is_found_once(log: KernelLog, recorded: Path) -> None:
    log.feed(recorded.read_bytes())
    (warning,) = log.findings(Sign.SPLAT)
    assert "proc_register+0x" in warning.text
    assert log.up is not None and float(warning.stamp) > log.up
    assert log.lost == 0


@pytest.mark.parametrize("recorded", sorted(DATA.glob("*.kmsg")), ids=lambda path: path.name)
def test_a_recorded_warning_has_one_fingerprint_on_every_kernel(
    log: KernelLog, recorded: Path
) -> None:
    log.feed(recorded.read_bytes())
    (warning,) = log.findings(Sign.SPLAT)
    assert warning.fingerprint == "WARNING in proc_register"


@pytest.mark.parametrize("recorded", sorted(DATA.glob("*.kmsg")), ids=lambda path: path.name)
def test_what_console_and_log_both_say_counts_once(
    log: KernelLog, tmp_path: Path, recorded: Path
) -> None:
    log.feed(recorded.read_bytes())
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    console.feed((tmp_path / "dmesg.log").read_bytes())
    assert len(console.findings(Sign.SPLAT)) == 1
    assert len(merged(console.findings(Sign.SPLAT), log.findings(Sign.SPLAT))) == 1


def test_what_only_one_of_them_says_counts_too_in_the_order_of_the_kernels_time() -> None:
    def of(stamp: str) -> Finding:
        return Finding(Sign.SPLAT, f"BUG: {stamp}", 0.0, stamp)

    found = merged([of("9.000001"), of("10.000000")], [of("10.000000"), of("100.0"), of("2.0")])
    assert [finding.stamp for finding in found] == ["2.0", "9.000001", "10.000000", "100.0"]


def test_two_complaints_of_one_moment_stay_two() -> None:
    both = [Finding(Sign.SPLAT, text, 0.0, "1.000000") for text in ("BUG: a", "BUG: b")]
    assert len(merged(both, both[:1])) == 2


def test_a_complaint_came_when_the_first_of_console_and_log_had_it() -> None:
    """A guest that stood still reads its log late: what it survived would end the next test."""
    console = Finding(Sign.SPLAT, "as it came", 1.0, "10.000000", heard=1022.0)
    log = Finding(Sign.SPLAT, "watchdog: BUG: soft lockup", 4.0, "10.000000", heard=1025.05)
    (found,) = merged([console], [log])
    assert (found.text, found.heard) == ("watchdog: BUG: soft lockup", 1022.0)


def test_a_message_of_several_lines_is_read_line_by_line(log: KernelLog) -> None:
    log.feed(b"4,1,5,-;\\x0a=====\\x0aWARNING: possible recursive locking detected\n")
    assert texts(log.findings(Sign.SPLAT)) == ["WARNING: possible recursive locking detected"]


def test_a_gap_in_the_numbers_is_counted_and_said_in_the_log(log: KernelLog) -> None:
    log.feed(UP + WARNING)
    assert log.lost == 16
    kept = log.path.read_text()
    assert "(vmtest: 16 records were overwritten before they could be read)\n[  174" in kept


def test_what_the_boot_overwrote_is_no_gap(log: KernelLog) -> None:
    log.feed(b"6,300,5,-;the first that is left\n")
    assert log.lost == 300
    log.feed(UP)
    assert log.lost == 0


def test_a_record_that_comes_in_pieces_is_read_whole(log: KernelLog) -> None:
    log.feed(WARNING[:30])
    assert log.findings(Sign.SPLAT) == []
    log.feed(WARNING[30:])
    assert len(log.findings(Sign.SPLAT)) == 1


def test_a_full_disk_stops_no_reading() -> None:
    log = KernelLog(Path("/dev/full"))
    log.feed(WARNING)
    log.close()
    assert len(log.findings(Sign.SPLAT)) == 1


def test_only_new_marks_of_complaints_count() -> None:
    assert taints(0, 1 << 9 | 1 << 12) == ("warning (W)",)
    assert taints(1 << 9, 1 << 9 | 1 << 0) == ()


class Kernel(threading.Thread):
    """The other end of a /dev/kmsg: numbers what is written, and can say something itself."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = Path(os.ttyname(self.slave))
        self.number = 0
        self.deaf = False
        self.start()

    def run(self) -> None:
        rest = b""
        while data := self._read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not self.deaf:
                    self.say(line.partition(b">")[2].decode())

    def _read(self) -> bytes:
        try:
            return os.read(self.master, 1 << 12)
        except OSError:  # EIO: nobody has the other end
            return b""

    def close(self) -> None:
        os.close(self.slave)
        self.join(timeout=20)  # the last end of the pty is closed: its reading ends
        os.close(self.master)

    def say(self, text: str) -> None:
        os.write(self.master, f"4,{self.number},{1000 + self.number},-;{text}\n".encode())
        self.number += 1


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "tainted").write_text("0\n")
    (tmp_path / "proc" / "printk_devkmsg").write_text("ratelimit\n")
    return tmp_path / "proc"


@pytest.fixture
def session(kernel: Kernel, proc: Path) -> Iterator[HostSession]:
    opened = HostSession(
        {"/dev/kmsg": kernel.path, "/proc/sys/kernel": proc, "/bin/busybox": proc / "none"}
    )
    yield opened
    opened.close()
    kernel.close()


@pytest.fixture
def reader(session: HostSession, log: KernelLog) -> Iterator[LogReader]:
    opened = LogReader(session, log)
    yield opened
    for process in session.streams:
        kill(process.pid)
    opened.join()


def test_all_that_was_said_before_the_end_is_read(reader: LogReader, kernel: Kernel) -> None:
    for number in range(1000):
        kernel.say(f"BUG: {number}")
    reader.finish(20, nothing)
    assert len(reader.log.findings(Sign.SPLAT)) == 1000
    assert (reader.notes, reader.unseen) == ((), "")


def test_a_test_that_kills_what_reads_the_log_hides_nothing(
    reader: LogReader, session: HostSession, kernel: Kernel, log: KernelLog
) -> None:
    reader.finish(20, nothing)
    (process,) = session.streams
    (cat,) = [pid for pid in children(process.pid) if name_of(pid) == "cat"]
    kill(cat)
    kernel.say("BUG: here")
    reader.finish(20, nothing)
    assert texts(log.findings(Sign.SPLAT)) == ["BUG: here"]


@pytest.mark.parametrize("which", ["the shell", "its child"])
def test_a_test_that_kills_the_reader_hides_nothing(
    which: str, reader: LogReader, session: HostSession, kernel: Kernel, log: KernelLog
) -> None:
    reader.finish(20, nothing)
    shell = session.streams[0].pid
    kill(shell if which == "the shell" else children(shell)[0])
    kernel.say("BUG: here")
    reader.finish(20, nothing)
    assert texts(log.findings(Sign.SPLAT)) == ["BUG: here"]


def test_a_complaint_that_was_overwritten_leaves_its_mark(
    reader: LogReader, kernel: Kernel, proc: Path
) -> None:
    reader.finish(20, nothing)
    (proc / "tainted").write_text("512\n")
    kernel.number += 7
    reader.finish(20, nothing)
    assert reader.log.findings(Sign.SPLAT) == []
    assert reader.unseen == "warning (W)"
    assert reader.notes[0].startswith("7 records of the kernel's log were overwritten")


def test_a_kernel_that_takes_no_mark_is_read_until_a_pause(
    reader: LogReader, kernel: Kernel, proc: Path
) -> None:
    (proc / "printk_devkmsg").write_text("off\n")
    kernel.deaf = True
    kernel.say("BUG: here")
    reader.finish(20, nothing)
    assert texts(reader.log.findings(Sign.SPLAT)) == ["BUG: here"]


def test_a_guest_that_does_not_answer_is_given_up_at_our_own_limit(
    reader: LogReader, kernel: Kernel
) -> None:
    kernel.deaf = True
    with pytest.raises(DeadlineExceeded, match=r"reading the kernel's log to its end took over"):
        reader.finish(0.5, nothing)


def test_an_interrupt_ends_the_waiting(
    reader: LogReader, kernel: Kernel, session: HostSession
) -> None:
    kernel.deaf = True

    def check() -> None:
        if session.streams:
            raise SessionLost("cancelled")

    with pytest.raises(SessionLost, match="cancelled"):
        reader.finish(60, check)


def test_a_guest_without_a_log_is_said(log: KernelLog, tmp_path: Path, proc: Path) -> None:
    session = HostSession({"/dev/kmsg": tmp_path / "none" / "kmsg", "/proc/sys/kernel": proc})
    reader = LogReader(session, log)
    reader.finish(20, nothing)
    session.close()
    (note,) = reader.notes
    assert note.startswith("the kernel's log could not be read (")

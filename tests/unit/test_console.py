from pathlib import Path

import pytest

from vmtest.vm import console
from vmtest.vm.console import (
    MOST_FINDINGS,
    STORY,
    ConsoleLog,
    Lines,
    Sign,
    classify,
    clean,
    sign_of,
)

DATA = Path(__file__).parent / "data" / "console"


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("[    7.748769] Kernel panic - not syncing: Attempted to kill init!", Sign.PANIC),
        ("[  12.3][   T41] Kernel panic - not syncing: sysrq triggered crash", Sign.PANIC),
        ("[   10.1] WARNING: CPU: 0 PID: 12 at net/core/dev.c:12 foo+0x1/0x2", Sign.SPLAT),
        ("[   10.1] BUG: kernel NULL pointer dereference, address: 0000000", Sign.SPLAT),
        ("[   10.1] Oops: 0002 [#1] PREEMPT SMP NOPTI", Sign.SPLAT),
        ("[   10.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]", Sign.SPLAT),
        ("[   10.1] NMI watchdog: Watchdog detected hard LOCKUP on cpu 1", Sign.SPLAT),
        ("[   10.1] BUG kmalloc-64 (Not tainted): Poison overwritten", Sign.SPLAT),
        ("[   10.1] stack segment: 0000 [#1] PREEMPT SMP NOPTI", Sign.SPLAT),
        ("[   10.1] rcu: INFO: rcu_preempt self-detected stall on CPU", Sign.SPLAT),
        ("[   10.1] INFO: task sh:12 blocked for more than 120 seconds.", Sign.SPLAT),
        ("[   10.1] INFO: task sh:12 blocked in I/O wait for more than 1 seconds.", Sign.SPLAT),
        ("[   10.1] watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1", Sign.SPLAT),
        ("[   10.1] Out of memory: Killed process 99 (python3)", Sign.OUT_OF_MEMORY),
        ("no line break here[   10.100000] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1", Sign.SPLAT),
        (
            "a process[    7.1] said this[   12.345678][   T41] Kernel panic - not syncing: x",
            Sign.PANIC,
        ),
        ("it took [1.5] BUG: a test printed this", None),
        ("[    0.1] Kernel command line: panic=-1", None),
        ("[    3.2] virtme-ng-init: WARNING: failed to run: systemd-tmpfiles", None),
        ("WARNING: a test printed this", None),
        ("Kernel panic - not syncing: a test printed this", None),
    ],
)
def test_a_line_means_what_the_kernel_says_in_it(line: str, sign: Sign | None) -> None:
    assert classify(line) == sign


def test_escapes_and_control_characters_are_cleaned_away() -> None:
    assert clean("\x1b[1;31m[ 1.0] BUG: x\x1b[0m\r") == "[ 1.0] BUG: x"


@pytest.mark.parametrize("recorded", sorted(DATA.glob("quiet-*.log")), ids=lambda p: p.name)
def test_a_recorded_good_boot_has_no_sign(recorded: Path) -> None:
    lines = [clean(line) for line in recorded.read_text(errors="replace").splitlines()]
    assert [line for line in lines if "Linux version" in line], "no boot was recorded"
    assert [line for line in lines if classify(line)] == []


def log(tmp_path: Path, panics: list[int] | None = None) -> ConsoleLog:
    seen = panics if panics is not None else []
    return ConsoleLog(tmp_path / "console.log", lambda: seen.append(1))


def test_a_line_that_comes_in_pieces_is_seen_once_whole(tmp_path: Path) -> None:
    panics: list[int] = []
    console = log(tmp_path, panics)
    console.feed(b"[ 1.0] Kernel pan")
    assert panics == []
    console.feed(b"ic - not syncing: x\n[ 1.1] CPU: 0\n")
    assert panics == [1]
    assert console.panic is not None
    assert console.panic.text == "Kernel panic - not syncing: x"


def test_only_the_first_panic_is_announced(tmp_path: Path) -> None:
    panics: list[int] = []
    console = log(tmp_path, panics)
    console.feed(b"[ 1.0] Kernel panic - not syncing: a\n" * 2)
    assert panics == [1]


@pytest.mark.parametrize("text", ["", " ", "a", "WARNING: x is deprecated"])
def test_a_line_of_many_time_stamps_is_looked_at_once(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def counted(text: str) -> Sign | None:
        looked.append(text)
        return sign_of(text)

    monkeypatch.setattr(console, "sign_of", counted)
    line = f"[    1.000000] {text}" * 1000
    assert classify(line) is None
    assert sum(map(len, looked)) <= len(line)
    assert "" not in looked


def test_a_complaint_between_time_stamps_is_seen_with_all_that_follows(tmp_path: Path) -> None:
    said = log(tmp_path)
    said.feed(b"[    1.000000] a[    2.000000] WARNING: b[    3.000000] c\n")
    (found,) = said.findings(Sign.SPLAT)
    assert (found.stamp, found.text) == ("2.000000", "WARNING: b[    3.000000] c")


def test_the_unfinished_last_line_counts_once_closed(tmp_path: Path) -> None:
    console = log(tmp_path)
    console.feed(b"[ 1.0] BUG: cut of")
    assert console.findings(Sign.SPLAT) == []
    console.close()
    assert [finding.text for finding in console.findings(Sign.SPLAT)] == ["BUG: cut of"]


def test_the_tail_is_bounded_and_ends_with_the_last_line(tmp_path: Path) -> None:
    console = log(tmp_path)
    console.feed(b"".join(b"line %d\n" % n for n in range(100)))
    assert len(console.tail) == 30
    assert console.tail[-1] == "line 99"


def oops(stamp: int, lines: int) -> bytes:
    """An oops as the kernel prints it, with so many frames, and the panic that follows."""
    said = [
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "#PF: supervisor read access in kernel mode",
        "Oops: 0000 [#1] PREEMPT SMP NOPTI",
        *(f" frame_{n}+0x1/0x2" for n in range(lines)),
        "Kernel panic - not syncing: Fatal exception",
        "Kernel Offset: disabled",
    ]
    return "".join(f"[{stamp:5}.000000] {line}\n" for line in said).encode()


@pytest.mark.parametrize("frames", [3, 60, 200])
def test_of_a_panic_all_is_kept_from_the_first_complaint_on(tmp_path: Path, frames: int) -> None:
    console = log(tmp_path)
    console.feed(b"[    1.000000] WARNING: early\n" + b"[    2.000000] a test\n" * 130)
    console.feed(oops(9, frames))
    assert console.tail[0].startswith("[    9.000000] BUG: kernel NULL pointer dereference, addr")
    assert "[    9.000000] Kernel panic - not syncing: Fatal exception" in console.tail
    assert len(console.tail) == min(frames + 5, STORY)


def test_of_a_panic_without_a_complaint_the_lines_before_are_kept(tmp_path: Path) -> None:
    console = log(tmp_path)
    console.feed(b"".join(b"[    1.000000] line %d\n" % n for n in range(50)))
    console.feed(b"[    2.000000] Kernel panic - not syncing: a\n[    2.100000] Call Trace:\n")
    assert (console.tail[0], console.tail[-1]) == (
        "[    1.000000] line 40",
        "[    2.100000] Call Trace:",
    )


def test_a_line_without_an_end_is_cut_and_nothing_of_it_is_lost() -> None:
    lines = Lines()
    sent = bytes(range(32, 127)) * 10_000
    got = [line for begin in range(0, len(sent), 5000) for line in lines.feed(sent[begin:][:5000])]
    assert max(map(len, got)) <= 1 << 16
    assert b"".join([*got, *lines.end()]) == sent


def test_a_panic_behind_20_megabytes_without_a_line_break_is_seen(tmp_path: Path) -> None:
    panics: list[int] = []
    console = log(tmp_path, panics)
    for _ in range(20 << 4):
        console.feed(b"#" * (1 << 16))
    console.feed(b"[   10.100000] Kernel panic - not syncing: x\n")
    assert panics == [1]
    assert max(map(len, console.tail)) <= 1000


@pytest.mark.parametrize("before", range(0, 1 << 11, 7))
def test_a_complaint_is_seen_wherever_a_long_line_is_cut(tmp_path: Path, before: int) -> None:
    console = log(tmp_path)
    console.feed(b"#" * ((1 << 16) - before))
    console.feed(b"[   10.100000][  T141] BUG: here\n")
    assert [finding.text for finding in console.findings(Sign.SPLAT)] == ["BUG: here"]


def test_a_flood_of_complaints_is_kept_up_to_a_bound(tmp_path: Path) -> None:
    console = log(tmp_path)
    console.feed(b"[   10.100000] BUG: again\n" * 5000)
    assert len(console.findings(Sign.SPLAT)) == MOST_FINDINGS

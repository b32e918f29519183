"""What a hostile guest writes is read in a time that grows with its length, not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtest.model.results import Outcome, TestResult
from vmtest.model.splats import fingerprint
from vmtest.model.text import printable
from vmtest.report.assertions import said
from vmtest.vm.console import ConsoleLog, Sign
from vmtest.vm.klog import KernelLog

LONG = 1 << 20
"""Characters: the most that a text of an event has (``vmtest.matrix.wire.Text``)."""
_STAMP = "[    1.000000] "
_HEAD = f"assert {'ab' * 60} == {'cd' * 60}"


def said_of(lines: str) -> str:
    details = f"E   {_HEAD}\n{lines}\n"
    return said(TestResult("a.py::t", "s", Outcome.FAILED, message=_HEAD, details=details))


def on_the_console(line: str) -> str:
    console = ConsoleLog(Path("console.log"), lambda: None)
    console.feed(f"{_STAMP}BUG: first\n{_STAMP}{line}\n".encode())
    return "".join(finding.fingerprint for finding in console.findings(Sign.SPLAT))


def in_the_log(line: str, folder: Path) -> str:
    log = KernelLog(folder / "dmesg.log")
    log.feed(f"6,1,1000000,-;BUG: first\n6,2,1000001,-;{line}\n".encode())
    log.close()
    return "".join(finding.fingerprint for finding in log.findings(Sign.SPLAT))


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (printable, "\r" * LONG),
        (printable, "\x1b[" * (LONG // 2)),
        (fingerprint, "BUG: " + "a" * LONG),
        (said_of, "E   a | " + " " * LONG + "x"),
        (said_of, "E   At index 1 diff: a != b\n" * (LONG // 28)),
        (on_the_console, "BUG: " + "a" * LONG),
        (on_the_console, "INFO: task" + " blocked" * (LONG // 8)),
        (on_the_console, "task:a state:" * (LONG // 13)),
    ],
    ids=lambda value: value[:12].strip() if isinstance(value, str) else value.__name__,
)
def test_long_text_takes_no_minutes(read: Callable[[str], str], text: str) -> None:
    began = time.thread_time()
    read(text)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("line", ["BUG: " + "a" * LONG, "task:a state:" * (LONG // 13)])
def test_a_long_record_of_the_kernels_takes_no_minutes(line: str, tmp_path: Path) -> None:
    began = time.thread_time()
    assert "BUG: first" in in_the_log(line, tmp_path)
    assert time.thread_time() - began < 5


def test_a_word_in_front_of_an_offset_is_still_found_whole() -> None:
    assert fingerprint("BUG: unable to handle page fault in a-check_it.part.0+0x1/0x2 [mod]") == (
        "page fault in check_it [mod]"
    )
    assert printable("a\r\r\nb\rc\r\r") == "a\nb\nc\n\n"


def test_values_in_a_table_are_told_apart() -> None:
    row = "E   Index | Obtained | Expected\nE   7     | 1.5      | 2.5 ± 2.5e-06"
    assert said_of(row).endswith("at 7: 1.5 != 2.5 ± 2.5e-06")

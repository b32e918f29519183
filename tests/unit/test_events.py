"""events.jsonl: what a run did and when."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtest.matrix.slots import Slots
from vmtest.model.events import (
    Booted,
    Booting,
    Event,
    Fetching,
    KernelFinished,
    KernelQueued,
    Note,
    Output,
    Preparing,
    SlotTaken,
    TestFinished,
    TestStarted,
)
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.runs.events import EVENTS, EventLog, Stamped, parse, read_events

HISTORY: tuple[Event, ...] = (
    KernelQueued("6.12"),
    Preparing("6.12", "reading the index"),
    SlotTaken("6.12", 2),
    Booting("6.12"),
    Booted("6.12", 5.25),
    TestStarted("6.12", "t.py::a"),
    TestFinished("6.12", TestResult("t.py::a", "s", Outcome.FAILED, 0.5, details="long")),
    KernelFinished("6.12", KernelResult("6.12", Status.FAILED)),
    Note("a word"),
)


def clock(*times: float) -> Callable[[], float]:
    told: Iterator[float] = iter(times)
    return lambda: next(told)


def test_every_event_is_read_back_with_its_time(tmp_path: Path) -> None:
    with EventLog(tmp_path / EVENTS, clock(100.0, *(100.5 + n for n in range(9)))) as log:
        for event in HISTORY:
            log.add(event)
    assert read_events(tmp_path) == (
        Stamped(0.5, "queued", "6.12"),
        Stamped(1.5, "preparing", "6.12", what="reading the index"),
        Stamped(2.5, "slot", "6.12", slot=2),
        Stamped(3.5, "booting", "6.12", count=1),
        Stamped(4.5, "booted", "6.12", seconds=5.25),
        Stamped(5.5, "test started", "6.12", test="t.py::a"),
        Stamped(6.5, "test finished", "6.12", what="failed", test="t.py::a", seconds=0.5),
        Stamped(7.5, "finished", "6.12", what="FAILED"),
        Stamped(8.5, "note", what="a word"),
    )


def test_a_line_is_on_disk_before_the_next_event(tmp_path: Path) -> None:
    with EventLog(tmp_path / EVENTS) as log:
        for number, event in enumerate(HISTORY, 1):
            log.add(event)
            assert len((tmp_path / EVENTS).read_bytes().splitlines()) == number


def test_a_download_has_a_line_a_second(tmp_path: Path) -> None:
    times = [0.0, *(n / 10 for n in range(25))]
    with EventLog(tmp_path / EVENTS, clock(*times)) as log:
        for done in range(25):
            log.add(Fetching("6.12", done, 25))
    assert [event.done for event in read_events(tmp_path)] == [0, 10, 20]


def test_what_a_command_writes_is_in_its_log_only(tmp_path: Path) -> None:
    with EventLog(tmp_path / EVENTS) as log:
        log.add(Output("6.12", b"secret", b""))
    assert (tmp_path / EVENTS).read_bytes() == b""


def test_a_full_disk_ends_the_log_and_nothing_else() -> None:
    with EventLog(Path("/dev/full")) as log:
        for event in HISTORY:
            log.add(event)
    assert log.problem.startswith("cannot write /dev/full: No space left on device")


def test_a_folder_that_is_not_there_ends_the_log_and_nothing_else(tmp_path: Path) -> None:
    with EventLog(tmp_path / "none" / EVENTS) as log:
        log.add(HISTORY[0])
    assert "cannot write" in log.problem


@pytest.mark.parametrize("line", ['{"at": 1', "[]", "{}", '{"at": "x", "event": 3}', "\x00", ""])
def test_a_line_that_is_no_event_is_left_out(line: str) -> None:
    good = json.dumps({"at": 1.0, "event": "queued", "kernel": "6.12", "later": "field"})
    assert parse([line, good]) == (Stamped(1.0, "queued", "6.12"),)


def test_a_run_without_the_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path) == ()


def test_a_slot_is_the_lowest_that_is_free() -> None:
    slots = Slots()
    with slots.taken() as one:
        with slots.taken() as two, slots.taken() as three:
            pass
        with slots.taken() as again:
            pass
    assert (one, two, three, again) == (1, 2, 3, 2)

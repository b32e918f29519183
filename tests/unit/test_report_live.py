"""What is seen while a run goes on, on a terminal and without one."""

import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from vmtest.model import events
from vmtest.model.events import (
    Booted,
    Booting,
    Building,
    Collected,
    Event,
    Expected,
    Fetching,
    KernelFinished,
    KernelQueued,
    LoadFinished,
    LoadStarted,
    Note,
    Preparing,
    SlotTaken,
)
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.report import live
from vmtest.report.progress import State

TEST = "test_s.py::test_x[ipv4]"
MIB = 1 << 20


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def failed(message: str = "assert 1 == 2") -> Event:
    return events.TestFinished("6.12", TestResult(TEST, "s", Outcome.FAILED, message=message))


def passed() -> Event:
    return events.TestFinished("6.12", TestResult(TEST, "s", Outcome.PASSED))


def lines(*happened: Event) -> list[str]:
    """What a plain view prints of events, without the times."""
    stream = io.StringIO()
    with live.PlainView(stream, clock=Clock(), tick=60) as view:
        for event in happened:
            view.handle(event)
    return [line.split("] ", 1)[1] for line in stream.getvalue().splitlines()]


def drawn(*happened: Event, later: float = 0.0, width: int = 100, height: int = 24) -> list[str]:
    """The picture ``later`` seconds after events that all came at once."""
    state = State(0.0)
    for event in happened:
        state = state.apply(event, 0.0)
    console = Console(width=width, file=io.StringIO(), _environ={})
    with console.capture() as capture:
        console.print(live.picture(state, later, width, height))
    return [line.rstrip() for line in capture.get().splitlines()]


def wait_for(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.005)
    return claim()


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


@pytest.fixture
def terminal() -> Iterator[Console]:
    yield Console(file=io.StringIO(), force_terminal=True, width=100, height=24, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("happened", "said"),
    [
        ((Fetching("6.12", 0, 98 * MIB),), "6.12: fetching 98.0 MiB"),
        ((Fetching("6.12", 0, 0),), "6.12: fetching"),
        ((Building("6.12", 0),), "6.12: building"),
        ((Preparing("6.12", "unpacking modules"),), "6.12: unpacking modules"),
        ((Booting("6.12"),), "6.12: booting"),
        ((Booting("6.12", 2),), "6.12: booting, attempt 2"),
        (
            (Booted("6.12", 4.13, "6.12.57-amd64", "tcg"),),
            "6.12: booted 6.12.57-amd64 in 4.1 s (tcg)",
        ),
        ((Booted("6.12", 4.13),), "6.12: booted in 4.1 s"),
        ((Collected("6.12", 53),), "6.12: running 53 tests"),
        ((failed(),), f"6.12: FAIL {TEST}: assert 1 == 2"),
        (
            (KernelFinished("6.12", KernelResult("6.12", Status.LOST, reason="qemu died")),),
            "6.12: LOST, 0 tests, 0.0 s: qemu died",
        ),
        ((Note("the mirror is gone"),), "the mirror is gone"),
    ],
)
def test_a_change_of_state_is_one_plain_line(happened: tuple[Event, ...], said: str) -> None:
    assert lines(*happened) == [said]


@pytest.mark.parametrize(
    "event", [KernelQueued("6.12"), events.TestStarted("6.12", TEST), passed()]
)
def test_what_is_no_news_prints_nothing(event: Event) -> None:
    assert lines(event) == []


def test_a_download_is_announced_once() -> None:
    assert lines(*(Fetching("6.12", n * MIB, 9 * MIB) for n in range(9))) == [
        "6.12: fetching 9.0 MiB"
    ]


def test_a_build_is_announced_once_and_says_how_many_files_it_made() -> None:
    said = lines(*(Building("6.12", n) for n in range(9)), Booting("6.12"))
    assert said == ["6.12: building", "6.12: built 8 files in 0.0 s", "6.12: booting"]


def test_a_build_that_failed_is_not_said_to_be_done() -> None:
    result = KernelResult("6.12", Status.INFRA_ERROR, reason="it does not compile")
    said = lines(Building("6.12", 9), KernelFinished("6.12", result))
    assert said[1:] == ["6.12: INFRA_ERROR, 0 tests, 0.0 s: it does not compile"]


def test_a_download_that_ended_says_how_much_it_was() -> None:
    said = lines(Fetching("6.12", 0, 9 * MIB), Fetching("6.12", 9 * MIB, 9 * MIB), Booting("6.12"))
    assert said[1:] == ["6.12: fetched 9.0 MiB in 0.0 s", "6.12: booting"]


def test_the_same_preparation_is_said_once() -> None:
    assert lines(*[Preparing("6.12", "waiting for the lock")] * 3) == ["6.12: waiting for the lock"]


def test_a_plain_line_begins_with_the_seconds_of_the_run() -> None:
    stream, clock = io.StringIO(), Clock()
    with live.PlainView(stream, clock=clock, tick=60) as view:
        clock.now += 12.34
        view.handle(Booting("6.12"))
    assert stream.getvalue() == "[   12.3 s] 6.12: booting\n"


def test_a_plain_line_is_one_line_without_escapes() -> None:
    (said,) = lines(failed("two\nlines \x1b[31mred\x1b[0m \x07"))
    assert said == f"6.12: FAIL {TEST}: two lines red \\x07"


def test_a_heartbeat_says_what_runs_after_thirty_silent_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    with live.PlainView(stream, clock=clock, tick=60) as view:
        view.handle(Collected("6.12", 53))
        view.handle(passed())
        view.handle(events.TestStarted("6.12", TEST))
        view.handle(Booting("7.0"))
        view.handle(KernelQueued("5.10"))
        clock.now += 30
        view.tick()
    assert stream.getvalue().splitlines()[-1] == (
        f"[   30.0 s] still running: 6.12 1 of 53 tests, {TEST} for 30.0 s; "
        "7.0 booting for 30.0 s; 1 waiting"
    )


def test_a_heartbeat_tells_how_far_a_download_is() -> None:
    stream, clock = io.StringIO(), Clock()
    with live.PlainView(stream, clock=clock, tick=60) as view:
        view.handle(Fetching("6.12", 0, 100 * MIB))
        clock.now += 40
        view.handle(Fetching("6.12", 20 * MIB, 100 * MIB))
        view.tick()
    assert "6.12 fetching 20.0 of 100.0 MiB, 0.5 MiB/s" in stream.getvalue()


def test_there_is_no_heartbeat_while_lines_come() -> None:
    stream, clock = io.StringIO(), Clock()
    with live.PlainView(stream, clock=clock, tick=60) as view:
        clock.now += 29
        view.handle(Booting("6.12"))
        clock.now += 29
        view.tick()
    assert "still running" not in stream.getvalue()


def test_a_heartbeat_comes_again_only_after_as_long() -> None:
    stream, clock = io.StringIO(), Clock()
    with live.PlainView(stream, clock=clock, tick=60) as view:
        for _ in range(6):
            clock.now += 10
            view.tick()
    assert stream.getvalue().count("still running") == 2


def test_the_heartbeat_needs_no_event() -> None:
    stream = io.StringIO()
    with live.PlainView(stream, heartbeat=0.02, tick=0.005):
        assert wait_for(lambda: "still running" in stream.getvalue())


def test_a_closed_stream_does_not_break_the_timer() -> None:
    stream = io.StringIO()
    with live.PlainView(stream, heartbeat=0.0, tick=0.001):
        wait_for(lambda: "still" in stream.getvalue())
        stream.close()
        assert wait_for(lambda: not timers())  # and no exception, which would be a warning


def test_the_timer_ends_with_the_view() -> None:
    with live.PlainView(io.StringIO(), tick=0.001):
        assert timers()
    assert not timers()


def test_letters_that_the_stream_cannot_encode_do_not_end_the_run() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with live.PlainView(stream, tick=60) as view:
        view.handle(Note("漢"))
    stream.seek(0)
    assert stream.read().endswith("] ?\n")


def test_a_kernel_that_waits_has_a_line() -> None:
    assert drawn(KernelQueued("6.12"))[0] == "6.12  waiting"


def test_a_download_shows_bytes_and_rate() -> None:
    (line, _) = drawn(
        Fetching("6.12", 0, 100 * MIB), Fetching("6.12", 45 * MIB, 100 * MIB), later=9
    )
    assert "45.0 of 100.0 MiB" in line
    assert "5.0 MiB/s" in line


def test_a_boot_shows_its_seconds() -> None:
    assert "7.5 s" in drawn(Booting("6.12"), later=7.5)[0]


def test_tests_show_how_many_of_how_many_and_the_running_one() -> None:
    happened = (Collected("6.12", 53), passed(), events.TestStarted("6.12", TEST))
    assert "1 of 53 tests  test_x[ipv4]" in drawn(*happened)[0]


def test_between_two_tests_the_last_one_is_shown() -> None:
    assert "test_x[ipv4]" in drawn(Collected("6.12", 53), passed())[0]


def test_a_test_that_takes_long_shows_its_seconds() -> None:
    assert "20.0 s test_x[ipv4]" in drawn(events.TestStarted("6.12", TEST), later=20)[0]


def test_failures_so_far_are_shown() -> None:
    assert "1 failed" in drawn(Collected("6.12", 53), failed())[0]


def test_the_time_spent_is_shown() -> None:
    assert drawn(Booting("6.12"), later=81)[0].endswith("1:21")


ACCEPTED = LoadResult("x.o", "p", Verdict.ACCEPTED)
REJECTED = LoadResult("x.o", "q", Verdict.REJECTED, line="R0 !read_ok")


def test_a_load_that_is_refused_is_a_line() -> None:
    assert lines(LoadFinished("6.12", ACCEPTED), LoadFinished("6.12", REJECTED)) == [
        "6.12: rejected x.o: q: R0 !read_ok"
    ]


def test_loads_show_how_many_and_at_which_object() -> None:
    shown = drawn(
        LoadStarted("6.12", "x.o: q", 3, 120),
        LoadFinished("6.12", REJECTED),
        LoadStarted("6.12", "x.o: r", 3, 120),
    )
    assert "1 load, object 3 of 120" in shown[0]
    assert "x.o: r" in shown[0]
    assert "1 failed" in shown[0]
    assert "1 load, 1 failed" in shown[-1]


def test_a_kernel_that_is_done_counts_its_loads() -> None:
    result = KernelResult("6.12", Status.PASSED, loads=(ACCEPTED, ACCEPTED))
    assert "2 loads" in drawn(KernelFinished("6.12", result))[0]


def test_a_kernel_that_is_done_shows_status_and_reason() -> None:
    result = KernelResult("6.12", Status.PANICKED, reason="sysrq")
    assert re.match(r"6\.12  PANICKED +0 tests +sysrq", drawn(KernelFinished("6.12", result))[0])


def test_the_last_line_counts_kernels_and_tests() -> None:
    happened = (KernelQueued("7.0"), Collected("6.12", 53), passed(), failed())
    assert drawn(*happened, later=42)[-1] == (
        "0:42  2 kernels: 1 running, 1 waiting; 2 tests, 1 failed"
    )


@pytest.mark.parametrize(
    ("usual", "words"),
    [
        (42.0, "; about 40 s left"),
        (89.0, "; about 90 s left"),
        (150.0, "; about 2 min left"),
        (1.0, ""),
        (0.0, ""),
    ],
)
def test_the_rest_is_estimated_by_what_earlier_runs_took(usual: float, words: str) -> None:
    happened = (Expected("6.12", usual), SlotTaken("6.12", 1), Collected("6.12", 53))
    assert drawn(*happened)[-1].endswith(f"1 running; 0 tests{words}")
    state = State(0.0)
    for event in happened:
        state = state.apply(event, 0.0)
    (line,) = live.still(state, 0.0)
    assert line == f"still running: 6.12 0 of 53 tests{words}"


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    happened = (
        Collected("6.12", 53),
        failed(),
        events.TestStarted("6.12", "test_s.py::test_" + "x" * 300),
        Fetching("7.0", 45 * MIB, 100 * MIB),
    )
    assert max(cell_len(line) for line in drawn(*happened, width=width)) <= width


def test_more_kernels_than_lines_show_the_active_ones() -> None:
    queued = [KernelQueued(f"k{n}") for n in range(30)]
    shown = drawn(*queued, Booting("k29"), height=10)
    assert len(shown) <= 10
    assert any(line.startswith("k29") for line in shown)
    assert "... and 23 more kernels" in shown


def test_markup_in_a_name_is_not_interpreted() -> None:
    assert "[red]x" in drawn(events.TestStarted("6.12", "test_s.py::[red]x"))[0]


def test_the_live_view_refreshes_without_events(terminal: Console) -> None:
    with live.LiveView(terminal, refresh_per_second=100) as view:
        view.handle(Booting("6.12"))
        assert wait_for(lambda: "booting" in written(terminal))
        size = len(written(terminal))
        assert wait_for(lambda: len(written(terminal)) > size)


def test_the_live_view_prints_a_failing_test_for_good(terminal: Console) -> None:
    with live.LiveView(terminal, clock=Clock()) as view:
        view.handle(failed())
    plain = Text.from_ansi(written(terminal)).plain
    assert f"6.12: FAIL {TEST}: assert 1 == 2" in plain


def test_the_live_view_gives_the_cursor_back(terminal: Console) -> None:
    with pytest.raises(KeyboardInterrupt), live.LiveView(terminal):
        raise KeyboardInterrupt
    assert written(terminal).rindex("\x1b[?25h") > written(terminal).rindex("\x1b[?25l")


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        assert isinstance(live.view(stream), live.PlainView)


def test_a_terminal_gets_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(live.view(Terminal()), live.LiveView)


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"])
def test_a_pipe_is_never_redrawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert isinstance(live.view(io.StringIO()), live.PlainView)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(live.view(Terminal()), live.PlainView)


def image(kernel: str, line: str) -> Event:
    return Preparing(kernel, f"guest image: {line}")


def test_the_guest_image_is_told_once_and_not_once_a_kernel() -> None:
    happened: list[Event] = [Note("building the guest image")]
    for line in ("building the guest image", "downloading", "packing"):
        happened += [image("5.10", line), image("6.1", line), image("6.12", line)]
    assert lines(*happened) == [
        "building the guest image",
        "guest image: downloading",
        "guest image: packing",
    ]


def test_a_kernel_that_waits_for_a_vm_is_not_running() -> None:
    state = State(0.0)
    for event in (KernelQueued("5.10"), Preparing("5.10", "waiting for a VM"), Booting("6.1")):
        state = state.apply(event, 0.0)
    assert live.still(state, 5.0) == ("still running: 6.1 booting for 5.0 s; 1 waiting",)


def test_a_quiet_view_says_notes_only() -> None:
    stream = io.StringIO()
    clock = Clock()
    with live.PlainView(stream, clock=clock, heartbeat=1, tick=60, quiet=True) as view:
        view.handle(Booting("6.12"))
        view.handle(Note("the mirror is gone"))
        clock.now += 100
        view.tick()
    assert stream.getvalue() == "[    0.0 s] the mirror is gone\n"

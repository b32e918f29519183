"""What is seen while a matrix runs: a picture on a terminal, plain lines elsewhere.

Both views keep a ``State`` and show it; neither decides anything.  They are
context managers, take events on one thread, and refresh by a timer of their
own, because a kernel that boots or a test that hangs sends no events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from vmtest.model.events import (
    GUEST_IMAGE,
    Booted,
    Booting,
    Building,
    Collected,
    Event,
    Fetching,
    KernelFinished,
    LoadFinished,
    Note,
    Preparing,
    TestFinished,
)
from vmtest.model.results import KernelResult
from vmtest.model.text import one_line
from vmtest.report import ids
from vmtest.report import table as tables
from vmtest.report.assertions import said
from vmtest.report.progress import KernelState, Phase, State
from vmtest.report.table import WRONG, Tone
from vmtest.report.terminal import STYLE
from vmtest.report.text import clock as clock_text
from vmtest.report.text import counted, mebibytes, seconds

Clock = Callable[[], float]
"""Seconds that never go back, such as ``time.monotonic``."""

_BAR = 12
_WIDE = 100  # columns from which on there is room for bars
_LONGEST = 300
_MOMENT = 3.0  # seconds: no estimate is that good
_NOT_BUILT = (Phase.BUILDING, Phase.DONE)


class View(Protocol):
    """Shows a run while it goes on."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and leave the terminal as it was."""

    def handle(self, event: Event) -> None:
        """Take an event in."""

    def aside(self) -> AbstractContextManager[None]:
        """Leave the terminal to somebody else for a while."""


def view(stream: TextIO, *, color: bool = True) -> View:
    """The view that fits ``stream``: live on a terminal, plain lines elsewhere.

    Only a terminal is redrawn, whatever the environment says of colours.
    """
    if not stream.isatty():
        return PlainView(stream)
    console = Console(
        file=stream,
        force_terminal=True,
        no_color=not color,
        markup=False,
        highlight=False,
        emoji=False,
    )
    return PlainView(stream) if console.is_dumb_terminal else LiveView(console)


class LiveView:
    """A line a kernel, redrawn in place; what went wrong is printed above and stays."""

    def __init__(
        self, console: Console, *, clock: Clock = time.monotonic, refresh_per_second: float = 4.0
    ) -> None:
        self._console = console
        self._clock = clock
        self._state = State(clock())
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=refresh_per_second,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._state = State(self._clock())
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def handle(self, event: Event) -> None:
        """Take an event in; a failing test and a note are printed above the picture."""
        now = self._clock()
        before = self._state
        self._state = before.apply(event, now)
        if isinstance(event, Note) or _went_wrong(event):
            for line in told(before, event, self._state, now):
                self._console.print(Text(line), soft_wrap=True)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the picture away for a while."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start(refresh=True)

    def _picture(self) -> RenderableType:
        return picture(self._state, self._clock(), self._console.width, self._console.height)


class PlainView:
    """A line for every change of state and every test that goes wrong.

    When nothing was printed for ``heartbeat`` seconds, a line says what is
    running, so that nobody takes the run for hung.  ``tick`` is how often, in
    seconds, that is looked at.  A ``quiet`` one prints notes only.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Clock = time.monotonic,
        heartbeat: float = 30.0,
        tick: float = 1.0,
        quiet: bool = False,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._heartbeat = heartbeat
        self._tick = tick
        self._quiet = quiet
        self._image = ""
        self._lock = threading.Lock()
        self._state = State(clock())
        self._printed = self._state.started
        self._stopped = threading.Event()
        self._timer = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._state = State(self._clock())
        self._printed = self._state.started
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._timer.join()

    def handle(self, event: Event) -> None:
        """Take an event in and print what it changed."""
        with self._lock:
            now = self._clock()
            before = self._state
            self._state = before.apply(event, now)
            if isinstance(event, Note) or not self._quiet:
                self._print(self._once(event, told(before, event, self._state, now)), now)

    def _once(self, event: Event, lines: tuple[str, ...]) -> tuple[str, ...]:
        """``lines``; of the guest image, for which all kernels wait, each line once."""
        if isinstance(event, Note):
            self._image = one_line(event.text, _LONGEST)
        if not (isinstance(event, Preparing) and event.what.startswith(GUEST_IMAGE)):
            return lines
        line = one_line(event.what.removeprefix(GUEST_IMAGE), _LONGEST)
        if line == self._image:
            return ()
        self._image = line
        return (f"{GUEST_IMAGE}{line}",)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Be silent for a while."""
        with self._lock:
            yield

    def tick(self) -> None:
        """Print what is running if nothing was printed for too long; the timer calls it."""
        with self._lock:
            now = self._clock()
            if not self._quiet and now - self._printed >= self._heartbeat:
                self._print(still(self._state, now), now)

    def _beat(self) -> None:
        while not self._stopped.wait(self._tick):
            try:
                self.tick()
            except (OSError, ValueError):  # a closed stream: the main thread will meet it too
                return

    def _print(self, lines: Iterable[str], now: float) -> None:
        since = f"[{now - self._state.started:7.1f} s]"
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        for line in lines:
            text = f"{since} {line}\n"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
            self._printed = now


def _went_wrong(event: Event) -> bool:
    if isinstance(event, LoadFinished):
        return event.result.verdict.bad
    return isinstance(event, TestFinished) and event.result.outcome in WRONG


def told(before: State, event: Event, after: State, now: float) -> tuple[str, ...]:
    """The lines that say what ``event`` changed; none when nothing did."""
    if isinstance(event, Note):
        return (one_line(event.text, _LONGEST),)
    old = before.of(event.kernel)
    new = after.of(event.kernel)
    if new is None:
        return ()
    lines = []
    if old is not None and old.phase is Phase.FETCHING and new.phase is not Phase.FETCHING:
        lines.append(f"fetched {mebibytes(old.done)} in {seconds(now - old.since)}")
    if old is not None and old.phase is Phase.BUILDING and new.phase not in _NOT_BUILT:
        lines.append(f"built {_files(old)} in {seconds(now - old.since)}")
    lines += _news(old, event, new)
    if isinstance(event, KernelFinished):
        lines[-1] += _left(after, now)
    return tuple(f"{one_line(event.kernel)}: {line}" for line in lines)


def _news(old: KernelState | None, event: Event, new: KernelState) -> Iterable[str]:
    match event:
        case Fetching(total=total) if old is None or old.phase is not Phase.FETCHING:
            yield f"fetching {mebibytes(total)}" if total else "fetching"
        case Building() if old is None or old.phase is not Phase.BUILDING:
            yield "building"
        case Preparing(what=what) if new is not old:
            yield one_line(what, _LONGEST)
        case Booting(attempt=attempt):
            yield "booting" if attempt == 1 else f"booting, attempt {attempt}"
        case Booted(seconds=took, release=release, accelerator=accelerator):
            what = f" {one_line(release)}" if release else ""
            how = f" ({one_line(accelerator)})" if accelerator else ""
            yield f"booted{what} in {seconds(took)}{how}"
        case Collected(count=count):
            yield f"running {counted(count, 'test')}"
        case TestFinished(result=result) if result.outcome in WRONG:
            message = said(result, _LONGEST)
            yield f"{tables.mark_of(result).text} {one_line(ids.of_test(result))}" + (
                f": {message}" if message else ""
            )
        case LoadFinished(result=result) if result.verdict.bad:
            why = one_line(result.reason.text if result.reason else result.line, _LONGEST)
            yield f"{result.verdict} {one_line(result.label)}" + (f": {why}" if why else "")
        case KernelFinished(result=result):
            yield _outcome(ids.of_kernel(result))


def _outcome(result: KernelResult) -> str:
    reason = f": {one_line(result.reason, _LONGEST)}" if result.reason else ""
    return f"{result.status.value}, {_work(result)}, {seconds(result.duration)}{reason}"


def _work(result: KernelResult) -> str:
    if result.loads:
        return counted(len(result.loads), "load")
    return counted(len(result.tests), "test")


def still(state: State, now: float) -> tuple[str, ...]:
    """One line that says what is running: for when nothing else was said for long."""
    doing = [f"{one_line(k.kernel)} {_doing(k, now)}" for k in state.active]
    waiting = len(state.within(Phase.QUEUED))
    if waiting:
        doing.append(f"{waiting} waiting")
    return (f"still running: {'; '.join(doing) or 'nothing yet'}{_left(state, now)}",)


def _left(state: State, now: float) -> str:
    """``; about 40 s left``, "" where nobody knows or it is a moment."""
    left = state.left(now)
    if left is None or left < _MOMENT:
        return ""
    minutes = round(left / 60)
    return f"; about {minutes} min left" if left >= 90 else f"; about {round(left / 5) * 5} s left"


def _doing(kernel: KernelState, now: float) -> str:
    took = seconds(now - kernel.since)
    match kernel.phase:
        case Phase.FETCHING:
            return f"fetching {_bytes(kernel)}, {mebibytes(kernel.rate(now))}/s"
        case Phase.BUILDING:
            return f"building for {took}, {_files(kernel)}"
        case Phase.PREPARING:
            return f"{one_line(kernel.what)} for {took}"
        case Phase.TESTING if kernel.test:
            so_far = seconds(now - kernel.test_since)
            return f"{_tests(kernel)}, {one_line(kernel.test)} for {so_far}"
        case Phase.TESTING:
            return _tests(kernel)
        case _:
            return f"{kernel.phase.value} for {took}"


def _bytes(kernel: KernelState) -> str:
    if not kernel.total:
        return mebibytes(kernel.done)
    return f"{mebibytes(kernel.done).removesuffix(' MiB')} of {mebibytes(kernel.total)}"


def _files(kernel: KernelState) -> str:
    return counted(kernel.done, "file")


def _tests(kernel: KernelState) -> str:
    if kernel.place is not None:
        place, objects = kernel.place
        return f"{counted(kernel.finished, kernel.noun)}, object {place} of {objects}"
    if kernel.count is None:
        return counted(kernel.finished, "test") if kernel.finished else "collecting tests"
    return f"{kernel.finished} of {counted(kernel.count, 'test')}"


def picture(state: State, now: float, width: int = 120, height: int = 24) -> RenderableType:
    """A line a kernel and one for all, at most ``height`` lines; what is active comes first."""
    grid = RichTable.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in ("name", "phase", "bar"):
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, justify="right")
    shown, hidden = _chosen(state, max(1, height - 2))
    for kernel in shown:
        grid.add_row(*_row(kernel, now, bars=width >= _WIDE))
    lines: list[RenderableType] = [grid]
    if hidden:
        lines.append(Text(f"... and {counted(len(hidden), 'more kernel')}", STYLE[Tone.QUIET]))
    lines.append(Text(_all(state, now), STYLE[Tone.QUIET], no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _chosen(state: State, room: int) -> tuple[tuple[KernelState, ...], tuple[KernelState, ...]]:
    """The kernels that have room, in their order, and the others."""
    if len(state.kernels) <= room:
        return state.kernels, ()
    ranks = {Phase.QUEUED: 1, Phase.DONE: 2}
    ranked = sorted(state.kernels, key=lambda kernel: ranks.get(kernel.phase, 0))
    shown = ranked[: max(0, room - 1)]
    return (
        tuple(kernel for kernel in state.kernels if kernel in shown),
        tuple(kernel for kernel in state.kernels if kernel not in shown),
    )


def _row(kernel: KernelState, now: float, *, bars: bool) -> tuple[Text, ...]:
    name = Text(one_line(kernel.kernel), "bold")
    phase = Text(kernel.phase.value, "cyan" if kernel.phase is not Phase.QUEUED else "dim")
    bar, progress, detail = Text(), "", ""
    match kernel.phase:
        case Phase.FETCHING:
            bar = _bar(kernel.done, kernel.total)
            progress = _bytes(kernel)
            detail = f"{mebibytes(kernel.rate(now))}/s"
        case Phase.BUILDING:
            progress = _files(kernel)
        case Phase.PREPARING:
            detail = kernel.what
        case Phase.BOOTING:
            progress = seconds(now - kernel.since)
            detail = "" if kernel.attempt == 1 else f"attempt {kernel.attempt}"
        case Phase.TESTING:
            done, total = kernel.place or (kernel.finished, kernel.count or 0)
            bar = _bar(done, total)
            progress = _tests(kernel)
            detail = _short(kernel.test or kernel.last)
            took = now - kernel.test_since
            if kernel.test and took >= 5:
                detail = f"{seconds(took)} {detail}"
        case Phase.DONE if kernel.result is not None:
            result = kernel.result
            phase = Text(result.status.value, STYLE[tables.tone_of(result.status)])
            progress = _work(result)
            detail = result.reason
    wrong = Text(f"{kernel.wrong} failed" if kernel.wrong else "", STYLE[Tone.BAD])
    spent = Text(clock_text(kernel.elapsed(now)) if kernel.began is not None else "")
    bar = bar if bars else Text()
    return name, phase, bar, Text(progress), Text(one_line(detail), STYLE[Tone.QUIET]), wrong, spent


def _short(test: str) -> str:
    return test and tables.split_node_id(test)[2]


def _bar(done: int, total: int) -> Text:
    if not total:
        return Text()
    full = min(_BAR, _BAR * done // total)
    return Text("━" * full, "green").append("─" * (_BAR - full), "dim")


def _all(state: State, now: float) -> str:
    """``1:21  4 kernels: 1 done, 2 running, 1 waiting; 90 tests, 1 failed``."""
    counts = (
        (len(state.within(Phase.DONE)), "done"),
        (len(state.active), "running"),
        (len(state.within(Phase.QUEUED)), "waiting"),
    )
    parts = ", ".join(f"{n} {word}" for n, word in counts if n)
    finished = sum(kernel.finished for kernel in state.kernels)
    wrong = sum(kernel.wrong for kernel in state.kernels)
    noun = next((kernel.noun for kernel in state.kernels if kernel.finished), "test")
    tests = f"; {counted(finished, noun)}" + (f", {wrong} failed" if wrong else "")
    head = counted(len(state.kernels), "kernel")
    told = f"{head}{': ' + parts if parts else ''}{tests}{_left(state, now)}"
    return f"{clock_text(now - state.started)}  {told}"

"""``events.jsonl``: what a run did and when, a JSON line an event, written as it happens."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from pydantic import TypeAdapter, ValidationError

from vmtest.errors import os_words
from vmtest.host.write import append
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
    Output,
    Preparing,
    SlotTaken,
    TestFinished,
    TestStarted,
)

EVENTS = "events.jsonl"
"""The file in a run's folder with a JSON line an event."""
_SPACING = 1.0  # seconds between two lines about the same download or build


@dataclass(frozen=True, slots=True)
class Stamped:
    """One line of the file: an event's name, and what it says of the keys that it has.

    ``at`` is seconds since the run's start, ``kernel`` is "" for a note; ``what`` is a step of
    preparation, a status, an outcome or a verdict; ``slot`` counts from 1, ``seconds`` is what a
    boot or a test took, or what a kernel is expected to take.
    """

    at: float
    event: str
    kernel: str = ""
    what: str = ""
    test: str = ""
    slot: int = 0
    count: int = 0
    seconds: float = 0.0
    done: int = 0
    total: int = 0


_STAMPED = TypeAdapter(Stamped)


class EventLog:
    """Writes events with their time; a disk that takes no more costs the log, not the run.

    ``problem`` says why it ends early, "" while it does not.  ``clock`` gives seconds.  A lock on
    the file says that the run goes on: see ``is_written``.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem = ""
        self._path = path
        self._clock = clock
        self._start = clock()
        self._file: IO[bytes] | None = None
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            self._give_up(error)
        else:
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return self

    def __exit__(self, *raised: object) -> None:
        self._close()

    def add(self, event: Event) -> None:
        """Write ``event`` at once; raises nothing that the disk is to blame for."""
        at = self._clock() - self._start
        if self._file is None or self._too_soon(event, at):
            return
        row = _row(event)
        if row is None:
            return
        line = json.dumps({"at": round(at, 3), **row}, ensure_ascii=False)
        try:
            append(self._file, line.encode("utf-8", "replace") + b"\n")
        except OSError as error:
            self._give_up(error)

    def _too_soon(self, event: Event, at: float) -> bool:
        """Whether this download or build was told of less than a second ago."""
        if not isinstance(event, Fetching | Building):
            return False
        if at - self._told.get(event.kernel, -_SPACING) < _SPACING:
            return True
        self._told[event.kernel] = at
        return False

    def _give_up(self, error: OSError) -> None:
        self.problem = f"cannot write {os_words(error)}; the run goes on without its time line"
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _row(event: Event) -> dict[str, Any] | None:
    """The keys of ``event``, None for one that is not kept: what a command wrote has its log."""
    match event:
        case Output():
            return None
        case Note(text=text):
            return {"event": "note", "what": text}
        case KernelQueued():
            return _named("queued", event.kernel)
        case Fetching(done=done, total=total):
            return _named("fetching", event.kernel, done=done, total=total)
        case Building(done=done):
            return _named("building", event.kernel, done=done)
        case Preparing(what=what):
            return _named("preparing", event.kernel, what=what)
        case Expected(seconds=seconds):
            return _named("expected", event.kernel, seconds=seconds)
        case SlotTaken(slot=slot):
            return _named("slot", event.kernel, slot=slot)
        case Booting(attempt=attempt):
            return _named("booting", event.kernel, count=attempt)
        case Booted(seconds=seconds):
            return _named("booted", event.kernel, seconds=seconds)
        case Collected(count=count):
            return _named("collected", event.kernel, count=count)
        case TestStarted(test=test):
            return _named("test started", event.kernel, test=test)
        case TestFinished(result=result):
            took = {"what": result.outcome.value, "seconds": result.duration}
            return _named("test finished", event.kernel, test=result.test, **took)
        case LoadStarted(load=load):
            return _named("load started", event.kernel, test=load)
        case LoadFinished(result=loaded):
            what = loaded.verdict.value
            return _named("load finished", event.kernel, test=loaded.label, what=what)
        case KernelFinished(result=end):
            return _named("finished", event.kernel, what=end.status.value)


def _named(name: str, kernel: str, **facts: Any) -> dict[str, Any]:
    return {"event": name, "kernel": kernel, **facts}


def is_written(folder: Path) -> bool:
    """Whether the runner of the run in ``folder`` is alive, as far as that can be known."""
    try:
        with (folder / EVENTS).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def parse(lines: Iterable[str]) -> tuple[Stamped, ...]:
    """The events of an ``events.jsonl``; a line that is none, or is unfinished, is left out."""
    found = []
    for line in lines:
        try:
            found.append(_STAMPED.validate_json(line))
        except ValidationError:
            continue
    return tuple(found)


def read_events(folder: Path) -> tuple[Stamped, ...]:
    """The events of the run in ``folder``; none where it has no file or it cannot be read."""
    try:
        with (folder / EVENTS).open(encoding="utf-8", errors="replace") as lines:
            return parse(lines)
    except OSError:
        return ()

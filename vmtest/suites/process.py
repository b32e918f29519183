"""Suites in a guest: payload in, one pytest process, results out as they happen.

Knows the guest only as a ``Session``; knows no suite by name.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from vmtest.errors import BadLine, DeadlineExceeded, SessionLost
from vmtest.host.write import append, write_file
from vmtest.matrix.follow import Kernelside, aftermath, follow
from vmtest.matrix.payload import PYTEST_SIDE, by_standby, guest_environment, in_guest_environment
from vmtest.matrix.wire import Lines
from vmtest.model.kernels import Limits
from vmtest.model.results import Outcome, TestResult
from vmtest.runs.folder import utc_now
from vmtest.runs.rows import unfinished, write_result
from vmtest.suites.events import (
    EVENTS,
    LONGEST_LINE,
    OF_MODULES,
    Collected,
    Finish,
    Hello,
    Result,
    Start,
)
from vmtest.suites.payload import Payload
from vmtest.suites.spans import Spans
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.session import Check, Session, Stream

_LATE = 2.0  # seconds; it is there within one
DONE = f"{GUEST_ROOT}/done.json"
"""Where a fresh guest finds which tests ran in an earlier one."""


def pytest_argv(
    payload: Payload,
    python: str,
    options: Sequence[str],
    *,
    goes_on: bool = False,
    files: Sequence[str] = (),
) -> list[str]:
    """The command that runs the suites of ``payload`` in one pytest process.

    With ``goes_on`` it leaves the tests out that are in the file DONE.  Of ``files``, relative to
    pytest's rootdir, it reads no others.
    """
    rootdir = f"{GUEST_ROOT}/suites"
    read = [f"{rootdir}/{file}" for file in files]
    argv = [
        python,
        f"{GUEST_ROOT}/vmtest/guest/plugins/run.py",
        rootdir if payload.whole else ".",
        *([f"--done={DONE}"] if goes_on else []),
        f"--rootdir={rootdir}",
        "-p",
        "no:cacheprovider",
        "-o",
        "console_output_style=classic",  # its log has no dot for a test that passed: no percentage
        "--continue-on-collection-errors",
        *options,
        *(read or (payload.guest_path(suite) for suite in payload.suites)),
    ]
    environment = guest_environment(payload.pythonpath) | PYTEST_SIDE
    return by_standby(in_guest_environment(argv, environment))


def _unkept(code: str) -> None:
    """What takes code that nobody keeps."""
    del code


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a run's events go as they happen.

    ``results`` gets a JSON line a test, ``log`` what pytest prints, the file
    ``listing`` the ids of all tests; the callbacks run on the worker's thread.  ``compiled`` gets
    the code of modules, as the guest sends it.
    """

    results: IO[bytes]
    log: IO[bytes]
    listing: Path
    collected: Callable[[tuple[str, ...]], None]
    started: Callable[[str], None]
    finished: Callable[[TestResult], None]
    compiled: Callable[[str], None] = _unkept


class Run:
    """One pytest process in a guest, and everything it has said so far.

    ``payload`` is what it runs, ``tests`` are the collected ids, ``done`` the
    results in order, ``running`` the test that has started and not finished,
    ``exit_status`` pytest's own (None while it has not ended by itself),
    ``process_status`` its process's (-1 when it is not known, None while it has not ended),
    ``deselected`` the files of tests that an option or a plugin left out, ``begun`` whether it
    had come so far as to read a suite, ``bad_line`` why what it said was believed no longer (""),
    ``spans`` which test ran when.
    What is in ``before`` came of an earlier guest: it is none of the results here.  The tests
    ``later`` are for later guests.
    """

    def __init__(
        self,
        payload: Payload,
        sink: Sink,
        before: Sequence[TestResult] = (),
        later: Sequence[str] = (),
    ) -> None:
        self.before = tuple(before)
        self.later = tuple(later)
        self.tests: tuple[str, ...] = ()
        self.deselected: tuple[str, ...] = ()
        self.done: list[TestResult] = []
        self.running: str | None = None
        self.exit_status: int | None = None
        self.process_status: int | None = None
        self.bad_line = ""
        self.log_tail = b""
        self.payload = payload
        self._sink = sink
        self._lines = Lines(LONGEST_LINE)
        self.spans = Spans()
        self._pid = 0
        self._collected = False
        self._begun = ("", 0.0)  # when the running test began: UTC, and the guest's uptime
        # How often each collected test is still to come: a plugin may have one run twice.
        self._left: Counter[str] = Counter()

    @property
    def begun(self) -> bool:
        """Whether pytest had said anything by itself: before that, no suite was read."""
        return self._pid != 0

    def execute(
        self,
        session: Session,
        argv: Sequence[str],
        limits: Limits,
        check: Check,
        kernel: Kernelside,
    ) -> None:
        """Run ``argv`` to its end, or to the first line that cannot be believed.

        ``limits`` are real seconds.  Raises DeadlineExceeded, SessionLost and
        whatever ``check`` raises; what had finished is in ``done`` all the same.
        """
        stream = session.stream(argv, wire=True)
        try:
            status = follow(
                stream,
                lambda out, err: self._take((out, err), stream),
                limits,
                check,
                kernel,
            )
            self._late(stream)
        except BadLine as error:
            self.bad_line = str(error)
        except DeadlineExceeded as error:
            self._where_it_hangs(session, stream, aftermath(limits))
            if self.exit_status is None:
                raise
            raise DeadlineExceeded(f"{error}; {self._still_there()}", error.kind) from error
        else:
            self.process_status = status

    def _late(self, stream: Stream) -> None:
        """Take what was said last: QEMU serves SSH's port and the wire's in any order."""
        while self.exit_status is None:
            got = stream.receive(_LATE)
            if got is None or not any(got):
                return
            self._take(got, stream)

    def _still_there(self) -> str:
        return (
            f"pytest had ended with status {self.exit_status}, and its process did not: a thread "
            "or an exit handler of the suite holds it (pytest.log has the stack)"
        )

    def _take(self, got: tuple[bytes, bytes], stream: Stream) -> None:
        out, err = got
        if err:
            append(self._sink.log, err)
            self.log_tail = (self.log_tail + err)[-8192:]
        for event in self._lines.feed(out, EVENTS):
            if self.exit_status is not None:
                raise self._lines.bad(event.event, "comes after the last event")
            match event:
                case Hello():
                    self._pid = event.pid
                    self._sink.compiled(event.code)
                case Collected():
                    self._list(event)
                case Start():
                    self._start(event)
                    stream.send(b"+")
                case Result():
                    self._record(event)
                case Finish():
                    self.exit_status = event.status

    def _list(self, event: Collected) -> None:
        if self._collected:
            raise self._lines.bad(", ".join(event.tests), "is a second list of the tests")
        self._collected = True
        self.tests, self.deselected = event.tests, event.deselected
        self._left = Counter(self.tests)
        tests = (*(result.test for result in self.before), *self.tests, *self.later)
        listed = [(test, self.payload.suite_of(test)) for test in tests]
        write_file(self._sink.listing, json.dumps(listed))
        self._sink.collected(tests)

    def _start(self, event: Start) -> None:
        test = event.test
        if self.running is not None:
            raise self._lines.bad(test, f"starts a test while {self.running} runs")
        if self._left[test] <= 0:
            raise self._lines.bad(test, "starts a test that was not collected, or once more")
        self._left[test] -= 1
        self.running = test
        self.spans.begin(test, event.seen)
        self._begun = utc_now("milliseconds"), event.uptime
        self._sink.started(test)

    def _record(self, event: Result) -> None:
        # A module that cannot be imported, or skips itself, has a result and never runs.
        module = not self._collected and event.outcome in OF_MODULES
        if event.test != self.running and not module:
            raise self._lines.bad(event.test, "is the result of a test that does not run")
        if module and any(result.test == event.test for result in self.before):
            return  # it is read again, and came to this before
        begun = ("", 0.0) if module else self._begun
        if not module:
            self.spans.end(event.seen)
        self.running = None
        result = event.result(self.payload, *begun)
        self.done.append(result)
        write_result(self._sink.results, result)
        self._sink.finished(result)

    def _where_it_hangs(self, session: Session, stream: Stream, patience: float) -> None:
        """Have the silent pytest print its stack into the log, as far as it still can."""
        if not self._pid:
            return
        # In a thread: a guest that is wedged may not even open a channel.
        asking = threading.Thread(target=self._ask, args=(session,), daemon=True)
        asking.start()
        asking.join(patience)
        last = time.monotonic() + patience
        told = False
        try:
            while time.monotonic() < last and (got := stream.receive(0.3)):
                if any(got):
                    told = True
                    self._take(got, stream)
                elif told:
                    return
        except (SessionLost, BadLine):
            return

    def _ask(self, session: Session) -> None:
        with contextlib.suppress(SessionLost):
            session.run(["kill", "-USR1", str(self._pid)])

    def results(self, reason: str = "") -> tuple[TestResult, ...]:
        """All tests: what had finished, then what was lost (with ``reason``) and not run."""
        listed = tuple((test, self.payload.suite_of(test)) for test in self.tests)
        left = unfinished(listed, self.done, self.running, reason)
        started, uptime = self._begun
        lost = (
            replace(test, started=started, uptime=uptime) if test.outcome is Outcome.LOST else test
            for test in left
        )
        return (*self.done, *lost)

    @property
    def empty_suites(self) -> tuple[str, ...]:
        """The suites of which there is nothing: no test, and none that was left out on purpose."""
        tests = (*self.tests, *self.deselected, *self.later)
        there = {self.payload.suite_of(test) for test in tests}
        there |= {result.suite for result in (*self.before, *self.done)}
        return tuple(suite.name for suite in self.payload.suites if suite.name not in there)

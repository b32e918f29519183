"""What the pytest of a guest says (``vmtest/guest/plugin.py``, ``run.py``), as a schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from vmtest.matrix import wire
from vmtest.matrix.wire import Event, Text
from vmtest.model.results import Outcome, TestResult
from vmtest.suites.payload import Payload
from vmtest.vm.klog import as_dmesg

LONGEST_LINE = 64 << 20
"""Bytes: the list of a hundred thousand tests has some 10 MB."""

OF_MODULES = (Outcome.ERROR, Outcome.SKIPPED, Outcome.NOT_APPLICABLE)
"""What can become of a module while it is read: then it has a result, and no test of it has."""

_LONGEST_TEST = 1e9  # seconds

Microseconds = Annotated[int, Field(ge=0, lt=1 << 63)]


def _told_by_pytest(outcome: Outcome) -> Outcome:
    """Lost and not run are the host's words: a test that can say so is neither."""
    if outcome in (Outcome.LOST, Outcome.NOT_RUN):
        raise ValueError(f'"{outcome}" is the host\'s word')
    return outcome


class Hello(wire.Hello):
    """``code`` is what was compiled before the project was read: base64 (guest/bytecode.py)."""

    code: str = ""


class Collected(Event):
    """The ids of all tests, in running order, and the files of those that were left out."""

    event: Literal["collected"]
    tests: tuple[str, ...]
    deselected: tuple[str, ...]


class Start(Event):
    """A test begins; it is answered."""

    event: Literal["start"]
    test: str
    uptime: float = Field(ge=0.0, le=_LONGEST_TEST)
    seen: Microseconds


class Result(Event):
    """A test has ended, or a module that cannot be read."""

    event: Literal["result"]
    test: str
    outcome: Annotated[Outcome, AfterValidator(_told_by_pytest)]
    duration: float = Field(ge=0.0, le=_LONGEST_TEST)
    message: Text
    details: Text
    output: Text
    stderr: Text
    kernel: Text
    seen: Microseconds
    phase: Literal["", "collect", "setup", "call", "teardown"]
    file: Text
    line: int = Field(ge=0, lt=1 << 31)

    def result(self, payload: Payload, started: str = "", uptime: float = 0.0) -> TestResult:
        """The value for the reports, with places in the project of ``payload``."""
        file = payload.place_of(self.file)
        return TestResult(
            test=self.test,
            suite=payload.suite_of(self.test),
            outcome=self.outcome,
            duration=self.duration,
            message=self.message,
            details=payload.in_project(self.details),
            output=self.output,
            stderr=self.stderr,
            kernel_log=as_dmesg(self.kernel),
            phase=self.phase,
            started=started,
            uptime=uptime,
            file=file,
            line=self.line if file else 0,
        )


class Finish(Event):
    """pytest has ended with its exit status; nothing follows."""

    event: Literal["finish"]
    status: int = Field(ge=-(1 << 31), lt=1 << 31)


SuiteEvent = Hello | Collected | Start | Result | Finish

EVENTS: TypeAdapter[SuiteEvent] = TypeAdapter(Annotated[SuiteEvent, Field(discriminator="event")])
"""Reads a line."""

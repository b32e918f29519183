"""Tests as other tools tell them: go test, TAP and JUnit XML, read into ``TestResult``s.

Pure: what reads and keeps the output lives in ``vmtest.command.process``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vmtest.errors import UsageError
from vmtest.model.results import TestResult

Kind = Literal["gotest", "tap", "junit"]


@dataclass(frozen=True, slots=True)
class Format:
    """Where a command's tests are told: in its output, or (``junit``) in the file ``path``."""

    kind: Kind
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Format:
        """Read ``gotest``, ``tap`` or ``junit:PATH``; raises ValueError."""
        kind, _, path = text.partition(":")
        if kind == "junit" and path:
            return cls("junit", path)
        if text == "gotest":
            return cls("gotest")
        if text == "tap":
            return cls("tap")
        raise ValueError(
            f"{text!r} is not a format: write gotest, tap or junit:PATH (PATH is a file that the "
            "command writes in the guest)"
        )


class Reader(Protocol):
    """Reads a command's output line by line, as it comes."""

    @property
    def done(self) -> Sequence[TestResult]:
        """The tests that have ended, in their order; all of them after ``end``."""

    @property
    def running(self) -> str | None:
        """The test that runs, as far as the output names it."""

    @property
    def expected(self) -> int | None:
        """How many tests there will be, as far as the output has said."""

    def feed(self, line: str, error: bool = False) -> None:
        """Take a line without its line break; ``error`` for one of standard error."""

    def end(self, died: str = "") -> None:
        """Take the end; ``died`` is why, unless the command ended by itself."""


def parse_format(text: str | None) -> Format | None:
    """Read ``--results``; raises UsageError."""
    try:
        return None if text is None else Format.parse(text)
    except ValueError as error:
        raise UsageError(f"`results` {error}") from error

"""Rows of tests: unique names, texts of a bounded length."""

from __future__ import annotations

import math
from typing import Any

from vmtest.model.results import Outcome, TestResult

LONGEST = 64 * 1024
"""Characters kept of one text, from its end."""
_LONGEST_NAME = 500


def bounded(text: str) -> str:
    """``text``, or its end when it is too long, saying so."""
    if len(text) <= LONGEST:
        return text
    return f"[{len(text) - LONGEST} characters left out]\n{text[-LONGEST:]}"


def seconds(value: Any) -> float:
    """``value`` as a duration: 0.0 for one that is negative or endless, and for other text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


class Rows:
    """The tests of one suite, in order; a name that comes again gets a number.

    ``done`` has them.
    """

    def __init__(self, suite: str) -> None:
        self.done: list[TestResult] = []
        self._suite = suite
        self._uses: dict[str, int] = {}

    def add(
        self,
        test: str,
        outcome: Outcome,
        message: str = "",
        details: str = "",
        duration: float = 0.0,
        flaky: bool = False,
    ) -> None:
        """Add a test; its second run (``-count=2``) is ``NAME (2)``."""
        self.done.append(
            TestResult(
                self._unused(test[:_LONGEST_NAME]),
                self._suite,
                outcome,
                duration=round(duration, 4),
                message=message[:1000],
                details=bounded(details),
                flaky=flaky,
            )
        )

    def _unused(self, test: str) -> str:
        name = test
        while name in self._uses:
            self._uses[test] += 1
            name = f"{test} ({self._uses[test]})"
        self._uses[name] = 1
        return name

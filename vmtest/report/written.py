"""What was written while a test ran, as every report shows it.  Pure."""

from __future__ import annotations

from vmtest.model.results import TestResult
from vmtest.report.console import without_dumps

OUTPUT, STDERR, KERNEL = "output", "standard error", "the kernel's messages"
"""The titles of the parts."""


def written(test: TestResult) -> tuple[tuple[str, str], ...]:
    """Title and text of each part that there is."""
    kernel = "\n".join(without_dumps(test.kernel_log.split("\n")))
    parts = ((OUTPUT, test.output), (STDERR, test.stderr), (KERNEL, kernel))
    return tuple((title, text) for title, text in parts if text.strip())

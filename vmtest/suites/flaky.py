"""``[[flaky]]``: tests that fail sometimes.  They run again, as ``--retries`` has all tests do.

Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from vmtest.guest.plugins.patterns import matches
from vmtest.model.project import FlakyTest
from vmtest.model.rates import Rate
from vmtest.model.results import Matrix
from vmtest.model.versions import KernelVersion
from vmtest.runs.past import Past, past_of
from vmtest.suites.known import concerned, tests_of, unknown


@dataclass(frozen=True, slots=True)
class Listed:
    """The tests of one kernel that run again: ``patterns`` for ids relative to ``root``."""

    patterns: tuple[str, ...] = ()
    root: str = ""

    def __contains__(self, test: object) -> bool:
        """Whether the test with this node id is one of them."""
        return any(matches(pattern, str(test), self.root) for pattern in self.patterns)


def listed(entries: Iterable[FlakyTest], version: KernelVersion, root: str, today: date) -> Listed:
    """Those of ``entries`` for a kernel of ``version`` that have not expired."""
    valid = (one for one in entries if one.concerns(version) and not one.expired(today))
    return Listed(tuple(one.test for one in valid), root)


# -x may stand among other letters that take no value.
_STOPS = r"-[hlqsv]*x[hlqsvx]*$|--exitfirst$|--maxfail\b"


def stops_early(options: Iterable[str]) -> bool:
    """Whether pytest stops at a failure: then nothing runs again behind tests that did not run."""
    return any(re.match(_STOPS, option) for option in options)


_AT_FIRST = frozenset("fFE")  # vmtest.runs.past: flaky, failed, error
_RAN = _AT_FIRST | {"P"}


def rate(entry: FlakyTest, runs: Iterable[Past], kernels: Container[str], root: str) -> Rate:
    """How often the tests of ``entry`` failed when they first ran in ``runs``, on ``kernels``.

    With ``--repeat`` each time counts, in a guest of its own.
    """
    failed = ran = 0
    for run in runs:
        several = {(one[0], one[1], one[2]): (one[3], one[4]) for one in run.repeated}
        for suite, test, row in run.tests:
            if not matches(entry.test, test, root):
                continue
            for (name, _), letter in zip(run.kernels, row, strict=True):
                if name in kernels and letter in _RAN:
                    once = (int(letter in _AT_FIRST), 1)
                    counts = several.get((name, suite, test), once)
                    failed, ran = failed + counts[0], ran + counts[1]
    return Rate(failed, ran)


def notes(
    entries: Sequence[FlakyTest],
    matrix: Matrix,
    root: str,
    today: date,
    *,
    whole: bool,
    earlier: Sequence[Past] = (),
) -> tuple[str, ...]:
    """What the user should do about ``entries`` after the run ``matrix``.

    ``whole`` says that no test and no kernel was left out: only then an entry that means no test is
    one too many.  ``earlier`` are the runs before, for the rates.
    """
    runs = (*earlier, past_of(matrix, {}))
    limits = (_above_its_limit(entry, matrix, runs, root) for entry in entries)
    return (*_notes(entries, matrix, root, today, whole), *filter(None, limits))


def _above_its_limit(
    entry: FlakyTest, matrix: Matrix, runs: Sequence[Past], root: str
) -> str | None:
    kernels = [kernel.kernel for kernel in concerned(entry, matrix)]
    found = rate(entry, runs, kernels, root)
    if entry.limit is None or found.share <= entry.limit:
        return None
    last = "the last run" if len(runs) == 1 else f"the last {len(runs)} runs"
    return (
        f'flaky "{entry.test}" failed at first in {found} of {last}, above its limit of '
        f"{entry.limit:.0%}: mend the test, or change the limit in kernels.toml"
    )


def _notes(
    entries: Sequence[FlakyTest], matrix: Matrix, root: str, today: date, whole: bool
) -> Iterator[str]:
    for entry in entries:
        kernels = concerned(entry, matrix)
        found = {kernel.kernel: tests_of(entry, kernel, root) for kernel in kernels}
        there = [name for name, tests in found.items() if tests]
        if kernels and whole and not there and not unknown(entry, matrix):
            yield (
                f'flaky "{entry.test}" matched no test on {", ".join(found)}: '
                "correct the pattern, or remove it from kernels.toml"
            )
        if there and entry.expired(today):
            yield (
                f'flaky "{entry.test}" expired {entry.until}, its tests no longer run again '
                f"({entry.reason}): mend the test, or give the entry in kernels.toml another day"
            )

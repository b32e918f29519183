"""Known failures: what goes to a kernel's guest, and what a run has shown of them.

Pure functions.  The guest applies them (``vmtest.guest.plugins.known_failures``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from vmtest.guest.plugins.patterns import matches
from vmtest.model.project import FlakyTest, KnownFailure
from vmtest.model.results import KernelResult, Matrix, Outcome, TestResult
from vmtest.model.versions import KernelVersion

_WILD = re.compile(r"[*?]")  # vmtest.guest.plugins.patterns


def for_guest(known: Iterable[KnownFailure], version: KernelVersion, root: str, today: date) -> str:
    """The JSON for a guest of ``version``: the entries that concern it, the expired ones as such.

    ``root`` is the folder that node ids are relative to.
    """
    entries = [
        {
            "test": entry.test,
            "reason": entry.reason,
            "strict": entry.strict,
            "expired": str(entry.until) if entry.expired(today) else None,
        }
        for entry in known
        if entry.concerns(version)
    ]
    return json.dumps({"root": root, "entries": entries})


def concerned(entry: KnownFailure | FlakyTest, matrix: Matrix) -> tuple[KernelResult, ...]:
    """The kernels of ``matrix`` that ``entry`` is about and that came to collecting tests."""
    return tuple(
        kernel
        for kernel in matrix.kernels
        if kernel.tests and kernel.version and entry.concerns(KernelVersion.parse(kernel.version))
    )


def tests_of(
    entry: KnownFailure | FlakyTest, kernel: KernelResult, root: str
) -> tuple[TestResult, ...]:
    """The tests of ``kernel`` that ``entry`` means."""
    return tuple(test for test in kernel.tests if matches(entry.test, test.test, root))


def notes(
    known: Sequence[KnownFailure], matrix: Matrix, root: str, today: date, *, whole: bool
) -> tuple[str, ...]:
    """What the user should do about ``known`` after the run ``matrix``.

    ``whole`` says that no test and no kernel was left out: only then an entry that means no
    test is one too many, and one whose tests pass can go.
    """
    return tuple(_notes(known, matrix, root, today, whole))


def _notes(
    known: Sequence[KnownFailure], matrix: Matrix, root: str, today: date, whole: bool
) -> Iterator[str]:
    for entry in known:
        kernels = concerned(entry, matrix)
        found = {kernel.kernel: tests_of(entry, kernel, root) for kernel in kernels}
        if kernels and whole and not any(found.values()) and not unknown(entry, matrix):
            yield (
                f'known failure "{entry.test}" matched no test on {", ".join(found)}: '
                "correct the pattern, or remove it from kernels.toml"
            )
        if entry.expired(today) and (whole or not _WILD.search(entry.test)):
            passing = [name for name, tests in found.items() if _passed(tests)]
            if passing:
                yield (
                    f'known failure "{entry.test}" expired {entry.until} and passes on '
                    f"{', '.join(passing)}: remove it from kernels.toml"
                )


def unknown(entry: KnownFailure | FlakyTest, matrix: Matrix) -> bool:
    """Whether a kernel that ``entry`` may be about did not come to its tests."""
    return any(
        not kernel.tests
        and (not kernel.version or entry.concerns(KernelVersion.parse(kernel.version)))
        for kernel in matrix.kernels
    )


def _passed(tests: Iterable[TestResult]) -> bool:
    ran = {test.outcome for test in tests if test.outcome.ran}
    return ran == {Outcome.PASSED}

"""``history.json``: a run as short as the history of its project needs it.

A matrix of 50 kernels with 2,000 tests has 40 MB, and the page of a run shows the 20 before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vmtest.errors import UsageError
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult, exit_status
from vmtest.runs.folder import RunFolder, before
from vmtest.runs.read import read_facts, read_matrix

HISTORY = "history.json"
"""The file's name in the run's folder, beside the matrix.json that it is made of."""
SCHEMA = 1
SHOWN = 20
"""Runs of a history, the one that it belongs to among them."""
_LOOKED_AT = 60
_WITHOUT = 8 << 20  # bytes of matrix.json of runs that left no history.json
_LARGEST = 32 << 20
_USUAL = 5  # runs of which the time that a kernel takes is the median
_WHOLE = (Status.PASSED, Status.FAILED, Status.SPLAT)

LETTERS = {
    Outcome.PASSED: "P",
    Outcome.FAILED: "F",
    Outcome.ERROR: "E",
    Outcome.XPASSED: "X",
    Outcome.LOST: "L",
    Outcome.NOT_RUN: "-",
    Outcome.COLLECTED: "c",
    Outcome.XFAILED: "x",
    Outcome.SKIPPED: "s",
    Outcome.NOT_APPLICABLE: "n",
}
"""One letter an outcome; ``f`` is flaky, a blank is a test that is not there."""
_IDLE = frozenset("-csn ")
_NOT_BEGUN = (Status.BOOT_FAILED, Status.INFRA_ERROR, Status.CANCELLED, Status.NO_TESTS)
SIGNS = frozenset((*LETTERS.values(), "f", " "))


@dataclass(frozen=True, slots=True)
class Past:
    """A run in short.

    ``status`` is its exit status, ``kernels`` are pairs of a name and a status.  ``tests`` are
    suite, node id, and a letter a kernel; ``loads`` are object, program, a letter a kernel (``P``
    accepted, ``F`` not accepted, ``-`` not loaded) and the instructions a kernel, 0 where they
    are not known.  ``repeated`` are kernel, suite, node id, how often it failed and ran, where
    ``--repeat`` ran it.  ``took`` are the seconds that each kernel took, 0.0 where it did not come
    to its end; none in a run that was narrowed to some tests.
    """

    schema: int
    run: str
    started: str
    branch: str
    commit: str
    dirty: bool
    status: int
    command: tuple[str, ...]
    suites: tuple[str, ...]
    kernels: tuple[tuple[str, str], ...]
    tests: tuple[tuple[str, str, str], ...] = ()
    loads: tuple[tuple[str, str, str, tuple[int, ...]], ...] = ()
    took: tuple[float, ...] = ()
    repeated: tuple[tuple[str, str, str, int, int], ...] = ()

    @property
    def ran(self) -> bool:
        """Whether a test or command ran, or a load was made."""
        if self.tests or self.loads:
            made = any(set(load[2]) & {"P", "F"} for load in self.loads)
            return made or any(set(test[2]) - _IDLE for test in self.tests)
        return any(status not in _NOT_BEGUN for _, status in self.kernels)


_ADAPTER = TypeAdapter(Past)


def letter(test: TestResult) -> str:
    """The letter of ``test``'s outcome."""
    if test.flaky and test.outcome is Outcome.PASSED:
        return "f"
    return LETTERS[test.outcome]


def past_of(matrix: Matrix, facts: Mapping[str, Any]) -> Past:
    """``matrix`` in short; ``facts`` are those of its run.json."""
    project = facts.get("project")
    known = project if isinstance(project, dict) else {}
    tests = [{(t.suite, t.test): letter(t) for t in k.tests} for k in matrix.kernels]
    loads = [{(one.object, one.program): one for one in k.loads} for k in matrix.kernels]
    return Past(
        schema=SCHEMA,
        run=matrix.run,
        started=matrix.started,
        branch=str(known.get("branch") or ""),
        commit=str(known.get("commit") or ""),
        dirty=bool(known.get("dirty")),
        status=exit_status(matrix),
        command=matrix.command,
        suites=matrix.suites,
        kernels=tuple((kernel.kernel, kernel.status.value) for kernel in matrix.kernels),
        tests=tuple(
            (*key, "".join(of.get(key, " ") for of in tests))
            for key in dict.fromkeys(key for of in tests for key in of)
        ),
        loads=tuple(
            (
                *key,
                "".join(_of_load(of.get(key)) for of in loads),
                tuple(of[key].cost.instructions if key in of else 0 for of in loads),
            )
            for key in dict.fromkeys(key for of in loads for key in of)
        ),
        repeated=tuple(
            (kernel.kernel, one.suite, one.test, one.failed, one.ran)
            for kernel in matrix.kernels
            for one in kernel.repeated
        ),
        took=() if facts.get("narrowed") else tuple(map(_took, matrix.kernels)),
    )


def _took(kernel: KernelResult) -> float:
    return kernel.duration if kernel.status in _WHOLE else 0.0


def usual(earlier: Iterable[Past]) -> dict[str, float]:
    """The seconds that each kernel usually took: the median of the last runs that tell."""
    found: dict[str, list[float]] = {}
    for past in earlier:
        for (name, _), took in zip(past.kernels, past.took, strict=False):
            if took > 0:
                found.setdefault(name, []).append(took)
    return {name: median(took[-_USUAL:]) for name, took in found.items()}


def _of_load(load: LoadResult | None) -> str:
    if load is None:
        return " "
    if load.verdict is Verdict.NOT_LOADED:
        return "-"
    return "F" if load.verdict.bad else "P"


def render(past: Past) -> str:
    """``past`` as history.json has it, to be written as UTF-8."""
    value = _ADAPTER.dump_python(past, mode="json")
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode() + "\n"


def earlier(folder: RunFolder, now: Past) -> tuple[Past, ...]:
    """The runs before ``now``, which is in ``folder``, that can stand beside it, the oldest first.

    They did the same on a kernel of its own.  A run without history.json is read from its
    matrix.json, until those come to 8 MiB: a page is not worth more.
    """
    found: list[Past] = []
    room = _WITHOUT
    for run in reversed(before(folder)[-_LOOKED_AT:]):
        past = _read(run)
        if past is None:
            past, size = _made(run, room)
            room -= size
        if past is not None and comparable(past, now):
            found.append(replace(past, run=run.name))  # which a file cannot claim
        if len(found) == SHOWN - 1:
            break
    return tuple(reversed(found))


def comparable(past: Past, now: Past) -> bool:
    """Whether both asked the same of a kernel that both have: a suite, the loads, a command."""
    if past.command != now.command or bool(past.suites) != bool(now.suites):
        return False
    suites = not now.suites or set(past.suites) & set(now.suites)
    return bool(suites and {name for name, _ in past.kernels} & {name for name, _ in now.kernels})


def read_past(folder: RunFolder) -> Past:
    """The run in ``folder`` in short; raises UsageError where it cannot be read."""
    return _read(folder) or past_of(read_matrix(folder), read_facts(folder.path))


def _read(folder: RunFolder) -> Past | None:
    """What history.json says; None where it is missing, damaged or another vmtest's."""
    file = folder.path / HISTORY
    with suppress(OSError, ValidationError):
        if file.stat().st_size > _LARGEST:
            return None
        past = _ADAPTER.validate_json(file.read_bytes(), strict=True)
        if past.schema == SCHEMA and _fits(past):
            return past
    return None


def _fits(past: Past) -> bool:
    """Whether every row has a known letter, or a number, for each kernel."""
    rows = [test[2] for test in past.tests] + [load[2] for load in past.loads]
    widths = {len(row) for row in rows} | {len(load[3]) for load in past.loads}
    widths |= {len(past.took)} if past.took else set()
    told = all(0.0 <= took < math.inf for took in past.took)
    return told and widths <= {len(past.kernels)} and SIGNS.issuperset("".join(rows))


def _made(folder: RunFolder, room: int) -> tuple[Past | None, int]:
    """The run in short from its matrix, if that has at most ``room`` bytes; and how many."""
    with suppress(OSError, UsageError):
        size = (folder.path / "matrix.json").stat().st_size
        if size <= room:
            return past_of(read_matrix(folder), read_facts(folder.path)), size
    return None, 0

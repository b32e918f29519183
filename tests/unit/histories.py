"""Runs of a project for tests of its history: days, each with what became of its tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vmtest.api.page import leave_page
from vmtest.model.loads import Cost, LoadResult, Verdict
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.past import LETTERS, Past, past_of

_OUTCOMES = {letter: outcome for outcome, letter in LETTERS.items()} | {"f": Outcome.PASSED}


def run_of(
    tests: Mapping[str, str], kernels: tuple[str, ...] = ("5.10", "6.12"), cost: int = 0
) -> Matrix:
    """A run of ``tests``, each with a letter a kernel, and of a program if it has a ``cost``."""

    def kernel(n: int, name: str) -> KernelResult:
        results = tuple(
            TestResult(f"t.py::{test}", "s", _OUTCOMES[letters[n]], flaky=letters[n] == "f")
            for test, letters in tests.items()
            if letters[n] != " "
        )
        bad = any(test.outcome.bad for test in results)
        verdict = Verdict.ACCEPTED if cost > 0 else Verdict.REJECTED
        load = LoadResult("x.o", "prog", verdict, cost=Cost(instructions=max(0, cost) * (n + 1)))
        status = Status.FAILED if bad else Status.PASSED
        return KernelResult(name, status, tests=results, loads=(load,) if cost else ())

    of = tuple(kernel(n, name) for n, name in enumerate(kernels))
    return Matrix(SCHEMA, "r", "2026-11-29T07:34:49+00:00", 1.0, ("s",), of)


def day(n: int, matrix: Matrix, branch: str = "main", commit: str = "") -> Past:
    """``matrix`` as the run of the day ``n``, at a commit of its own unless ``commit`` is one."""
    facts = {"project": {"commit": commit or f"{n:040}", "dirty": False, "branch": branch}}
    name, started = f"202611{n:02d}T000000Z-abcdef", f"2026-11-{n:02d}T00:00:00+00:00"
    return past_of(replace(matrix, run=name, started=started), facts)


def leave(project: Path, n: int, matrix: Matrix, page: bool = True) -> RunFolder:
    """Put the run of the day ``n`` into ``project``, with its page."""
    name, started = f"202611{n:02d}T000000Z-abcdef", f"2026-11-{n:02d}T00:00:00+00:00"
    folder = RunFolder(project / ".vmtest" / "runs" / name)
    folder.path.mkdir(parents=True)
    matrix = replace(matrix, run=name, started=started)
    folder.write("matrix.json", matrix_json.dumps(matrix))
    folder.describe({"project": {"commit": f"{n:040}", "dirty": False, "branch": "main"}})
    if page:
        leave_page(matrix, folder.path, lambda event: None)
    return folder

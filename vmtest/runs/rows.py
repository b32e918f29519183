"""The rows of a run's folder: a JSON line a finished test or load, written as it happens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter, ValidationError

from vmtest.host.write import append
from vmtest.model.loads import LoadResult
from vmtest.model.results import KernelResult, Outcome, TestResult
from vmtest.model.text import one_line

RESULTS, COLLECTED = "results.jsonl", "collected.json"
"""The files in a kernel's folder with a JSON line a finished test, and with all tests."""
LOADS, OTHER_LOADS = "loads.jsonl", "against.jsonl"
"""The files in a kernel's folder with a JSON line a finished load."""

_TEST = TypeAdapter(TestResult)
_LOAD = TypeAdapter(LoadResult)
_COLLECTED = TypeAdapter(tuple[tuple[str, str], ...])


def write_result(file: IO[bytes], result: TestResult) -> None:
    """Add ``result`` to a ``results.jsonl``, at once."""
    line = {
        "test": result.test,
        "suite": result.suite,
        "outcome": result.outcome.value,
        "duration": result.duration,
        "message": result.message,
        "details": result.details,
        "output": result.output,
        "stderr": result.stderr,
        "kernel_log": result.kernel_log,
        "file": result.file,
        "line": result.line,
        "phase": result.phase,
        "started": result.started,
        "uptime": result.uptime,
    }
    # A lone surrogate is not a character, and not every reader of JSON takes it.
    append(file, json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def read_results(lines: Iterable[str]) -> tuple[TestResult, ...]:
    """The results of a ``results.jsonl``; an unfinished last line is left out."""
    results = []
    for line in lines:
        if line.endswith("\n"):
            results.append(_TEST.validate_json(line))
    return tuple(results)


def read_collected(file: Path) -> tuple[tuple[str, str], ...]:
    """The tests of a ``collected.json``, each with its suite; none when it was not finished.

    Raises OSError and ValueError for what is not such a file.
    """
    try:
        return _COLLECTED.validate_json(file.read_bytes())
    except FileNotFoundError:
        return ()  # the runner ended before pytest had collected
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return ()  # or while it wrote
        raise


def unfinished(
    listed: Iterable[tuple[str, str]],
    done: Iterable[TestResult],
    running: str | None = None,
    reason: str = "",
) -> tuple[TestResult, ...]:
    """The tests of ``listed`` without a result: the ``running`` one is lost, the others not run."""
    left = Counter(result.test for result in done)
    missing = []
    for test, suite in listed:
        # A test may be listed twice, and then it has two results.
        if left[test] > 0:
            left[test] -= 1
        elif test == running:
            missing.append(TestResult(test, suite, Outcome.LOST, message=reason))
            running = None
        else:
            missing.append(TestResult(test, suite, Outcome.NOT_RUN))
    return tuple(missing)


def read_loads(lines: Iterable[str]) -> tuple[LoadResult, ...]:
    """The results of a ``loads.jsonl``; an unfinished last line is left out.

    A row that follows one of the same load stands for it: its log was taken once more.
    """
    loads: list[LoadResult] = []
    for line in lines:
        if line.endswith("\n"):
            load = _LOAD.validate_json(line)
            if loads and (loads[-1].object, loads[-1].program) == (load.object, load.program):
                loads.pop()
            loads.append(load)
    return tuple(loads)


def forget(folder: Path) -> None:
    """Remove the rows that an earlier boot of the kernel left in ``folder``; raises OSError."""
    for name in (RESULTS, COLLECTED, LOADS, OTHER_LOADS):
        (folder / name).unlink(missing_ok=True)


def kept(folder: Path, result: KernelResult) -> KernelResult:
    """``result`` with the tests and loads that are on disk in its ``folder``.

    Those that had been collected and did not run are there as well.  Raises nothing: what cannot
    be read is named in the result's note.
    """
    try:
        with (folder / RESULTS).open(encoding="utf-8") as lines:
            done = read_results(lines)
        result = replace(result, tests=done)
        tests = (*done, *unfinished(read_collected(folder / COLLECTED), done))
        result = replace(result, tests=tests)
    except FileNotFoundError:
        pass  # it had not come so far
    except (OSError, ValueError) as error:
        result = _unread(result, folder / RESULTS, error)
    try:
        with (folder / LOADS).open(encoding="utf-8") as lines:
            return replace(result, loads=read_loads(lines))
    except FileNotFoundError:
        return result
    except (OSError, ValueError) as error:
        return _unread(result, folder / LOADS, error)


def _unread(result: KernelResult, file: Path, error: Exception) -> KernelResult:
    note = f"{file} cannot be read: {one_line(str(error))}"
    return replace(result, note=f"{result.note}; {note}".removeprefix("; "))

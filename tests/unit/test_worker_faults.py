"""A worker that breaks costs its own kernel, and none of the rows that are on disk."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from test_intact import Ran

from vmtest.errors import MORE_MEMORY, starved
from vmtest.matrix.bench import Bench, Job, Task
from vmtest.matrix.job import TRACEBACK, run_kernel
from vmtest.model.kernels import Accelerator, Kernel, Limits, PathSpec
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.runs.rows import COLLECTED, LOADS, RESULTS, kept, read_results, write_result
from vmtest.vm.accel import Probe

pytest_plugins = ("test_intact",)

DONE = TestResult("t.py::a", "s", Outcome.PASSED, duration=1.5)


@dataclass(frozen=True)
class Breaking:
    """Writes one row of two tests, then raises."""

    error: Exception
    objects: tuple[tuple[str, str], ...] = ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        folder = bench.job.directory
        with (folder / RESULTS).open("wb") as file:
            write_result(file, DONE)
        (folder / COLLECTED).write_text(json.dumps([["t.py::a", "s"], ["t.py::b", "s"]]))
        raise self.error


def job_of(ran: Ran, folder: Path, task: Task) -> Job:
    image, root, _, _ = ran
    kernel = Kernel("k", PathSpec(image.image, None, None), limits=Limits(1, 1, 1))
    probe = Probe(Accelerator.TCG, 1.0, "", "")
    directory = folder / "run" / "k"
    directory.mkdir(parents=True)
    return Job(kernel, image, root, task, probe, directory, 1)


def test_a_bug_of_ours_keeps_the_rows_and_says_where_to_report_it(ran: Ran, tmp_path: Path) -> None:
    job = job_of(ran, tmp_path, Breaking(KeyError("what")))
    result = run_kernel(job)
    assert result.status is Status.INFRA_ERROR
    assert result.tests == (DONE, TestResult("t.py::b", "s", Outcome.NOT_RUN))
    trace = job.directory / TRACEBACK
    assert result.reason == (
        f"a bug in vmtest: KeyError: 'what'; please report it to its maintainers with {trace}"
    )
    assert "in run\n    raise self.error" in trace.read_text()
    assert result.release == job.image.release


def test_a_full_disk_keeps_the_rows_and_says_what_to_do(ran: Ran, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/some/file")
    result = run_kernel(job_of(ran, tmp_path, Breaking(full)))
    assert result.status is Status.INFRA_ERROR
    assert result.reason == "/some/file: No space left on device; make room there"
    assert [test.outcome for test in result.tests] == [Outcome.PASSED, Outcome.NOT_RUN]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), f"vmtest has too little memory (MemoryError); {MORE_MEMORY}"),
        (
            RuntimeError("can't start new thread"),
            "vmtest may start no more threads; raise its limit of processes (ulimit -u, or its "
            "container's), or give it more memory",
        ),
        (
            OSError(errno.ENOMEM, "Cannot allocate memory"),
            "vmtest has too little memory (Cannot allocate memory); " + MORE_MEMORY,
        ),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_too_little_memory_keeps_the_rows_and_says_what_to_do(
    error: Exception, why: str, ran: Ran, tmp_path: Path
) -> None:
    """The reason names the memory. It does not ask for a report of a bug."""
    job = job_of(ran, tmp_path, Breaking(error))
    result = run_kernel(job)
    assert result.status is Status.INFRA_ERROR
    assert result.reason.partition("; see ")[0] == why
    assert [test.outcome for test in result.tests] == [Outcome.PASSED, Outcome.NOT_RUN]
    # Where memory was missing is worth to know; what the system refused says it by itself.
    assert (job.directory / TRACEBACK).exists() is not isinstance(error, OSError)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("test_mmap[Cannot allocate memory]"),
        subprocess.TimeoutExpired(["grep", "can't start new thread"], 3),
        RuntimeError("Cannot allocate memory for the map"),
        ImportError("x.so: failed to map segment from shared object"),  # noexec
    ],
    ids=lambda one: type(one).__name__,
)
def test_words_alone_are_no_lack_of_memory(error: Exception) -> None:
    assert starved(error) == ""


@dataclass(frozen=True)
class AtOnce:
    """Raises before anything was written."""

    objects: tuple[tuple[str, str], ...] = ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        raise ValueError


def test_rows_of_an_earlier_boot_are_not_this_ones(ran: Ran, tmp_path: Path) -> None:
    job = job_of(ran, tmp_path, AtOnce())
    with (job.directory / RESULTS).open("wb") as file:
        write_result(file, DONE)
    assert run_kernel(job).tests == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / RESULTS).write_text('{"test": 5}\n'),
        lambda folder: (folder / RESULTS).write_bytes(b"\xff\n"),
        lambda folder: (folder / COLLECTED).write_text("[[1]]"),
        lambda folder: (folder / LOADS).mkdir(),
    ],
)
def test_rows_that_cannot_be_read_are_named(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    with (tmp_path / RESULTS).open("wb") as file:
        write_result(file, DONE)
    spoil(tmp_path)
    note = kept(tmp_path, KernelResult("k", Status.INFRA_ERROR)).note
    assert note.startswith(str(tmp_path))
    assert "cannot be read" in note


def test_a_row_with_a_lone_surrogate_can_be_read_again(tmp_path: Path) -> None:
    odd = TestResult("t.py::a", "s", Outcome.FAILED, message="\udc80 \x1b", output="\u2028")
    with (tmp_path / RESULTS).open("wb") as file:
        write_result(file, odd)
    with (tmp_path / RESULTS).open(encoding="utf-8") as lines:
        (row,) = read_results(lines)
    assert (row.message, row.output) == ("? \x1b", "\u2028")


def test_what_the_folder_does_not_take_is_said_with_the_bug(ran: Ran, tmp_path: Path) -> None:
    job = job_of(ran, tmp_path, cast(Task, Gone()))
    reason = run_kernel(job).reason
    assert reason.startswith("a bug in vmtest: ValueError; please report it to its maintainers (")
    assert "No such file or directory" in reason


@dataclass(frozen=True)
class Gone:
    """Loses the run's folder, and raises."""

    objects: tuple[tuple[str, str], ...] = ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        bench.job.directory.rmdir()
        raise ValueError

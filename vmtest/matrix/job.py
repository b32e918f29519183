"""One kernel's work: boot it, have a task done in it, and say what happened.

``run_kernel`` is what an executor's worker does.  It takes and returns values
that can be pickled; what happens meanwhile goes to files and to a callback.
What is done in a guest is a ``Task``'s business; how a guest comes and goes is
the ``Bench``'s.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from vmtest.errors import (
    BootError,
    InfrastructureError,
    VmtestError,
    bug_words,
    os_words,
    starved,
)
from vmtest.host.write import write_file
from vmtest.matrix.bench import Bench, Cancellation, Emit, Hold, Job, unheard
from vmtest.matrix.kept import Kept
from vmtest.model.kernels import Kernel
from vmtest.model.results import KernelResult, Status
from vmtest.model.versions import unique
from vmtest.runs.rows import forget, kept
from vmtest.vm.qemu import drop_for

TRACEBACK = "traceback.txt"
"""The file in a kernel's folder with the traceback of a bug of ours."""


def base_result(kernel: Kernel, status: Status, reason: str) -> KernelResult:
    """The result of a kernel that came to no tests."""
    return KernelResult(kernel.name, status, reason=reason, gate=kernel.gate, directory=kernel.name)


def run_kernel(
    job: Job,
    emit: Emit = unheard,
    cancellation: Cancellation | None = None,
    hold: Hold | None = None,
    keeps: Kept | None = None,
) -> KernelResult:
    """Have the task of ``job`` done in its kernel, and judge.

    Raises nothing but CacheDamaged (run the kernel again, on new files), and KeyboardInterrupt on
    the main thread.
    """
    cancellation = cancellation or Cancellation()
    started = time.monotonic()
    scale = job.scale
    result = KernelResult(
        kernel=job.kernel.name,
        status=Status.INFRA_ERROR,
        version=str(job.image.version),
        release=job.image.release,
        accelerator=job.probe.accelerator.value,
        note="; ".join(filter(None, (job.image.note, job.note))),
        factor=round(scale.factor, 2),
        directory=job.directory.name,
        digest=job.image.digest,
        gate=job.kernel.gate,
        objects=job.task.objects,
        guest=job.root.digest,
    )
    bench = Bench(job, emit, cancellation, hold, keeps)
    with closing(bench.snapshots) as snapshots:
        result = _worked(bench, result)
        result = replace(
            result,
            boot_seconds=bench.boot_seconds,
            duration=round(time.monotonic() - started, 2),
            start=bench.start,
            note="; ".join(filter(None, (result.note, _of_failed_boots(bench.failed_boots)))),
        )
        if cancellation.requested:
            return result
        result = bench.intact.verdict(result, job.directory)
        snapshots.publish()
        bench.bytecode.publish()
    note = "; ".join(part for part in (result.note, *snapshots.notes) if part)
    return replace(result, note=note)


def _worked(bench: Bench, result: KernelResult) -> KernelResult:
    """``result`` after the task, or after the error that ended it."""
    job = bench.job
    try:
        forget(job.directory)
        bench.intact.before()
        if not bench.intact.damaged:
            note = "; ".join(filter(None, (result.note, _of_root(job))))
            return job.task.run(bench, replace(result, note=note))
    except (VmtestError, OSError) as error:
        if bench.cancelled:
            return replace(result, status=Status.CANCELLED, reason="interrupted")
        if isinstance(error, BootError):
            tail = bench.console_tail
            failed = Status.BOOT_FAILED
            result = replace(result, console_tail=tail, console_log=bench.console_log)
            return replace(result, status=failed, reason=str(error))
        result = kept(job.directory, result)
        return replace(result, status=Status.INFRA_ERROR, reason=_words(error))
    except Exception as error:
        return broke(result, error, job.directory)
    return result


def _of_root(job: Job) -> str:
    """That QEMU stays root, where it should not; "" else."""
    why = drop_for(job.image, job.root).why
    return f"QEMU runs as root: {why}" if why else ""


def _of_failed_boots(reasons: Sequence[str]) -> str:
    """What is to be said of boots that were tried again, "" for none."""
    if not reasons:
        return ""
    times = "a boot failed" if len(reasons) == 1 else f"{len(reasons)} boots failed"
    return f"{times} and the kernel was booted again: {'; '.join(unique(reasons))}"


def refused(kernel: Kernel, error: Exception) -> KernelResult:
    """The result of a kernel that could not even be prepared."""
    assert isinstance(error, InfrastructureError | OSError)
    return base_result(kernel, Status.INFRA_ERROR, _words(error))


def broke(result: KernelResult, error: BaseException, directory: Path) -> KernelResult:
    """What a bug of ours leaves of one kernel: the rows on disk, and where to report it.

    If this process had too little memory, it says that instead.
    """
    trace = directory / TRACEBACK
    reason = bug_words(error)
    try:
        write_file(trace, "".join(traceback.format_exception(error)))
        reason += f"; see {trace}" if starved(error) else f" with {trace}"
    except OSError as unwritten:
        reason += f" ({os_words(unwritten)})"
    return replace(kept(directory, result), status=Status.INFRA_ERROR, reason=reason)


def _words(error: VmtestError | OSError) -> str:
    return os_words(error) if isinstance(error, OSError) else str(error)

"""What a run on many workers costs its coordinator and the scheduler: 50 workers, 200 kernels.

    python benchmarks/cluster.py [--workers 50] [--kernels 200] [--tests 200] [--smoke]

Nothing boots: each kernel tells its tests as fast as it can. All workers live in one process, so
that they fit on one machine; they share its interpreter, and tell less than as many machines would.
It prints the CPU seconds and the most memory of each process, and how many events arrived a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import distributed
import psutil
import smoke

from vmtest.api.cluster import engine_on
from vmtest.api.project import load_config_or_builtin
from vmtest.cluster import worker
from vmtest.kernels import Store, default_cache, source_for
from vmtest.matrix.bench import Bench, Cancellation, Emit, Job
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import run_matrix
from vmtest.model.events import Event, TestFinished, TestStarted
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.runs.folder import RunFolder
from vmtest.runs.rows import RESULTS, write_result


@dataclass(frozen=True)
class Telling:
    """A task that would tell of ``count`` tests."""

    count: int
    objects: tuple[tuple[str, str], ...] = ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Never called: see ``tells``."""
        raise NotImplementedError


def tells(job: Job, emit: Emit, cancellation: Cancellation) -> KernelResult:
    """In the place of ``run_kernel``: nothing boots, and no file of the kernel is hashed."""
    assert isinstance(job.task, Telling)
    name, tests = job.kernel.name, []
    with (job.directory / RESULTS).open("wb", buffering=0) as rows:
        for number in range(job.task.count):
            test = TestResult(
                f"tests/test_file.py::test_some_claim[{number}]", "suite", Outcome.PASSED
            )
            emit(TestStarted(name, test.test))
            write_result(rows, test)
            emit(TestFinished(name, test))
            tests.append(test)
    (job.directory / "console.log").write_bytes(b"a line of a console\n" * 10_000)
    return KernelResult(name, Status.PASSED, tests=tuple(tests), directory=name)


async def serve(address: str, count: int, folder: str) -> None:
    """Be ``count`` workers, until the scheduler goes away."""
    worker.run_kernel = tells  # type: ignore[assignment]
    workers = [
        await distributed.Worker(
            address, nthreads=1, resources={"vm": 1}, name=number, local_directory=folder
        )
        for number in range(count)
    ]
    await asyncio.gather(*(one.finished() for one in workers))


def started(stack: ExitStack, *argv: str) -> psutil.Process:
    """A process that ends with ``stack``."""
    process = subprocess.Popen(
        [sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return psutil.Process(process.pid)


def cost(process: psutil.Process) -> str:
    """Its CPU seconds, and its memory at the end."""
    times = process.cpu_times()
    return f"{times.user + times.system:7.1f} s CPU  {process.memory_info().rss >> 20:5d} MiB"


def address_in(file: Path) -> str:
    """What a scheduler wrote into its file."""
    while True:
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)


def plan_of(settings: Config, kernels: int, tests: int, folder: Path) -> Plan:
    """One real kernel of the cache under many names, on the host's root."""
    (one,) = (kernel for kernel in settings.kernels if kernel.name == smoke.KERNEL)
    found = source_for(one, settings.archives).resolve(one, Store(default_cache()))
    many = tuple(replace(one, name=f"k{number}") for number in range(kernels))
    (folder / "run").mkdir()
    return Plan(
        config=replace(settings, guest=replace(settings.guest, root="host")),
        kernels=many,
        task=lambda image: Telling(tests),
        cache=default_cache(),
        folder=RunFolder(folder / "run"),
        resolved={kernel.name: replace(found, kernel=kernel) for kernel in many},
    )


def measure(options: argparse.Namespace) -> None:
    """Run the matrix and print what it cost."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmtest-cluster-")))
        file = folder / "scheduler.json"
        argv = ["-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1"]
        argv += ["--no-dashboard", "--scheduler-file", str(file)]
        scheduler = started(stack, *argv)
        address = address_in(file)
        argv = [__file__, "--serve", address, "--workers", str(options.workers)]
        farm = started(stack, *argv, "--folder", str(folder / "workers"))
        plan = plan_of(load_config_or_builtin(None), options.kernels, options.tests, folder)
        heard = 0

        def emit(event: Event) -> None:
            nonlocal heard
            heard += 1

        engine = stack.enter_context(engine_on(address, print))
        assert engine is not None
        while engine.slots < options.workers:
            time.sleep(0.2)
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.monotonic()
        matrix = run_matrix(plan, emit, lambda matrix: None, engine=engine)
        took = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
        passed = sum(kernel.status is Status.PASSED for kernel in matrix.kernels)
        tests = sum(len(kernel.tests) for kernel in matrix.kernels)
        print(f"{passed} of {len(matrix.kernels)} kernels passed, {tests} tests, {took:.1f} s")
        print(f"{heard} events, {heard / took:.0f} a second")
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        most = after.ru_maxrss >> 10
        print(f"coordinator {own:7.1f} s CPU  {most:5d} MiB (before: {before.ru_maxrss >> 10} MiB)")
        print(f"scheduler   {cost(scheduler)}")
        print(f"workers     {cost(farm)}")
        if passed != options.kernels or tests != options.kernels * options.tests:
            raise SystemExit(f"not all passed: {matrix.kernels[0]}")


def main() -> None:
    """Measure, or be the workers of a measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--kernels", type=int, default=200)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--serve", metavar="SCHEDULER", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = smoke.parse(parser, {"workers": 2, "kernels": 4, "tests": 5})
    if options.serve:
        asyncio.run(serve(options.serve, options.workers, options.folder))
        return
    measure(options)


if __name__ == "__main__":
    main()

"""The matrix by its own interface: another engine, and the guest's other roots."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from vmtest.config.file import parse
from vmtest.matrix.bench import Bench, Cancellation, Hold, Task
from vmtest.matrix.engine import Assignment, Crew, Here, Start, job_here
from vmtest.matrix.job import run_kernel
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import run_matrix
from vmtest.model.events import Event, KernelFinished
from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Matrix, Outcome, Status
from vmtest.runs import folder as runs
from vmtest.suites.task import SuitesTaskFactory

CONFIG = """
schema = 1
[guest]
root = "{root}"
[[kernel]]
name = "mine"
path = "{image}"
modules = "{modules}"
config = "{config}"
[[suite]]
name = "own"
tests = "test_own.py"
"""

SUITE = """
import os
import sys

def test_where_am_i():
    print(os.getuid(), sys.executable, os.listdir(os.path.expanduser("~")))
    assert os.getuid() == 0
    assert os.listdir(os.path.expanduser("~")) == []
"""


def configured(folder: Path, image: KernelImage, root: str) -> Config:
    (folder / "test_own.py").write_text(SUITE)
    text = CONFIG.format(root=root, image=image.image, modules=image.modules, config=image.config)
    return parse(text, folder / "kernels.toml")


def plan(settings: Config, cache: Path, folder: Path) -> Plan:
    tasks = SuitesTaskFactory(settings, settings.suites, ())
    return Plan(settings, settings.kernels, tasks.task, cache, runs.create(folder))


class Processes:
    """An engine of another process: what is assigned and what comes back can be pickled."""

    def begin(
        self,
        plan: Plan,
        post: Callable[[Event], None],
        cancellation: Cancellation,
        hold: Hold | None,
    ) -> Crew:
        self._here = Here(plan.cache, plan.accelerator, plan.warm, 1)
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self

    def ready(self, given: Assignment) -> Start:
        job, _ = job_here(given, self._here)
        return lambda: self._pool.submit(run_kernel, job)

    def cancel(self) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def test_an_engine_of_another_process_comes_to_the_same_matrix(
    tmp_path: Path, image: KernelImage, root: RootImage, cache: Path
) -> None:
    settings = configured(tmp_path, image, str(root.path))
    two = tuple(replace(settings.kernels[0], name=name) for name in ("a", "b"))
    settings = replace(settings, kernels=two)
    events: list[Event] = []
    saved: list[Matrix] = []
    asked = plan(settings, cache, tmp_path)
    matrix = run_matrix(asked, events.append, saved.append, engine=Processes())
    assert [kernel.status for kernel in matrix.kernels] == [Status.PASSED] * 2
    ended = {event.kernel for event in events if isinstance(event, KernelFinished)}
    assert ended == {"a", "b"}
    assert saved[0].kernels[0].status is Status.CANCELLED, "nothing had finished yet"
    assert saved[-1] == matrix


def test_the_hosts_own_root_has_a_private_home(
    tmp_path: Path, image: KernelImage, cache: Path
) -> None:
    missing = [path for path in ("/usr/sbin/sshd",) if not Path(path).exists()]
    if missing:
        pytest.skip(f'root = "host" needs {missing[0]} on the host')
    if os.geteuid() == 0 and not any(Path.home().iterdir()):
        pytest.skip("the host's home is empty: nothing would show")
    settings = configured(tmp_path, image, "host")
    matrix = run_matrix(plan(settings, cache, tmp_path), lambda event: None, lambda matrix: None)
    assert [kernel.status for kernel in matrix.kernels] == [Status.PASSED], matrix


@dataclass(frozen=True)
class Breaking:
    """What a bug of ours in a task does: it runs the suites, and breaks afterwards."""

    suites: Task

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        return ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        self.suites.run(bench, result)
        raise KeyError("a bug")


def test_a_worker_that_breaks_costs_its_own_kernel_only(
    tmp_path: Path, image: KernelImage, root: RootImage, cache: Path
) -> None:
    settings = configured(tmp_path, image, str(root.path))
    two = tuple(replace(settings.kernels[0], name=name) for name in ("breaks", "stands"))
    settings = replace(settings, kernels=two)
    asked = plan(settings, cache, tmp_path)

    def task(of: KernelImage) -> Task:
        suites = asked.task(of)
        return Breaking(suites) if of.name == "breaks" else suites

    matrix = run_matrix(replace(asked, task=task, jobs=1), lambda event: None, lambda matrix: None)
    broken, standing = matrix.kernels
    assert standing.status is Status.PASSED, standing
    assert broken.status is Status.INFRA_ERROR
    assert broken.reason.startswith("a bug in vmtest: KeyError: 'a bug'; please report it")
    assert [test.outcome for test in broken.tests] == [Outcome.PASSED]

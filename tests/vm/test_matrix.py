"""The matrix by its own interface: another executor, and the guest's other roots."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from vmtest.config.file import Config, parse
from vmtest.matrix.runner import Plan, run_matrix
from vmtest.model.events import Event, KernelFinished
from vmtest.model.kernels import KernelImage, Matrix, RootImage, Status
from vmtest.runs import folder as runs
from vmtest.suites.task import SuitesTasks

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
    tasks = SuitesTasks(settings, settings.suites, ())
    return Plan(settings, settings.kernels, tasks.task, cache, runs.create(folder))


def test_jobs_run_on_a_process_pool_as_well(
    tmp_path: Path, image: KernelImage, root: RootImage, cache: Path
) -> None:
    """Any executor: what is submitted and what comes back can be pickled."""
    settings = configured(tmp_path, image, str(root.path))
    two = tuple(replace(settings.kernels[0], name=name) for name in ("a", "b"))
    settings = replace(settings, kernels=two)
    events: list[Event] = []
    saved: list[Matrix] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        matrix = run_matrix(
            plan(settings, cache, tmp_path), events.append, saved.append, executor=pool
        )
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

"""``--on``: real kernels on workers that are processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import vmtest
from dask_workers import Farm, environment, farm
from real_kernels import KERNEL

from vmtest.api.cluster import engine_on
from vmtest.api.project import load_config
from vmtest.api.run import run_suites
from vmtest.api.suites import SuitesRequest
from vmtest.model.events import Event, Preparing, TestFinished
from vmtest.model.results import Status

SUITE = """
import os

def test_passes():
    assert os.getuid() == 0

def test_fails():
    assert os.uname().release == "none"
"""
MANY = """
import pytest

@pytest.mark.parametrize("number", range(300))
def test_one(number):
    assert number >= 0
"""
OF_A_BOOT = ("duration", "boot_seconds", "factor", "start", "note", "console_tail")
"""What one start of a guest and another need not have in common."""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Farm]:
    with farm(tmp_path / "farm") as found:
        yield found


def kernels(folder: Path) -> list[dict[str, Any]]:
    """The rows of the last run, without what a boot and its times say."""
    found = json.loads((folder / ".vmtest" / "latest" / "matrix.json").read_text())["kernels"]
    for kernel in found:
        for name in OF_A_BOOT:
            kernel.pop(name)
        for test in kernel["tests"]:
            for name in ("duration", "started", "uptime", "kernel_log"):  # with its times
                test.pop(name)
    return list(found)


def files(folder: Path) -> set[str]:
    latest = folder / ".vmtest" / "latest" / KERNEL
    return {path.relative_to(latest).as_posix() for path in latest.rglob("*")}


def test_a_local_cluster_has_the_table_and_the_files_of_threads(
    project: Callable[..., Path],
) -> None:
    folder = project(SUITE)
    first = vmtest("run", "--jobs", "1", cwd=folder)
    threads, left = kernels(folder), files(folder)
    second = vmtest("run", "--jobs", "1", "--on", "local:2", cwd=folder)
    assert (first.status, second.status) == (1, 1), second
    assert "6.12: on tcp://" in second.out
    (there,), (here,) = kernels(folder), threads
    assert {key: there[key] for key in here if there[key] != here[key]} == {}
    assert files(folder) == left
    assert "test_fails" in (folder / ".vmtest/latest" / KERNEL / "pytest.log").read_text()


def test_a_kernel_whose_worker_is_killed_under_a_test_runs_elsewhere(
    project: Callable[..., Path], cache: Path, workers: Farm
) -> None:
    folder = project(MANY)
    for name in ("one", "two"):
        workers.start(name, cache)
    places: list[str] = []
    killed: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Preparing) and event.what.startswith("on tcp://"):
            places.append(event.what.removeprefix("on "))
        if isinstance(event, TestFinished) and not killed:
            name = workers.at(places[0])
            killed.append(name)
            workers.workers[name].kill()

    with engine_on(workers.address, lambda line: None) as engine:
        run = run_suites(load_config(folder / "kernels.toml"), SuitesRequest(), emit, engine=engine)
    (result,) = run.matrix.kernels
    assert result.status is Status.PASSED, result
    assert len(result.tests) == 300
    assert len(places) == 2 and places[0] != places[1]
    assert f"worker {places[0]} was lost while it ran this kernel" in result.note
    assert (run.folder / KERNEL / "lost-worker-1" / "results.jsonl").read_text()
    assert len((run.folder / KERNEL / "results.jsonl").read_text().splitlines()) == 300


def test_a_worker_of_another_version_ends_the_command_before_anything_is_built(
    project: Callable[..., Path], cache: Path, workers: Farm, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "vmtest-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: vmtest\nVersion: 9.9\n")
    path = f"{other.parent}:{environment(cache)['PYTHONPATH']}"
    workers.start("one", cache, {"PYTHONPATH": path})
    folder = project(SUITE)
    said = vmtest("run", "--on", workers.address, cwd=folder)
    said.refuses(2, "worker tcp://", "vmtest 9.9", "here is vmtest", "install the same there")
    assert not (folder / "out").exists()

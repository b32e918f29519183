"""``--on``: real kernels on workers that are processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import vmtest
from coordinator import until
from dask_workers import Farm, environment, farm
from little_objects import BAD, compiled
from real_kernels import KERNEL, image_of, kernel_entry
from ssh_hosts import hosts, needs_sshd

from vmtest.api.cluster import engine_on
from vmtest.api.project import load_config
from vmtest.api.run import run_suites
from vmtest.api.suites import SuitesRequest
from vmtest.model.events import Event, Preparing, TestFinished
from vmtest.model.kernels import Accelerator, RootImage
from vmtest.model.project import Config
from vmtest.model.results import Status
from vmtest.vm.accel import Probe

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
        for load in kernel["loads"]:
            load["cost"].pop("verification_us")
    return list(found)


def differences(there: list[dict[str, Any]], here: list[dict[str, Any]]) -> list[Any]:
    """What rows differ in: kernel, field and both values, for each test its own fields."""
    found: list[Any] = []
    for one, other in zip(there, here, strict=True):
        tests = zip(one["tests"], other["tests"], strict=True)
        for left, right in ((one | {"tests": 0}, other | {"tests": 0}), *tests):
            fields = [key for key in right if left[key] != right[key]]
            found += [(one["kernel"], key, left[key], right[key]) for key in fields]
    return found


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
    assert "6.12: on tls://" in second.out
    assert differences(kernels(folder), threads) == []
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
    named = re.search(r"; the rest is there, in (\S+)\)", result.note)
    assert named is not None, result.note
    # A restored guest's console is quiet.
    for name in ("dmesg.log", "results.jsonl"):
        assert (Path(named[1]) / name).read_text(), name
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


def test_a_worker_without_kvm_says_so_when_it_is_asked_for(
    project: Callable[..., Path], probe: Probe
) -> None:
    if probe.accelerator is Accelerator.KVM:
        pytest.skip("KVM works here")
    folder = project(SUITE)
    said = vmtest("run", "--on", "local:1", "--accel", "kvm", cwd=folder)
    assert said.status == 3, said
    (file,) = folder.glob(".vmtest/runs/*/matrix.json")  # where nothing ran, it is not the latest
    (kernel,) = json.loads(file.read_text())["kernels"]
    assert (kernel["status"], kernel["tests"]) == ("INFRA_ERROR", [])
    assert kernel["reason"].startswith("worker tls://"), kernel
    assert "KVM does not work here: " in kernel["reason"]


FOUR = ("5.10", "6.1", "6.12", "backports")
SUITES = """
[[suite]]
name = "own"
tests = "checks/test_own.py"
[[suite]]
name = "other"
tests = "checks/test_other.py"
"""
OTHER = """
import os
import pytest

@pytest.mark.parametrize("first", [5, 6, 7])
def test_is_of_the_series(first):
    assert os.uname().release.split(".")[0] == str(first)

def test_of_tcx():
    if int(os.uname().release.split(".")[0]) < 6:
        pytest.skip("needs 6.6")
"""


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory, settings: Config, cache: Path, root: RootImage
) -> Path:
    """A project of two suites and four kernels."""
    folder = tmp_path_factory.mktemp("four")
    text = f'schema = 1\n[guest]\nroot = "{root.path}"\n'
    for name in FOUR:
        text += kernel_entry(name, image_of(name, settings, cache))
    (folder / "checks").mkdir()
    (folder / "checks" / "test_own.py").write_text(SUITE)
    (folder / "checks" / "test_other.py").write_text(OTHER)
    (folder / "kernels.toml").write_text(text + SUITES)
    return folder


@pytest.fixture(scope="module")
def by_threads(four: Path) -> list[dict[str, Any]]:
    """The rows of its matrix on this machine."""
    said = vmtest("run", cwd=four, timeout=900)
    found = kernels(four)
    assert said.status == 1, said
    assert [len(kernel["tests"]) for kernel in found] == [6] * 4
    return found


def test_a_matrix_on_a_local_cluster_is_that_of_threads(
    four: Path, by_threads: list[dict[str, Any]]
) -> None:
    said = vmtest("run", "--on", "local:2", cwd=four, timeout=900)
    assert (said.status, differences(kernels(four), by_threads)) == (1, []), said


def test_a_matrix_on_two_workers_by_tcp_is_that_of_threads(
    four: Path, by_threads: list[dict[str, Any]], cache: Path, workers: Farm
) -> None:
    for name in ("one", "two"):
        workers.start(name, cache)
    said = vmtest("run", "--on", workers.address, cwd=four, timeout=900)
    assert (said.status, differences(kernels(four), by_threads)) == (1, []), said
    assert workers.workers["one"].poll() is workers.workers["two"].poll() is None


@needs_sshd
def test_a_matrix_on_two_hosts_by_ssh_is_that_of_threads(
    four: Path, by_threads: list[dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    with hosts(tmp_path / "hosts") as machines:
        for name in ("one", "two"):
            machines.start(name, cache)
        ssh = {"VMTEST_SSH": machines.ssh}
        said = vmtest("run", "--on", "ssh:one:1,two:1", cwd=four, environment=ssh, timeout=900)
        assert (said.status, differences(kernels(four), by_threads)) == (1, []), said
        for name in ("one", "two"):
            assert f": on {name}" in said.out
        assert machines.processes() == []


def test_a_matrix_of_four_shards_is_that_of_threads(
    four: Path, by_threads: list[dict[str, Any]]
) -> None:
    runs = []
    for number in range(1, 5):
        said = vmtest("run", "--shard", f"{number}/4", cwd=four, timeout=900)
        assert said.status == 1, said
        runs.append(str((four / ".vmtest" / "latest").resolve()))
    said = vmtest("merge", *runs, cwd=four)
    assert (said.status, differences(kernels(four), by_threads)) == (1, []), said


WAITS = """
import time

def test_passes():
    pass

def test_waits():
    time.sleep(600)
"""


@needs_sshd
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_runs_on_a_host_by_ssh_ends_with_its_coordinator(
    project: Callable[..., Path], cache: Path, tmp_path: Path, number: int
) -> None:
    folder = project(WAITS)
    rows = folder / ".vmtest" / "latest" / KERNEL / "results.jsonl"
    with hosts(tmp_path / "hosts") as machines:
        machines.start("one", cache)
        argv = [sys.executable, "-m", "vmtest", "run", "--on", "ssh:one"]
        environ = {**os.environ, "VMTEST_SSH": machines.ssh}
        with subprocess.Popen(
            argv, cwd=folder, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            until(lambda: rows.exists() and bool(rows.read_text()), lambda: process.poll() is None)
            assert any("qemu" in line for line in machines.processes())
            process.send_signal(number)
            status = process.wait(60)
        if number == signal.SIGINT:
            assert status == 130
            assert machines.processes() == []
        until(lambda: not machines.processes() and not [*machines.folder.glob("*/tmp/*")])
    assert len(rows.read_text().splitlines()) == 1
    if number == signal.SIGINT:
        (kernel,) = kernels(folder)
        assert (kernel["status"], kernel["tests"][0]["outcome"]) == ("CANCELLED", "passed")
        assert (rows.parent / "console.log").exists(), "a restored guest's is empty"
        for name in ("dmesg.log", "pytest.log"):
            assert (rows.parent / name).read_text(), name


@pytest.fixture
def one_host(
    project: Callable[..., Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A project without suites, and a host ``one`` for it."""
    folder = project("")
    config = folder / "kernels.toml"
    config.write_text(config.read_text().split("[[suite]]")[0])
    with hosts(tmp_path / "hosts") as machines:
        machines.start("one", cache)
        monkeypatch.setenv("VMTEST_SSH", machines.ssh)
        yield folder
        assert machines.processes() == []


@needs_sshd
def test_a_command_on_a_host_by_ssh_has_output_status_and_rows_as_here(one_host: Path) -> None:
    (one_host / "t.sh").write_text("echo 1..2; echo ok 1 - one; echo not ok 2 - two; exit 1\n")
    shell = ("--", "sh", "-c", "uname -r; pwd; echo on stderr >&2; exit 42")
    tap = ("--copy", "t.sh", "--results", "tap", "--", "sh", "./t.sh")
    for asked in (shell, tap):
        here = vmtest("exec", *asked, cwd=one_host)
        mine = kernels(one_host)
        there = vmtest("exec", "--on", "ssh:one:1", *asked, cwd=one_host)
        assert (there.status, there.out) == (here.status, here.out), there
        assert differences(kernels(one_host), mine) == []
        assert f"{KERNEL}: on one" in there.err
    assert [test["outcome"] for test in mine[0]["tests"]] == ["passed", "failed"]


@needs_sshd
def test_objects_on_a_host_by_ssh_have_the_verdicts_and_logs_of_here(one_host: Path) -> None:
    compiled(one_host / "mixed.bpf.o", BAD)
    here = vmtest("verify", "mixed.bpf.o", cwd=one_host)
    mine, left = kernels(one_host), files(one_host)
    there = vmtest("verify", "--on", "ssh:one:1", "mixed.bpf.o", cwd=one_host)
    assert there.status == here.status == 1, there
    verdicts = {load["program"]: load["verdict"] for load in mine[0]["loads"] if load["program"]}
    assert verdicts == {"first": "rejected", "second": "accepted", "third": "accepted"}
    assert (kernels(one_host), files(one_host)) == (mine, left)

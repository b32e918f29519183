"""Guests without QEMU: what happens at each stage is the test's; who is blamed is the product's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import pytest

from vmtest.errors import DeadlineExceeded, SessionLost
from vmtest.matrix import bench as bench_module
from vmtest.matrix.bench import Bench, Guest, Job
from vmtest.matrix.judge import watch
from vmtest.model.kernels import Accelerator, Kernel, KernelImage, Limits, PathSpec, RootImage
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.model.versions import KernelVersion
from vmtest.runs.rows import RESULTS, write_result
from vmtest.vm import restore as restore_module
from vmtest.vm.accel import Probe
from vmtest.vm.klog import KernelLog
from vmtest.vm.machine import Machine
from vmtest.vm.session import Check, Completed, SshSession

RELEASE = "6.12.1"
DONE = TestResult("t.py::a", "s", Outcome.PASSED, duration=0.5)
PROBE = Probe(Accelerator.TCG, 1.0, "", "")
STAGES = ("start", "boot", "copy", "run", "log")
"""Where something can happen to a guest, in order."""


@dataclass
class World:
    """What happens to which guest: ``at[kernel, stage]`` is called with its machine."""

    at: dict[tuple[str, str], Callable[[FakeMachine], None]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    alive: int = 0
    most_alive: int = 0

    def happens(self, kernel: str, stage: str, *arguments: FakeMachine) -> None:
        """Have done what this test wants there."""
        action = self.at.get((kernel, stage))
        if action is not None:
            action(*arguments)


class FakeMachine(Machine):
    """A machine whose guest is the world's; its console and its words are the real ones."""

    world: World

    def __enter__(self) -> Self:
        world = self.world
        world.happens(self.spec.image.name, "start", self)
        world.started.append(self.spec.image.name)
        world.alive += 1
        world.most_alive = max(world.most_alive, world.alive)
        return self

    def __exit__(self, *error: object) -> None:
        self.console.close()
        self.world.alive -= 1
        self.world.ended.append(self.spec.image.name)

    def connect(self, limit: float, factor: float = 1.0) -> SshSession:
        try:
            self.happens("boot")
        except (SessionLost, DeadlineExceeded, OSError) as error:
            raise self._boot_error(limit, factor, error) from error
        return cast(SshSession, FakeSession(self))

    def happens(self, stage: str) -> None:
        """What the test wants; a machine that was cancelled meanwhile has lost its guest."""
        self.world.happens(self.spec.image.name, stage, self)
        if self._cancelled.is_set():
            raise SessionLost("cancelled")

    def says(self, text: str) -> None:
        """Have the guest's kernel say ``text`` on its console."""
        self.console.feed(f"[    9.000000] {text}\n".encode())

    def dies(self) -> None:
        """QEMU ends."""
        self._ended.set()
        raise SessionLost("end of file")

    def cancel(self) -> None:
        self._cancelled.set()
        self._ended.set()


class FakeSession:
    """Takes the payload and says what kernel runs."""

    alive = True

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    def put(self, data: bytes, remote: str) -> None:
        self._machine.happens("copy")

    def run(self, argv: object, **more: object) -> Completed:
        return Completed(0, RELEASE.encode(), b"")

    def close(self) -> None:
        pass


class FakeReader:
    """Follows no kernel's log: what a guest says is on its console."""

    unseen = ""
    overwritten = 0
    notes = ()

    def __init__(self, session: FakeSession, log: KernelLog) -> None:
        self._machine = session._machine
        self.log = log

    def finish(self, limit: float, check: Check) -> None:
        self._machine.happens("log")

    def join(self) -> None:
        self.log.close()


@dataclass
class TwoTests:
    """Work of two tests: the first passes and is on disk, in the second the world happens."""

    directory: Path
    archive: bytes = b""
    name: str = "pytest"
    begun: bool = False
    running: str | None = None

    def run(self, guest: Guest, check: Check) -> None:
        self.begun = True
        with (self.directory / RESULTS).open("ab") as rows:
            write_result(rows, DONE)
        self.running = "t.py::b"
        cast(FakeMachine, guest.machine).happens("run")
        self.running = None

    def verdict(self, machine: Machine) -> tuple[Status, str]:
        return Status.PASSED, ""

    def results(self, reason: str) -> tuple[TestResult, ...]:
        if not self.begun:
            return ()
        if self.running:
            return DONE, TestResult("t.py::b", "s", Outcome.LOST, message=reason)
        return DONE, TestResult("t.py::b", "s", Outcome.PASSED)

    def ran_at(self, stamp: str) -> str:
        return "t.py::b" if stamp else ""


@dataclass(frozen=True)
class Tests:
    """The task of two tests: a value that can be pickled, as every task."""

    __test__ = False

    objects: tuple[tuple[str, str], ...] = ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        with bench.guest() as guest:
            return watch(bench, guest, result, TwoTests(bench.job.directory))


def image_of(folder: Path, name: str) -> KernelImage:
    """A kernel's files that are the user's own and not of the cache."""
    file = folder / f"vmlinuz-{name}"
    file.write_bytes(b"kernel")
    version = KernelVersion.parse(RELEASE)
    return KernelImage(name, version, RELEASE, file, None, None, "0" * 64, "path")


def kernel_of(folder: Path, name: str) -> Kernel:
    """A kernel by ``path``, with 1 s for everything."""
    spec = PathSpec(folder / f"vmlinuz-{name}", None, None)
    return Kernel(name, spec, limits=Limits(1, 1, 1))


def job_of(folder: Path, name: str = "k") -> Job:
    """The job of running two tests in the kernel ``name``."""
    directory = folder / "run" / name
    directory.mkdir(parents=True)
    root = RootImage("host", None, "0" * 64, "python3")
    return Job(kernel_of(folder, name), image_of(folder, name), root, Tests(), PROBE, directory, 1)


def world_of(monkeypatch: pytest.MonkeyPatch) -> World:
    """Replace QEMU, SSH and the reader of the kernel's log below ``run_kernel``."""
    world = World()
    machine = type("Machine", (FakeMachine,), {"world": world, "_settle": lambda self: None})
    monkeypatch.setattr(restore_module, "Machine", machine)
    monkeypatch.setattr(bench_module, "LogReader", FakeReader)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    return world

"""The matrix's scheduler over fake machines: what one kernel does costs no other kernel."""

from __future__ import annotations

import errno
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_machine import PROBE, FakeMachine, Tests, image_of, kernel_of, world_of
from http_files import Served, serving

from vmtest.errors import InfrastructureError, KernelUnavailable, UsageError
from vmtest.kernels import kconfig
from vmtest.kernels.files.download import download
from vmtest.matrix import engine as engine_module
from vmtest.matrix import runner
from vmtest.matrix.bench import Cancellation, Hold
from vmtest.matrix.engine import Assignment, Crew, Engine, Here, Start, job_here
from vmtest.matrix.job import run_kernel
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import Stop, run_matrix
from vmtest.matrix.slots import slots
from vmtest.model.events import Event, KernelFinished, KernelQueued, Note, Preparing
from vmtest.model.kernels import Kernel, KernelImage, Resolved, RootImage
from vmtest.model.project import Config, KnownSplat
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.runs.folder import RunFolder

NAMES = ("a", "b", "c")
PASSED = Status.PASSED


class Stage:
    """A plan of kernels over fake machines, and what happens while each is prepared.

    ``at[kernel, step]`` is called where the kernel's index is read ("resolve"), its files
    are fetched ("fetch") and its accelerator is chosen ("probe"); ``root`` where the guest
    image is made; ``task`` where its task is.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.world = world_of(monkeypatch)
        self.at: dict[tuple[str, str], Callable[[], None]] = {}
        self.root: Callable[[], None] = lambda: None
        self.task: Callable[[KernelImage], Tests] = lambda image: Tests()
        self.known_splats: tuple[KnownSplat, ...] = ()
        self.events: list[Event] = []
        self.saved: list[Matrix] = []
        (folder / "run").mkdir()
        monkeypatch.setattr(runner, "source_for", lambda kernel, archives: Source(self))
        monkeypatch.setattr(runner, "prepare_root", self._root)
        monkeypatch.setattr(
            engine_module, "accel", SimpleNamespace(choose=self._probe, Probe=object)
        )
        monkeypatch.setattr(kconfig, "check", lambda image, kind, root: "")

    def _root(self, *ignored: object) -> RootImage:
        self.root()
        return RootImage("host", None, "0" * 64, "python3")

    def _probe(self, image: Path, *ignored: object) -> object:
        self.does(image.name.removeprefix("vmlinuz-"), "probe")
        return PROBE

    def does(self, kernel: str, step: str) -> None:
        self.at.get((kernel, step), lambda: None)()

    def run(
        self,
        names: tuple[str, ...] = NAMES,
        jobs: int = 2,
        engine: Engine | None = None,
        emit: Callable[[Event], None] = lambda event: None,
        save: Callable[[Matrix], None] = lambda matrix: None,
        stop: Stop | None = None,
        warm: bool | None = False,
    ) -> Matrix:
        plan = Plan(
            config=cast(Config, SimpleNamespace(archives={}, known_splats=self.known_splats)),
            kernels=tuple(kernel_of(self.folder, name) for name in names),
            task=self.task,
            cache=self.folder / "cache",
            folder=RunFolder(self.folder / "run"),
            jobs=jobs,
            warm=warm,
        )

        def heard(event: Event) -> None:
            self.events.append(event)
            emit(event)

        def kept(matrix: Matrix) -> None:
            self.saved.append(matrix)
            save(matrix)

        return run_matrix(plan, heard, kept, engine=engine, stop=stop)


class Source:
    """A source of kernels that are the test's."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def resolve(self, kernel: Kernel, store: object) -> Resolved:
        self._stage.does(kernel.name, "resolve")
        return Resolved(kernel, KernelVersion.parse("6.12.1"), kernel.name, "test", cached=True)

    def fetch(self, resolved: Resolved, store: object, progress: object) -> KernelImage:
        self._stage.does(resolved.kernel.name, "fetch")
        return image_of(self._stage.folder, resolved.kernel.name)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*ignored: object) -> None:
        raise error

    return act


def statuses(matrix: Matrix) -> list[Status]:
    return [kernel.status for kernel in matrix.kernels]


def test_a_known_splat_of_kernels_toml_holds_on_the_kernels_that_it_names(stage: Stage) -> None:
    complains = "WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 sock_it+0x1/0x2"
    stage.world.at["a", "run"] = lambda machine: machine.says(complains)
    stage.known_splats = (KnownSplat("sock_it", "issue 8", VersionRange.parse("<6.13")),)
    assert stage.run(("a",)).kernels[0].status is Status.PASSED
    stage.known_splats = (KnownSplat("sock_it", "issue 8", VersionRange.parse("<6.1")),)
    assert stage.run(("a",)).kernels[0].status is Status.SPLAT


def test_every_kernel_passes_and_the_table_has_the_order_of_the_plan(stage: Stage) -> None:
    matrix = stage.run()
    assert [(k.kernel, k.status) for k in matrix.kernels] == [(name, PASSED) for name in NAMES]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_machines_run_than_there_are_slots(stage: Stage, jobs: int) -> None:
    stage.run(jobs=jobs)
    assert stage.world.most_alive <= jobs
    assert sorted(stage.world.ended) == list(NAMES)


def test_as_many_machines_run_at_once_as_there_are_slots(stage: Stage) -> None:
    together = threading.Barrier(2, timeout=20)
    for name in ("a", "b"):
        stage.world.at[name, "run"] = lambda machine: cast(None, together.wait())
    assert statuses(stage.run(("a", "b"), jobs=2)) == [PASSED, PASSED]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KernelUnavailable("no such package; see vmtest kernels list"), "no such package"),
        (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), "make room there"),
        (KeyError("what"), "a bug in vmtest: KeyError: 'what'"),
    ],
)
@pytest.mark.parametrize("step", ["resolve", "fetch", "probe"])
def test_a_kernel_that_cannot_be_prepared_costs_no_other(
    stage: Stage, step: str, error: Exception, said: str
) -> None:
    stage.at["b", step] = raising(error)
    matrix = stage.run()
    assert statuses(matrix) == [PASSED, Status.INFRA_ERROR, PASSED]
    assert said in matrix.kernels[1].reason
    assert "b" not in stage.world.started


def test_without_a_guest_image_no_kernel_runs_and_each_says_why(stage: Stage) -> None:
    stage.root = raising(InfrastructureError("mmdebstrap: no mirror"))
    matrix = stage.run()
    assert statuses(matrix) == [Status.INFRA_ERROR] * 3
    assert {kernel.reason for kernel in matrix.kernels} == {"mmdebstrap: no mirror"}
    assert stage.world.started == []


@pytest.mark.parametrize("when", ["start", "boot", "copy", "run", "log"])
def test_a_machine_that_dies_costs_no_other_kernel(stage: Stage, when: str) -> None:
    stage.world.at["b", when] = raising(InfrastructureError("gone"))
    matrix = stage.run()
    assert statuses(matrix) == [PASSED, Status.INFRA_ERROR, PASSED]
    assert sorted(stage.world.started) == sorted(stage.world.ended)


def test_a_worker_that_raises_costs_its_own_kernel(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: Any, *more: Any) -> Any:
        if job.kernel.name == "b":
            raise RuntimeError("the worker")
        return run_kernel(job, *more)

    monkeypatch.setattr(engine_module, "run_kernel", broken)
    matrix = stage.run()
    assert statuses(matrix) == [PASSED, Status.INFRA_ERROR, PASSED]
    assert "a bug in vmtest: RuntimeError: the worker" in matrix.kernels[1].reason


def test_what_the_user_described_wrongly_ends_the_run_and_its_machines(stage: Stage) -> None:
    held = threading.Event()

    def wrong(image: KernelImage) -> Tests:
        if image.name == "a":
            return Tests()
        assert held.wait(20)
        raise UsageError("objects: two are called x")

    def hold(machine: FakeMachine) -> None:
        held.set()
        assert machine._cancelled.wait(20)

    stage.task = wrong
    stage.world.at["a", "run"] = hold
    with pytest.raises(UsageError, match="two are called x"):
        stage.run(("a", "b"))
    assert stage.world.started == stage.world.ended == ["a"]


def test_an_interrupt_keeps_what_had_finished_and_ends_what_runs(stage: Stage) -> None:
    running = threading.Event()

    def hold(machine: FakeMachine) -> None:
        running.set()
        assert machine._cancelled.wait(20)

    def interrupt(event: Event) -> None:
        if isinstance(event, KernelFinished) and event.kernel == "a":
            raise KeyboardInterrupt

    stage.world.at["a", "log"] = lambda machine: cast(None, running.wait(20))
    stage.world.at["b", "run"] = hold
    matrix = stage.run(("a", "b", "c"), jobs=2, emit=interrupt)
    assert matrix.interrupted
    assert statuses(matrix)[:2] == [PASSED, Status.CANCELLED]
    assert sorted(stage.world.started) == sorted(stage.world.ended)
    assert [test.test for test in matrix.kernels[1].tests][:1] == ["t.py::a"]


def test_an_interrupt_before_anything_boots_leaves_every_kernel_cancelled(stage: Stage) -> None:
    once: list[Event] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, Preparing) and not once:
            once.append(event)
            raise KeyboardInterrupt

    matrix = stage.run(emit=interrupt)
    assert matrix.interrupted
    assert len(matrix.kernels) == 3
    assert PASSED not in statuses(matrix)


def test_a_stop_from_another_thread_ends_what_runs_as_an_interrupt_does(stage: Stage) -> None:
    stop = Stop()

    def hold(machine: FakeMachine) -> None:
        stop.request()  # on a worker's thread
        assert machine._cancelled.wait(20)

    stage.world.at["a", "run"] = hold
    matrix = stage.run(("a",), stop=stop)
    assert stop.requested
    assert matrix.interrupted
    assert statuses(matrix) == [Status.CANCELLED]
    assert stage.world.started == stage.world.ended == ["a"]


def test_a_stop_before_the_run_begins_boots_nothing(stage: Stage) -> None:
    stop = Stop()
    stop.request()
    matrix = stage.run(stop=stop)
    assert matrix.interrupted
    assert stage.world.started == []


def test_the_matrix_is_saved_at_the_start_after_each_kernel_and_at_the_end(stage: Stage) -> None:
    last = stage.run()
    finished = [statuses(matrix).count(PASSED) for matrix in stage.saved]
    assert finished == [0, 1, 2, 3, 3]
    assert stage.saved[-1] == last


def test_a_report_that_cannot_be_saved_ends_the_run_and_its_machines(stage: Stage) -> None:
    def save(matrix: Matrix) -> None:
        if PASSED in statuses(matrix):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        stage.run(save=save)
    assert sorted(stage.world.started) == sorted(stage.world.ended)


def test_each_kernel_is_queued_first_and_finished_once(stage: Stage) -> None:
    stage.run()
    assert stage.events[:3] == [KernelQueued(name) for name in NAMES]
    ends = [event.kernel for event in stage.events if isinstance(event, KernelFinished)]
    assert sorted(ends) == list(NAMES)


class Elsewhere:
    """An engine that is not ours: what is assigned and what comes of it go through pickle."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.ends: list[str] = []

    def begin(
        self,
        plan: Plan,
        post: Callable[[Event], None],
        cancellation: Cancellation,
        hold: Hold | None,
    ) -> Crew:
        self._here = Here(plan.cache, plan.accelerator, plan.warm, 1)
        return self

    def ready(self, given: Assignment) -> Start:
        job, _ = job_here(pickle.loads(pickle.dumps(given)), self._here)
        return lambda: self.start(job.kernel.name, lambda: run_kernel(job))

    def start(self, name: str, work: Callable[[], KernelResult]) -> Future[KernelResult]:
        self.ran.append(name)
        future: Future[KernelResult] = Future()
        future.set_result(pickle.loads(pickle.dumps(work())))
        return future

    def cancel(self) -> None:
        self.ends.append("cancelled")

    def close(self) -> None:
        self.ends.append("closed")


def test_guests_that_boot_because_none_can_be_saved_are_told_of_once(stage: Stage) -> None:
    matrix = stage.run(warm=None)
    assert [kernel.start for kernel in matrix.kernels] == ["cold"] * 3
    assert [kernel.note for kernel in matrix.kernels] == [""] * 3
    notes = [event.text for event in stage.events if isinstance(event, Note)]
    assert len(notes) == 1, notes
    assert "boots, because its guest cannot be saved: its root is a folder" in notes[0]


def test_another_engine_gets_values_and_its_results_are_the_matrix(stage: Stage) -> None:
    engine = Elsewhere()
    assert statuses(stage.run(engine=engine)) == [PASSED] * 3
    assert sorted(engine.ran) == list(NAMES)
    assert engine.ends == ["closed"]


def test_an_engine_whose_run_is_stopped_is_cancelled(stage: Stage) -> None:
    engine, stop = Elsewhere(), Stop()
    stop.request()
    assert stage.run(engine=engine, stop=stop).interrupted
    assert engine.ends == ["cancelled"]


class Losing(Elsewhere):
    """Loses the kernel b, after it ran."""

    def start(self, name: str, work: Callable[[], KernelResult]) -> Future[KernelResult]:
        done = super().start(name, work)
        if name != "b":
            return done
        lost: Future[KernelResult] = Future()
        lost.cancel()
        return lost


def test_what_an_engine_lost_costs_its_own_kernel_and_no_row(stage: Stage) -> None:
    matrix = stage.run(engine=Losing())
    assert statuses(matrix) == [PASSED, Status.INFRA_ERROR, PASSED]
    assert "was cancelled where it ran" in matrix.kernels[1].reason
    assert [test.test for test in matrix.kernels[1].tests] == ["t.py::a"]


@pytest.mark.parametrize(
    ("cpus", "memory", "expected"),
    [(8, 100_000, 3), (2, 100_000, 2), (1, 100_000, 1), (8, 3_100, 2), (8, 100, 1)],
)
def test_slots_are_bounded_by_kernels_cpus_and_memory(
    cpus: int, memory: int, expected: int, tmp_path: Path
) -> None:
    assert slots([kernel_of(tmp_path, name) for name in NAMES], cpus, memory) == expected


def test_a_download_that_is_tried_again_is_told_and_noted_at_its_kernel(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Served({"/kernel.deb": b"kernel"}, statuses=[503])) as served:
        address = f"{served.url}/kernel.deb"
        stage.at["b", "fetch"] = lambda: download(address, tmp_path / "part", "b")
        matrix = stage.run()
    line = (
        f"b: downloading {address} failed: HTTP status 503 Service Unavailable; it is tried again "
        f"(attempt 2 of 4)"
    )
    assert [kernel.note for kernel in matrix.kernels] == ["", line, ""]
    assert Note(line) in stage.events and statuses(matrix) == [PASSED] * 3

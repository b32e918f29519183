"""A coordinator's crew over a cluster that only keeps what it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmtest.cluster import crew
from vmtest.cluster.crew import Crew, Standing
from vmtest.cluster.order import BEGAN, PLACE, Call, Ended, Said, Unfit
from vmtest.matrix.engine import Assignment
from vmtest.matrix.plan import Plan
from vmtest.model.results import KernelResult, Status

A, B, C = "tcp://a:1", "tcp://b:1", "tcp://c:1"


class Cluster:
    """Workers that come and go, and the calls that were submitted."""

    name = "tcp://scheduler:1"

    def __init__(self, *workers: str) -> None:
        self.workers = workers
        self.submitted: list[tuple[set[str], SimpleNamespace]] = []
        self.cancelled: list[object] = []

    def standing(self) -> Standing:
        hosts = {address: address[6:7] for address in self.workers}
        return Standing(dict.fromkeys(self.workers, 1), declared=False, hosts=hosts)

    def called(self, address: str) -> str:
        return address

    def cure(self) -> str:
        return "start one"

    def submit(self, call: Call, standing: Standing, not_on: frozenset[str]) -> Any:
        del call
        future = SimpleNamespace(status="pending", add_done_callback=lambda done: None)
        self.submitted.append((set(standing.slots) - not_on, future))
        return future

    def cancel(self, futures: list[Any]) -> None:
        self.cancelled += futures

    def run_on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        raise OSError(f"{address} has nothing for {function.__name__}{arguments}")


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(A, B)


@pytest.fixture
def working(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    monkeypatch.setattr(crew, "TICK", 0.01)
    monkeypatch.setattr(crew, "PATIENCE", 0.1)
    folder = SimpleNamespace(path=tmp_path, put_aside=lambda *given: None)
    plan = cast(Plan, SimpleNamespace(folder=folder, jobs=None, cache=tmp_path))
    made = Crew(cluster, plan, lambda event: None, lambda crew: None)
    yield made
    made.close()


@pytest.fixture
def kernel(cluster: Cluster, working: Crew, tmp_path: Path) -> crew._Kernel:
    """One that is submitted."""
    given = SimpleNamespace(
        kernel=SimpleNamespace(name="k", gate=True),
        image=SimpleNamespace(version="6.12.1", release="6.12.1", note="", digest="0"),
        root=SimpleNamespace(digest="0"),
        task=SimpleNamespace(objects=()),
        directory=tmp_path,
        note="",
    )
    made = crew._Kernel(cast(Assignment, given), b"", Future())
    working._inbox.put(lambda: working._queue(made))
    until(lambda: len(cluster.submitted) == 1)
    return made


def hears(working: Crew, token: str, worker: str, kind: str, what: object = None) -> None:
    working.heard(Said(working.run, "k", token, worker, kind, what))


def test_a_kernel_whose_workers_are_gone_is_offered_to_those_that_came(
    cluster: Cluster, working: Crew, kernel: crew._Kernel
) -> None:
    """Dask would wait for the named workers for ever."""
    full = Ended("token", A, Unfit("its disk is full"))
    working._inbox.put(lambda: working._brought(kernel, full))
    until(lambda: len(cluster.submitted) == 2)
    only_b, waits = cluster.submitted[1]
    cluster.workers = (A, C)
    until(lambda: len(cluster.submitted) == 3)
    assert (only_b, cluster.submitted[2][0]) == ({B}, {C})
    until(lambda: waits in cluster.cancelled)
    assert not kernel.future.done()


def test_a_note_says_where_the_files_of_each_lost_worker_are(
    working: Crew, kernel: crew._Kernel
) -> None:
    hears(working, "1", A, BEGAN)
    hears(working, "2", B, BEGAN)
    hears(working, "2", B, PLACE, "/cache/workers/2/k")
    hears(working, "3", A, BEGAN)
    ended = Ended("3", A, KernelResult("k", Status.PASSED))
    working._inbox.put(lambda: working._brought(kernel, ended))
    assert kernel.future.result(60).note == (
        f"worker {A} was lost before it ran this kernel, and left nothing of it; "
        f"worker {B} was lost while it ran this kernel (what had arrived: k/lost-worker-2; "
        "the rest is there, in /cache/workers/2/k)"
    )


def test_a_kernel_that_a_worker_does_not_take_after_an_interrupt_is_not_submitted_again(
    cluster: Cluster, working: Crew, kernel: crew._Kernel
) -> None:
    hears(working, "1", A, BEGAN)
    working._inbox.put(working._stop_all)
    full = Ended("1", A, Unfit("its disk is full"))
    working._inbox.put(lambda: working._brought(kernel, full))
    assert kernel.future.result(60).status is Status.CANCELLED
    assert len(cluster.submitted) == 1


def test_a_kernel_that_begins_elsewhere_after_an_interrupt_is_left_with_its_rows(
    cluster: Cluster, working: Crew, kernel: crew._Kernel
) -> None:
    hears(working, "1", A, BEGAN)
    hears(working, "1", A, PLACE, "/cache/workers/1/k")
    working._inbox.put(working._stop_all)
    hears(working, "2", B, BEGAN)
    result = kernel.future.result(60)
    assert result.status is Status.CANCELLED
    assert result.note.endswith(
        f"worker {A} did not send its files: they are there, in /cache/workers/1/k"
    )
    assert [future for _, future in cluster.submitted] == cluster.cancelled

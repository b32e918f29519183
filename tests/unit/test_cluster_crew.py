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
from vmtest.cluster.order import Call, Ended, Unfit
from vmtest.matrix.engine import Assignment
from vmtest.matrix.plan import Plan

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


def test_a_kernel_whose_workers_are_gone_is_offered_to_those_that_came(
    cluster: Cluster, working: Crew, tmp_path: Path
) -> None:
    """Dask would wait for the named workers for ever."""
    given = cast(Assignment, SimpleNamespace(kernel=SimpleNamespace(name="k"), directory=tmp_path))
    kernel = crew._Kernel(given, b"", Future())
    working._inbox.put(lambda: working._queue(kernel))
    until(lambda: len(cluster.submitted) == 1)
    full = Ended("token", A, Unfit("its disk is full"))
    working._inbox.put(lambda: working._brought(kernel, full))
    until(lambda: len(cluster.submitted) == 2)
    only_b, waits = cluster.submitted[1]
    cluster.workers = (A, C)
    until(lambda: len(cluster.submitted) == 3)
    assert (only_b, cluster.submitted[2][0]) == ({B}, {C})
    until(lambda: waits in cluster.cancelled)
    assert not kernel.future.done()

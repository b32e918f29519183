"""Building a point before it is asked: a small tree that builds, kernels that only answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_trees import commit, make_tree

from vmtest.bisect import Verdict
from vmtest.bisection import Told
from vmtest.errors import InfrastructureError
from vmtest.events import Event
from vmtest.host import BUILD_TOOLS
from vmtest.kernels import Store
from vmtest.model import Kernel, TreeSpec
from vmtest.observations import Observation
from vmtest.probes import Builds

BAD, SKIP = Verdict.BAD, Verdict.SKIP


class Asked:
    """One tree's present state, asked by a guest that says ``answers`` one after the other."""

    def __init__(self, tree: Path, store: Store, *answers: Observation) -> None:
        self.answers = list(answers)
        self.events: list[Event] = []
        self.told: list[Verdict] = []
        kernels = (Kernel("mine", TreeSpec(tree)),)
        self.builds = Builds(lambda: kernels, store, self._guest, self.events.append)

    def _guest(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        told(points[0], self.answers.pop(0))

    def __call__(self, attempt: int = 1) -> list[Verdict]:
        self.builds((0,), attempt, lambda place, one: self.told.append(one.verdict))
        return self.told


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vmtest.host.BUILD_TOOLS", BUILD_TOOLS[:2])  # the rest is for real trees
    return make_tree(tmp_path / "linux")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_a_kernel_that_does_not_boot_once_is_not_skipped(tree: Path, store: Store) -> None:
    assert Asked(tree, store, Observation(SKIP, "no session"), Observation(BAD, "1 failed"))() == [
        BAD
    ]


def test_a_kernel_that_does_not_boot_twice_is_skipped(tree: Path, store: Store) -> None:
    asked = Asked(tree, store, *[Observation(SKIP, "no session")] * 2)
    assert asked() == [SKIP] and asked.answers == []


def test_a_fault_of_the_machine_is_raised_and_never_told(tree: Path, store: Store) -> None:
    asked = Asked(tree, store, Observation(SKIP, "no QEMU", faulty=True))
    with pytest.raises(InfrastructureError, match="mine: no QEMU"):
        asked()
    assert asked.told == []


def test_what_does_not_build_is_skipped_and_not_built_for_every_repetition(
    tree: Path, store: Store
) -> None:
    commit(tree, "broken")
    asked = Asked(tree, store)
    asked(1)
    built = len(asked.events)
    assert asked(2) == [SKIP, SKIP]
    assert len(asked.events) == built > 0

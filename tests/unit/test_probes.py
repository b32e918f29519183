"""Building a point before it is asked: a small tree that builds, kernels that only answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_trees import commit, make_tree

from vmtest.bisect.observe import Observation
from vmtest.bisect.probes import Builds, Twice
from vmtest.bisect.rounds import Told
from vmtest.bisect.search import Verdict
from vmtest.errors import InfrastructureError
from vmtest.host.requirements import BUILD_TOOLS
from vmtest.kernels import Store
from vmtest.model.events import Event
from vmtest.model.kernels import Kernel, TreeSpec

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
    monkeypatch.setattr(
        "vmtest.host.requirements.BUILD_TOOLS", BUILD_TOOLS[:2]
    )  # the rest is for real trees
    return make_tree(tmp_path / "linux")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


class Kernels:
    """Kernels that say ``answers``, each its own one after the other; what was ``asked``."""

    def __init__(self, *answers: list[Observation]) -> None:
        self._answers = [list(own) for own in answers]
        self.asked: list[tuple[int, ...]] = []
        self.told: dict[int, Verdict] = {}

    def __call__(self) -> dict[int, Verdict]:
        def told(n: int, one: Observation) -> None:
            assert n not in self.told
            self.told[n] = one.verdict

        Twice(self._round)(tuple(range(len(self._answers))), 1, told)
        return self.told

    def _round(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        self.asked.append(points)
        for n in points:
            told(n, self._answers[n].pop(0))


SILENT, FAILED = Observation(SKIP, "no session"), Observation(BAD, "1 failed")


def test_a_kernel_that_does_not_boot_once_is_not_skipped() -> None:
    kernels = Kernels([FAILED], [SILENT, FAILED])
    assert kernels() == {0: BAD, 1: BAD}
    assert kernels.asked == [(0, 1), (1,)]


def test_a_kernel_that_does_not_boot_twice_is_skipped() -> None:
    kernels = Kernels([SILENT, SILENT], [FAILED])
    assert kernels() == {0: SKIP, 1: BAD}
    assert kernels.asked == [(0, 1), (0,)]


def test_a_fault_of_the_machine_is_told_at_once() -> None:
    kernels = Kernels([Observation(SKIP, "no QEMU", faulty=True)])
    assert kernels() == {0: SKIP}
    assert kernels.asked == [(0,)]


def test_what_a_built_kernel_says_is_told(tree: Path, store: Store) -> None:
    assert Asked(tree, store, FAILED)() == [BAD]


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

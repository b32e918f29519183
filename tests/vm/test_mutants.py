"""Judging mutants in a real guest: those that fail, panic, hang, and spoil the guest."""

from __future__ import annotations

import textwrap
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import vm
from tests.mutants.build import Built
from tests.mutants.operators import Mutant
from tests.mutants.verdicts import Judged, Killers, Verdict
from tests.mutants.vm import Board, Case, Ground, run_fleet
from vmtest.errors import InfrastructureError
from vmtest.matrix.bench import Cancellation
from vmtest.model.kernels import Kernel, KernelImage, Limits, RootImage
from vmtest.model.project import Suite
from vmtest.suites.payload import pack_suites
from vmtest.vm.accel import Probe

# The objects are words, which say what becomes of whoever reads them.
SUITE = """
import pathlib
import time
from vmtest.guest.payload import object_path

SPOILT = pathlib.Path("/tmp/spoilt")

def test_one():
    word = object_path("thing").read_text()
    if word == "panic":
        pathlib.Path("/proc/sysrq-trigger").write_text("c")
    if word == "hang":
        time.sleep(1000)
    if word == "spoil":
        SPOILT.touch()
    assert not (word == "original" and SPOILT.exists())

def test_two():
    assert object_path("thing").read_text() != "fail"
"""


@pytest.fixture
def ground(
    kernel: Kernel, image: KernelImage, root: RootImage, probe: Probe, tmp_path: Path
) -> Ground:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "test_thing.py").write_text(textwrap.dedent(SUITE))
    (tmp_path / "thing.o").write_text("original")
    suite = Suite("thing", tmp_path / "suites" / "test_thing.py", objects=("thing",))
    payload = pack_suites([suite], [suite], {"thing": tmp_path / "thing.o"})
    return Ground(kernel, image, root, probe, payload, tmp_path / "mutants", jobs=1)


def case(word: str) -> Case:
    mutant = Mutant("x.bpf.c", 1, 1, "x", "original", word, "f", 0, 8, word)
    return Case(mutant, Built({"thing": word.encode()}, word))


def judge(ground: Ground, *words: str) -> tuple[list[tuple[str, Judged]], list[str]]:
    """Verdicts in their order, and what was judged again."""
    told: list[tuple[str, Judged]] = []
    withdrawn: list[str] = []
    board = Board(
        deque(map(case, words)),
        Killers(),
        settled=lambda case, judged: told.append((case.mutant.id, judged)),
        withdrawn=lambda case: withdrawn.append(case.mutant.id),
    )
    run_fleet(ground, board, Cancellation())
    return told, withdrawn


def test_a_guest_that_dies_is_replaced_and_every_mutant_judged(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm, "LIMITS", Limits(boot=0.0, silence=5.0, total=60.0))
    told, withdrawn = judge(ground, "fail", "panic", "well", "hang", "fail")
    assert [(word, judged.verdict) for word, judged in told] == [
        ("fail", Verdict.KILLED),
        ("panic", Verdict.CRASHED),
        ("well", Verdict.SURVIVED),
        ("hang", Verdict.TIMED_OUT),
        ("fail", Verdict.KILLED),
    ]
    assert [judged.test for _, judged in told] == [
        "test_thing.py::test_two",
        "test_thing.py::test_one",
        "",
        "test_thing.py::test_one",
        "test_thing.py::test_two",
    ]
    assert "kernel panicked" in told[1][1].message
    assert withdrawn == []


def test_a_mutant_that_spoils_its_guest_is_found_out_and_the_others_are_judged_again(
    ground: Ground,
) -> None:
    told, withdrawn = judge(ground, "well", "spoil", "fail")
    assert withdrawn == ["well", "spoil", "fail"]
    last = {word: judged for word, judged in told}
    assert {word: judged.verdict for word, judged in last.items()} == {
        "well": Verdict.SURVIVED,
        "spoil": Verdict.CRASHED,
        "fail": Verdict.KILLED,
    }
    assert "after it the unmutated objects fail test_thing.py::test_one" in last["spoil"].message


def test_originals_that_fail_are_an_error(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "thing.o").write_text("fail")
    suites = ground.payload.suites
    failing = replace(ground, payload=pack_suites(suites, suites, {"thing": tmp_path / "thing.o"}))
    with pytest.raises(InfrastructureError, match=r"do not pass: killed: test_thing.py::test_two"):
        judge(failing, "well")

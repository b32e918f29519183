"""history.json: a run in short, and which earlier runs stand beside one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import histories
import pages
import pytest

from vmtest.api.expect import expected, with_expected
from vmtest.matrix.bench import Task
from vmtest.matrix.plan import Plan
from vmtest.model.events import Event, Expected, KernelQueued
from vmtest.model.kernels import Kernel, KernelImage, PathSpec
from vmtest.model.loads import row_of
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.runs import past
from vmtest.runs.folder import RunFolder
from vmtest.runs.past import HISTORY, Past

GOOD = histories.run_of({"a": "PP"})


def refuse(image: KernelImage) -> Task:
    raise AssertionError(image)


def before(folder: RunFolder, matrix: Matrix = GOOD) -> list[str]:
    """The days of the runs that stand beside the one in ``folder``."""
    return [one.run[6:8] for one in past.earlier(folder, past.past_of(matrix, {}))]


def test_a_run_in_short_has_a_letter_a_kernel_and_the_cost() -> None:
    short = histories.day(3, histories.run_of({"a": "PF", "b": "s ", "c": "fX"}, cost=40))
    assert short.tests == (("s", "t.py::a", "PF"), ("s", "t.py::b", "s "), ("s", "t.py::c", "fX"))
    assert short.loads == (("x.o", "prog", "PP", (40, 80)),)
    assert (short.status, short.branch, short.kernels[1]) == (1, "main", ("6.12", "FAILED"))


def test_a_kernel_usually_takes_the_median_of_the_last_five_runs() -> None:
    times = (900.0, 10.0, 50.0, 20.0, 40.0, 30.0)
    runs = [replace(histories.day(n, GOOD), took=(took, 0.0)) for n, took in enumerate(times, 1)]
    assert past.usual(runs) == {"5.10": 30.0}


def test_only_a_whole_run_tells_what_a_kernel_takes() -> None:
    lost = replace(GOOD.kernels[1], status=Status.LOST, duration=9.0)
    matrix = replace(GOOD, kernels=(replace(GOOD.kernels[0], duration=7.0), lost))
    assert past.past_of(matrix, {}).took == (7.0, 0.0)
    assert past.past_of(matrix, {"narrowed": True}).took == ()


def test_a_plan_expects_what_the_runs_before_it_took(tmp_path: Path) -> None:
    matrix = replace(GOOD, kernels=(replace(GOOD.kernels[0], duration=7.0), GOOD.kernels[1]))
    histories.leave(tmp_path, 1, matrix)
    kernels = tuple(Kernel(name, PathSpec(tmp_path / name)) for name in ("5.10", "7.0"))
    folder = RunFolder(tmp_path / ".vmtest" / "runs" / "20261130T000000Z-abcdef")
    folder.path.mkdir()
    config = cast(Config, None)  # which says nothing of what a run takes
    plan = Plan(config, kernels, refuse, tmp_path, folder, ("s",))
    assert list(expected(plan)) == [Expected("5.10", 7.0)]
    assert list(expected(replace(plan, narrowed=True))) == []
    assert list(expected(replace(plan, suites=("s", "t")))) == []


def test_a_verify_expects_what_one_of_the_same_objects_took(tmp_path: Path) -> None:
    (kernel, _) = histories.run_of({}, cost=40).kernels
    twice = tuple(
        replace(kernel.loads[0], object=row_of("x.o", of)) for of in ("libbpf 1.1", "libbpf 1.5")
    )
    for day, loads in enumerate((kernel.loads, twice), 1):
        timed = replace(kernel, duration=7.0 * day, loads=loads)
        histories.leave(tmp_path, day, replace(GOOD, suites=(), kernels=(timed,)))
    folder = RunFolder(tmp_path / ".vmtest" / "runs" / "20261130T000000Z-abcdef")
    folder.path.mkdir()
    kernels = (Kernel("5.10", PathSpec(tmp_path / "5.10")),)
    plan = Plan(cast(Config, None), kernels, refuse, tmp_path, folder, objects=("x.o",))
    assert list(expected(plan)) == [Expected("5.10", 10.5)]
    assert list(expected(replace(plan, objects=("x.o", "y.o")))) == []
    assert list(expected(replace(plan, narrowed=True))) == []


def test_what_is_expected_changes_no_order_of_kernels() -> None:
    events: list[Event] = []
    hear = with_expected([Expected("b", 2.0), Expected("a", 1.0)], events.append)
    queued = [KernelQueued(name) for name in ("new", "a", "b", "a")]
    for event in queued:
        hear(event)
    assert [event for event in events if isinstance(event, KernelQueued)] == queued
    assert events[1:5] == [queued[1], Expected("a", 1.0), queued[2], Expected("b", 2.0)]
    assert len(events) == 6


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_a_run_in_short_is_read_as_it_was_written(text: str, tmp_path: Path) -> None:
    short = past.past_of(pages.hostile(text), {"project": {"branch": text, "commit": text}})
    folder = RunFolder(tmp_path)
    folder.write(HISTORY, past.render(short))
    assert past.render(past.read_past(folder)) == past.render(short)


def test_the_runs_before_stand_beside_one_the_oldest_first(tmp_path: Path) -> None:
    folders = [histories.leave(tmp_path, n, GOOD) for n in range(1, 26)]
    assert before(folders[-1]) == [f"{n:02d}" for n in range(6, 25)]
    assert before(folders[2]) == ["01", "02"]


@pytest.mark.parametrize(
    "other",
    [
        histories.run_of({"a": "PP"}, kernels=("6.1", "6.6")),
        replace(GOOD, suites=("t",)),
        replace(GOOD, suites=()),
        replace(GOOD, command=("make", "check")),
    ],
    ids=["kernels", "suite", "no suite", "command"],
)
def test_a_run_of_something_else_is_left_out(other: Matrix, tmp_path: Path) -> None:
    histories.leave(tmp_path, 1, GOOD)
    histories.leave(tmp_path, 2, other)
    assert before(histories.leave(tmp_path, 3, GOOD)) == ["01"]


def test_a_run_whose_kernels_did_not_boot_has_its_place(tmp_path: Path) -> None:
    dead = replace(GOOD, kernels=(KernelResult("6.12", Status.BOOT_FAILED),))
    histories.leave(tmp_path, 1, dead)
    assert before(histories.leave(tmp_path, 2, GOOD)) == ["01"]


def test_a_run_without_the_file_is_read_from_its_matrix(tmp_path: Path) -> None:
    histories.leave(tmp_path, 1, GOOD, page=False)
    assert before(histories.leave(tmp_path, 2, GOOD)) == ["01"]


def test_matrices_above_a_size_are_not_read_for_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = histories.leave(tmp_path, 1, GOOD, page=False)
    histories.leave(tmp_path, 2, GOOD, page=False)
    size = (folder.path / "matrix.json").stat().st_size
    monkeypatch.setattr(past, "_WITHOUT", size + 1)
    assert before(histories.leave(tmp_path, 3, GOOD)) == ["02"]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"tests": [["s", "t", "P"]]},
        {"tests": [["s", "t", "P<"]]},
        {"loads": [["x", "p", "PP", [1]]]},
        {"loads": [["x", "p", "PP", [1, "2"]]]},
        {"kernels": 3},
        {"took": [1.0]},
        {"took": [1.0, -1.0]},
    ],
)
def test_a_damaged_file_is_as_if_it_were_not_there(
    change: dict[str, object], tmp_path: Path
) -> None:
    folder = histories.leave(tmp_path, 1, GOOD)
    whole = json.loads((folder.path / HISTORY).read_text())
    folder.write(HISTORY, json.dumps({**whole, **change}))
    assert past.read_past(folder) == histories.day(1, GOOD)


def test_a_file_cannot_claim_the_name_of_another_run(tmp_path: Path) -> None:
    folder = histories.leave(tmp_path, 1, GOOD)
    whole = json.loads((folder.path / HISTORY).read_text())
    folder.write(HISTORY, json.dumps({**whole, "run": "../.."}))
    assert before(histories.leave(tmp_path, 2, GOOD)) == ["01"]


def test_a_run_outside_of_a_project_has_no_history(tmp_path: Path) -> None:
    short: Past = past.past_of(GOOD, {})
    assert past.earlier(RunFolder(tmp_path), short) == ()

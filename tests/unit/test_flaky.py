"""``[[flaky]]``: which tests run again, and what a run shows of an entry."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from vmtest.api.bisect import without_known
from vmtest.api.project import load_config
from vmtest.api.suites import SuitesRequest, plan_suites
from vmtest.model.kernels import KernelImage
from vmtest.model.project import Config, FlakyTest
from vmtest.model.rates import Rate
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.runs.past import HISTORY, Past, past_of, render
from vmtest.suites.flaky import listed, notes, rate, stops_early
from vmtest.suites.task import SuitesTaskFactory

TODAY = date(2026, 7, 1)
V6_1 = KernelVersion.parse("6.1.7")
ENTRY = FlakyTest("test_a.py::test_x*", "issue 7", VersionRange.parse(">=6.1"))
EXPIRED = replace(ENTRY, until=date(2026, 6, 30))


def matrix(outcome: Outcome = Outcome.PASSED) -> Matrix:
    """A run on 6.1 with test_a.py::test_x."""
    test = TestResult("test_a.py::test_x", "a", outcome)
    ran = KernelResult("6.1", Status.PASSED, version="6.1.7", tests=(test,))
    return Matrix(1, "run", "2026-07-01T00:00:00+00:00", 1.0, ("a",), (ran,))


def test_the_tests_of_an_entry_run_again_on_its_kernels() -> None:
    found = listed([ENTRY], V6_1, "/project/tests", TODAY)
    assert "test_a.py::test_x[ipv6]" in found
    assert "test_a.py::test_y" not in found
    assert "test_a.py::test_x" not in listed([ENTRY], KernelVersion.parse("5.10.1"), "", TODAY)


def test_on_its_last_day_an_entry_counts_and_then_no_longer() -> None:
    last = replace(ENTRY, until=TODAY)
    assert "test_a.py::test_x" in listed([last], V6_1, "", TODAY)
    assert "test_a.py::test_x" not in listed([EXPIRED], V6_1, "", TODAY)


def test_what_runs_again_can_go_to_a_worker_elsewhere() -> None:
    found = listed([ENTRY], V6_1, "/project/tests", TODAY)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        (("-x",), True),
        (("-xvs",), True),
        (("-qx",), True),
        (("-kx", "-mx", "-rxX"), False),
        (("--maxfail", "2"), True),
        (("--maxfail=2",), True),
        (("-rx", "-k", "x"), False),
    ],
)
def test_where_pytest_stops_at_a_failure_nothing_runs_again(
    options: tuple[str, ...], stops: bool
) -> None:
    assert stops_early(options) is stops


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.FAILED])
def test_an_expired_entry_says_that_its_test_was_not_run_again(outcome: Outcome) -> None:
    assert notes([EXPIRED], matrix(outcome), "", TODAY, whole=False) == (
        'flaky "test_a.py::test_x*" expired 2026-06-30, its tests no longer run again (issue 7): '
        "mend the test, or give the entry in kernels.toml another day",
    )


def test_an_entry_that_means_no_test_is_noted_after_a_whole_run() -> None:
    gone = replace(EXPIRED, test="test_b.py::*")
    said = 'flaky "test_b.py::*" matched no test on 6.1: correct the pattern, or remove it from'
    (note,) = notes([gone], matrix(), "", TODAY, whole=True)
    assert note.startswith(said)
    assert notes([gone], matrix(), "", TODAY, whole=False) == ()


def test_a_valid_entry_says_nothing() -> None:
    assert notes([ENTRY], matrix(), "", TODAY, whole=True) == ()


def past(letters: str) -> list[Past]:
    """A run for each of ``letters``, which is what test_a.py::test_x came to on 6.1."""
    head = past_of(matrix(), {})
    rows = [(("a", "test_a.py::test_x", one), ("a", "test_a.py::test_y", "F")) for one in letters]
    return [replace(head, tests=tests) for tests in rows]


def test_the_rate_is_of_what_failed_when_it_first_ran() -> None:
    assert rate(ENTRY, past("PfPFEPPP"), ["6.1"], "") == Rate(3, 8)
    assert rate(ENTRY, past("Ps-nxX f"), ["6.1"], "") == Rate(1, 2)
    assert rate(ENTRY, past("Pf"), ["5.10"], "") == Rate(0, 0)


def test_each_time_of_a_repeated_run_counts() -> None:
    one, other = past("PF")
    times = (("6.1", "a", "test_a.py::test_x", 3, 50), ("5.10", "a", "test_a.py::test_x", 9, 9))
    assert rate(ENTRY, [one, replace(other, repeated=times)], ["6.1"], "") == Rate(3, 51)


def test_a_rate_above_the_limit_is_told_with_its_interval() -> None:
    entry = replace(ENTRY, limit=0.25)
    (note,) = notes([entry], matrix(), "", TODAY, whole=True, earlier=past("ffPFPPP"))
    assert note == (
        'flaky "test_a.py::test_x*" failed at first in 3 of 8 (38%, with 95% confidence 14% to '
        "69%) of the last 8 runs, above its limit of 25%: mend the test, or change the limit in "
        "kernels.toml"
    )


def test_a_rate_at_the_limit_is_not_told() -> None:
    entry = replace(ENTRY, limit=0.375)
    assert notes([entry], matrix(), "", TODAY, whole=True, earlier=past("ffPFPPP")) == ()


def test_without_a_limit_no_rate_is_told() -> None:
    assert notes([ENTRY], matrix(), "", TODAY, whole=True, earlier=past("ffff")) == ()


CONFIG = """
schema = 1
[[kernel]]
name = "mine"
path = "bzImage"
[[suite]]
name = "a"
tests = "tests/test_a.py"
[[flaky]]
test = "tests/test_a.py::test_x"
reason = "issue 7"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("def test_x(): pass\n")
    (tmp_path / "kernels.toml").write_text(CONFIG)
    return load_config(tmp_path / "kernels.toml")


def test_the_task_of_a_kernel_runs_the_listed_tests_again(settings: Config, tmp_path: Path) -> None:
    image = KernelImage("mine", V6_1, "6.1.7", tmp_path / "i", None, None, "", "path")
    task = SuitesTaskFactory(settings, settings.suites, ()).task(image)
    assert "test_a.py::test_x" in task.flaky
    stopping = SuitesTaskFactory(settings, settings.suites, (), ("-x",)).task(image)
    assert "test_a.py::test_x" not in stopping.flaky


def test_a_run_says_what_is_to_be_done_about_its_entries(settings: Config) -> None:
    entry = replace(settings.flaky[0], until=date(2020, 1, 1))
    settings = replace(settings, flaky=(entry,))
    (note,) = SuitesTaskFactory(settings, settings.suites, (), today=TODAY).notes(matrix())
    assert "expired 2020-01-01, its tests no longer run again" in note


def test_the_rate_is_of_the_recorded_runs(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bzImage").write_bytes(b"kernel")
    entry = replace(settings.flaky[0], limit=0.5)
    for n, one in enumerate(past("fF")):
        folder = tmp_path / ".vmtest" / "runs" / f"20260101T00000{n}Z-abcdef"
        folder.mkdir(parents=True)
        (folder / HISTORY).write_text(render(one))
    planned = plan_suites(replace(settings, flaky=(entry,)), SuitesRequest(), print)
    (note,) = planned.plan.notes(matrix())
    assert 'flaky "tests/test_a.py::test_x" failed at first in 2 of 3 (67%' in note


def test_a_bisect_runs_nothing_again(settings: Config) -> None:
    assert settings.flaky and without_known(settings).flaky == ()

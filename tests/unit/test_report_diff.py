"""Two runs compared."""

import json
from pathlib import Path

import pages
import pytest
from command import vmtest

from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report.diff import FIXED, KERNEL, NEW, SKIPPED, SLOWER, STILL, UNSEEN, compare
from vmtest.runs import matrix_json


def run(outcome: Outcome, duration: float = 0.1, kernel: str = "a") -> Matrix:
    test = TestResult("t.py::test_x", "s", outcome, duration, message="why")
    return pages.of(KernelResult(kernel, Status.FAILED, tests=(test,)))


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (Outcome.PASSED, Outcome.FAILED, NEW),
        (Outcome.SKIPPED, Outcome.ERROR, NEW),
        (Outcome.XFAILED, Outcome.XPASSED, NEW),
        (Outcome.PASSED, Outcome.LOST, NEW),
        (Outcome.FAILED, Outcome.ERROR, STILL),
        (Outcome.FAILED, Outcome.PASSED, FIXED),
        (Outcome.FAILED, Outcome.SKIPPED, SKIPPED),
        (Outcome.PASSED, Outcome.NOT_APPLICABLE, SKIPPED),
    ],
)
def test_what_became_of_a_test(before: Outcome, after: Outcome, kind: str) -> None:
    (found,) = compare(run(before), run(after))
    assert (found.kind, found.label, found.kernels) == (kind, "test_x", ("a",))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (run(Outcome.PASSED), run(Outcome.PASSED)),
        (run(Outcome.PASSED), run(Outcome.NOT_RUN)),
        (run(Outcome.NOT_RUN), run(Outcome.PASSED)),
        (run(Outcome.PASSED), run(Outcome.FAILED, kernel="b")),
        (run(Outcome.PASSED, 0.1), run(Outcome.PASSED, 0.9)),
        (run(Outcome.PASSED, 10.0), run(Outcome.PASSED, 20.0)),
        (pages.of(KernelResult("a", Status.FAILED)), run(Outcome.PASSED)),
    ],
    ids=["same", "not reached", "was not reached", "kernel", "short", "not so slow", "new test"],
)
def test_what_is_no_difference(before: Matrix, after: Matrix) -> None:
    assert compare(before, after) == ()


def test_a_test_that_takes_three_times_as_long_is_slower() -> None:
    (found,) = compare(run(Outcome.PASSED, 0.5), run(Outcome.PASSED, 2.0))
    assert (found.kind, found.words) == (SLOWER, "0.5 s -> 2.0 s")


def test_a_kernel_that_does_not_boot_any_more_is_a_difference_of_its_own() -> None:
    gone = pages.of(KernelResult("a", Status.BOOT_FAILED, reason="no root"))
    (found,) = compare(pages.of(KernelResult("a", Status.PASSED)), gone)
    assert (found.kind, found.words, found.worse) == (KERNEL, "BOOT_FAILED: no root", True)


@pytest.mark.parametrize("status", [Status.PANICKED, Status.SPLAT, Status.TIMED_OUT])
def test_a_kernel_that_passed_and_goes_wrong_as_a_whole_is_worse(status: Status) -> None:
    load = LoadResult("x.o", "p", Verdict.REJECTED)
    test = TestResult("t", "s", Outcome.PASSED)
    before = pages.of(KernelResult("a", Status.PASSED, tests=(test,), loads=(load,)))
    after = pages.of(KernelResult("a", status, reason="a warning", tests=(test,), loads=(load,)))
    found, still = compare(before, after)
    assert (found.kind, found.worse, found.words) == (KERNEL, True, f"{status}: a warning")
    assert still.kind == STILL
    lost = TestResult("t", "s", Outcome.LOST)
    panicked = pages.of(KernelResult("a", Status.PANICKED, tests=(lost,)))
    assert [one.kind for one in compare(before, panicked)] == [NEW]


def test_a_program_that_is_refused_now_is_a_new_failure() -> None:
    def loaded(verdict: Verdict) -> Matrix:
        load = LoadResult("x.o", "p", verdict, line="R1 invalid")
        return pages.of(KernelResult("a", Status.FAILED, loads=(load,)))

    (found,) = compare(loaded(Verdict.ACCEPTED), loaded(Verdict.REJECTED))
    assert (found.kind, found.label, found.words) == (NEW, "x.o: p", "rejected: R1 invalid")


def written(folder: Path, name: str, matrix: Matrix) -> Path:
    run = folder / ".vmtest" / "runs" / name
    run.mkdir(parents=True)
    (run / "matrix.json").write_text(matrix_json.dumps(matrix))
    return run


def test_the_command_says_what_fails_anew_and_ends_with_one(tmp_path: Path) -> None:
    one = written(tmp_path, "1", run(Outcome.PASSED))
    two = written(tmp_path, "2", run(Outcome.FAILED))
    said = vmtest("runs", "diff", str(one), str(two), cwd=tmp_path)
    assert said.status == 1
    assert "  new failure      test_x on a: why\n1 new failure\n" in said.out
    assert vmtest("runs", "diff", str(two), str(one), cwd=tmp_path).status == 0


def test_runs_without_a_kernel_in_common_cannot_be_compared(tmp_path: Path) -> None:
    one = written(tmp_path, "1", run(Outcome.PASSED))
    two = written(tmp_path, "2", run(Outcome.PASSED, kernel="b"))
    said = vmtest("runs", "diff", str(one), str(two), cwd=tmp_path)
    said.refuses(2, "have no kernel in common")


def test_the_list_has_a_run_that_cannot_be_read_as_well(tmp_path: Path) -> None:
    written(tmp_path, "1", run(Outcome.FAILED))
    (written(tmp_path, "2", run(Outcome.FAILED)) / "matrix.json").write_text("{")
    said = vmtest("runs", "list", "--json", cwd=tmp_path)
    first, second = json.loads(said.out)["runs"]
    assert (first["run"], first["exit status"]) == ("1", 1)
    assert "not JSON" in second["problem"]


@pytest.mark.parametrize(
    "before",
    [pages.of(KernelResult("a", Status.PASSED)), run(Outcome.NOT_RUN), run(Outcome.COLLECTED)],
    ids=["no such test", "not run", "listed"],
)
def test_a_failure_of_a_test_that_has_no_earlier_result_is_told(before: Matrix) -> None:
    (found,) = compare(before, run(Outcome.FAILED))
    assert (found.kind, found.label, found.words, found.worse) == (UNSEEN, "test_x", "why", False)

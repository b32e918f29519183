"""What the reports say: rows, marks, findings and the summary."""

from dataclasses import replace
from typing import Any

import pytest

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import table


def result(name: str, outcome: Outcome = Outcome.PASSED, **more: Any) -> TestResult:
    plain = TestResult(f"test_{name}.py::test_it", name, outcome)
    return replace(plain, **more)


def one(test: str, outcome: Outcome = Outcome.PASSED, suite: str = "s") -> TestResult:
    return TestResult(f"test_s.py::{test}", suite, outcome)


def kernel(name: str, *tests: TestResult, status: Status = Status.PASSED) -> KernelResult:
    return KernelResult(name, status, version=f"{name}.1", accelerator="tcg", tests=tests)


def matrix(*kernels: KernelResult, suites: tuple[str, ...] = ("s",)) -> Matrix:
    return Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 81.3, suites, kernels)


def shown(*kernels: KernelResult) -> dict[str, list[str]]:
    """The rows of tests and their marks."""
    built = table.build(matrix(*kernels))
    return {
        row.label: [line.text for cell in row.cells for line in cell]
        for suite in built.suites
        for row in suite.tests
    }


def suite_line(*kernels: KernelResult) -> list[list[str]]:
    built = table.build(matrix(*kernels))
    return [[line.text for line in cell] for cell in built.suites[0].suite.cells]


def test_a_row_that_passes_everywhere_folds_into_its_suite() -> None:
    assert shown(kernel("a", one("test_x")), kernel("b", one("test_x"))) == {}


def test_the_suite_counts_what_was_folded() -> None:
    assert suite_line(kernel("a", one("test_x"), one("test_y"))) == [["2 passed"]]


def test_listed_tests_are_counted_and_have_no_rows() -> None:
    listed = kernel("a", one("test_x", Outcome.COLLECTED), status=Status.COLLECTED)
    assert (shown(listed), suite_line(listed)) == ({}, [["1 collected"]])
    assert table.never_ran(matrix(listed)) == ()
    assert table.troubled(matrix(listed)) == ()


def test_the_summary_says_that_nothing_ran() -> None:
    skipped = kernel("a", one("test_x", Outcome.SKIPPED))
    said = table.summary_of_kernels(matrix(skipped))
    assert said == "1 kernel: 1 passed (exit status 5: nothing ran)"


def test_a_row_that_differs_is_shown() -> None:
    rows = shown(kernel("a", one("test_x")), kernel("b", one("test_x", Outcome.FAILED)))
    assert rows == {"test_x": ["PASS", "FAIL"]}


def test_a_row_that_no_kernel_passes_is_shown() -> None:
    both = one("test_x", Outcome.SKIPPED)
    assert shown(kernel("a", both), kernel("b", both)) == {"test_x": ["skip", "skip"]}


@pytest.mark.parametrize(
    ("outcome", "mark"),
    [
        (Outcome.FAILED, "FAIL"),
        (Outcome.ERROR, "ERR"),
        (Outcome.SKIPPED, "skip"),
        (Outcome.XFAILED, "xfail"),
        (Outcome.XPASSED, "XPASS"),
        (Outcome.NOT_APPLICABLE, "n-a"),
        (Outcome.LOST, "LOST"),
    ],
)
def test_letters_carry_the_outcome(outcome: Outcome, mark: str) -> None:
    assert shown(kernel("a", one("test_x", outcome))) == {"test_x": [mark]}


def test_every_outcome_has_letters_of_its_own() -> None:
    marks = [table.mark_of(one("test_x", outcome)).text for outcome in Outcome]
    assert len(set(marks)) == len(Outcome)


def test_tests_that_a_dead_vm_did_not_reach_fold_into_a_count() -> None:
    dead = kernel("a", one("test_x"), one("test_y", Outcome.NOT_RUN), status=Status.PANICKED)
    assert (shown(dead), suite_line(dead)) == ({}, [["1 not run", "1 passed"]])


def test_a_flaky_pass_is_shown_as_such() -> None:
    flaky = replace(one("test_x"), flaky=True)
    assert shown(kernel("a", flaky), kernel("b", one("test_x"))) == {"test_x": ["flaky", "PASS"]}


def test_the_worst_comes_first_in_a_suite_cell() -> None:
    line = suite_line(
        kernel(
            "a",
            one("test_1"),
            one("test_2", Outcome.SKIPPED),
            one("test_3", Outcome.FAILED),
            one("test_4", Outcome.LOST),
        )
    )
    assert line == [["1 FAILED", "1 LOST", "1 passed", "1 skipped"]]


def test_a_kernel_without_tests_shows_its_status_across() -> None:
    line = suite_line(kernel("a", one("test_x")), kernel("b", status=Status.BOOT_FAILED))
    assert line == [["1 passed"], ["BOOT_FAILED"]]


def test_a_suite_without_tests_on_a_kernel_that_has_others_says_so() -> None:
    built = table.build(matrix(kernel("a", result("t")), suites=("s", "t")))
    assert built.suites[0].suite.cells[0][0].text == "no tests"


def test_suites_keep_the_order_of_the_matrix() -> None:
    of = kernel("a", result("z"), result("b"), result("unlisted"))
    assert table.suites_of(matrix(of, suites=("b", "z"))) == ("b", "z", "unlisted")


def test_the_facts_have_status_version_accelerator_boot_time_and_deadlines() -> None:
    of = replace(
        kernel("6.12"), release="6.12.1-amd64", boot_seconds=4.13, duration=81.26, factor=1.37
    )
    facts = {row.label: row.cells[0][0].text for row in table.build(matrix(of)).facts}
    assert facts == {
        "status": "PASSED",
        "version": "6.12.1",
        "release": "6.12.1-amd64",
        "accelerator": "tcg",
        "boot": "4.1 s",
        "time": "81.3 s",
        "deadlines": "x1.4",
    }


def test_deadlines_that_nobody_scaled_are_no_row() -> None:
    assert table.build(matrix(kernel("a"))).fact("deadlines") is None


def test_a_kernel_that_does_not_gate_says_so() -> None:
    status = table.build(matrix(replace(kernel("a"), gate=False))).fact("status")
    assert status is not None
    assert [line.text for line in status.cells[0]] == ["PASSED", "no gate"]


def test_a_label_is_the_name_of_the_test() -> None:
    of = TestResult("sub/test_s.py::TestClass::test_x[ipv4]", "s", Outcome.SKIPPED)
    assert list(shown(kernel("a", of))) == ["test_x[ipv4]"]


def test_labels_of_one_suite_never_collide() -> None:
    tests = (
        TestResult("test_a.py::test_x", "s", Outcome.SKIPPED),
        TestResult("test_b.py::test_x", "s", Outcome.SKIPPED),
    )
    assert list(shown(kernel("a", *tests))) == ["test_a.py::test_x", "test_b.py::test_x"]


def test_colons_and_slashes_in_parameters_belong_to_the_name() -> None:
    parts = table.split_node_id("d/test_s.py::TestC::test_x[fe80::1/64]")
    assert parts == ("d/test_s.py", ("TestC",), "test_x[fe80::1/64]")


def test_a_test_that_every_kernel_skips_never_ran() -> None:
    skip, na = one("test_x", Outcome.SKIPPED), one("test_x", Outcome.NOT_APPLICABLE)
    assert table.never_ran(matrix(kernel("a", skip), kernel("b", na))) == ("test_x",)


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.FAILED, Outcome.XFAILED])
def test_a_test_that_one_kernel_ran_did_run(outcome: Outcome) -> None:
    skip = one("test_x", Outcome.SKIPPED)
    assert table.never_ran(matrix(kernel("a", skip), kernel("b", one("test_x", outcome)))) == ()


def test_a_test_that_no_kernel_reached_is_no_skipped_test() -> None:
    assert table.never_ran(matrix(kernel("a", one("test_x", Outcome.NOT_RUN)))) == ()


def test_kernels_that_skip_for_one_reason_are_named_together() -> None:
    skip = replace(one("test_x", Outcome.SKIPPED), message="needs 5.15")
    (excuse,) = table.excuses(matrix(kernel("a", skip), kernel("b", skip)))
    assert (excuse.reason, excuse.kernels) == ("needs 5.15", ("a", "b"))


def test_the_legend_explains_only_the_marks_used() -> None:
    built = table.build(matrix(kernel("a", one("test_x", Outcome.NOT_APPLICABLE))))
    assert table.legend(built)[1:] == ("n-a: not applicable to that kernel",)
    assert table.legend(table.build(matrix(replace(kernel("a"), accelerator="kvm")))) == ()


def test_the_legend_explains_how_a_kernel_ran() -> None:
    of = replace(kernel("a"), accelerator="tcg", start="cold+warm", factor=10.0)
    (line,) = table.legend(table.build(matrix(of, replace(of, factor=9.0))))
    for word in ("tcg: emulated", "warm: restored", "cold: booted", "deadlines x10.0: time limits"):
        assert word in line


def test_the_legend_says_what_a_lost_test_is() -> None:
    lost = kernel("a", one("test_x", Outcome.LOST), status=Status.PANICKED)
    assert (
        "LOST: no result, because the VM ended while it ran"
        in table.legend(table.build(matrix(lost)))[-1]
    )


@pytest.mark.parametrize(
    ("status", "again", "reason"),
    [
        (Status.PANICKED, (), "the kernel panicked before"),
        (Status.TIMED_OUT, (), "a time limit ended the VM before"),
        (Status.CANCELLED, (), "the run was interrupted before"),
        (Status.FAILED, (("run",), ("-x",)), "pytest stopped at a failure (-x)"),
        (
            Status.FAILED,
            (("run",), ("--", "-v", "--maxfail=2")),
            "pytest stopped at a failure (--m",
        ),
        (Status.FAILED, (("run",),), "pytest ended before"),
    ],
)
def test_a_test_that_did_not_run_is_named_with_the_reason(
    status: Status, again: tuple[tuple[str, ...], ...], reason: str
) -> None:
    tests = one("test_x", Outcome.FAILED), one("test_y", Outcome.NOT_RUN)
    of = replace(matrix(kernel("a", *tests, status=status)), again=again)
    (told,) = table.unreached(of)
    assert (told.labels, told.kernels) == (("test_y",), ("a",))
    assert told.reason.startswith(reason)


def test_kernels_that_did_not_run_the_same_tests_are_named_together() -> None:
    tests = one("test_x", Outcome.LOST), one("test_y", Outcome.NOT_RUN)
    of = matrix(*(kernel(name, *tests, status=Status.PANICKED) for name in "ab"))
    assert [told.kernels for told in table.unreached(of)] == [("a", "b")]


def test_the_summary_of_a_green_matrix() -> None:
    green = matrix(kernel("a", one("test_x")), kernel("b", one("test_x")))
    assert table.summary(green) == (
        "2 kernels: 2 passed (exit status 0), 2 results of 1 test, 81.3 s, emulated (tcg)"
    )


def test_the_summary_counts_kernels_by_status_and_tests_by_outcome() -> None:
    mixed = matrix(
        kernel("a", one("test_x")),
        kernel("b", one("test_x", Outcome.FAILED), status=Status.FAILED),
        kernel("c", status=Status.BOOT_FAILED),
    )
    assert table.summary(mixed) == (
        "3 kernels: 1 passed, 1 failed, 1 boot failed (exit status 1), 2 results of 1 test "
        "(1 FAILED), 81.3 s, emulated (tcg)"
    )


def test_the_summary_says_which_failures_do_not_gate() -> None:
    free = replace(kernel("a", one("test_x", Outcome.FAILED), status=Status.FAILED), gate=False)
    assert "1 failed (1 without gate) (exit status 0)" in table.summary(matrix(free))


def test_the_summary_of_an_interrupted_run_says_so() -> None:
    assert "(interrupted, exit status 130)" in table.summary(replace(matrix(), interrupted=True))


@pytest.mark.parametrize("status", Status)
def test_a_kernel_that_is_not_passed_is_counted_in_the_summary(status: Status) -> None:
    assert table.summary(matrix(kernel("a", status=status))).startswith("1 kernel: 1 ")


def test_a_failed_kernel_whose_tests_say_why_needs_no_section() -> None:
    of = replace(kernel("a", one("t", Outcome.FAILED), status=Status.FAILED), reason="1 failed")
    assert table.troubled(matrix(of)) == ()


def test_a_failed_kernel_whose_tests_do_not_say_why_has_a_section() -> None:
    of = replace(kernel("a", one("t"), status=Status.FAILED), reason="pytest exit status 3")
    assert table.troubled(matrix(of)) == (of,)

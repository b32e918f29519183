"""Known failures: which tests a pattern means, and what a run shows of an entry."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from vmtest.guest.plugins.patterns import matches
from vmtest.model.project import KnownFailure
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.versions import VersionRange
from vmtest.suites.known import notes

ROOT = "/home/me/project/tests/suites"
TODAY = date(2026, 7, 1)


@pytest.mark.parametrize(
    "pattern",
    [
        "test_a.py::test_x[ipv6]",
        "suites/test_a.py::test_x[ipv6]",
        "tests/suites/test_a.py::test_x[ipv6]",
        "test_a.py::test_*",
        "test_a.py::test_x[*6]",
        "test_a.py::test_x[ipv?]",
        "test_?.py::*",
        "*::test_x[ipv6]",
    ],
)
def test_a_pattern_means_a_test_with_or_without_its_folder(pattern: str) -> None:
    assert matches(pattern, "test_a.py::test_x[ipv6]", ROOT)


@pytest.mark.parametrize(
    "pattern",
    [
        "test_a.py::test_x",
        "test_a.py::test_x[ipv]",
        "test_a.py::test_x[i]",
        "est_a.py::test_x[ipv6]",
        "other/test_a.py::test_x[ipv6]",
        "test_a.py::test_x?ipv6",
        "test_axpy::test_x[ipv6]",
    ],
)
def test_a_pattern_means_whole_names_and_brackets_literally(pattern: str) -> None:
    assert not matches(pattern, "test_a.py::test_x[ipv6]", ROOT)


def test_a_slash_of_a_parameter_is_no_folder() -> None:
    assert not matches("b]::*", "test_a.py::test_x[a/b]::y", ROOT)
    assert matches("test_a.py::test_x[a/b]", "test_a.py::test_x[a/b]", ROOT)


def test_a_folder_below_the_common_one_may_be_left_out() -> None:
    assert matches("test_a.py::test_x", "net/test_a.py::test_x", ROOT)


def matrix(**outcomes: Outcome) -> Matrix:
    """Kernels 5.10, 6.1 and so on (k5_10), each with test_a.py::test_x and a test that passes."""
    kernels = tuple(
        KernelResult(
            name,
            Status.PASSED,
            version=f"{name[1:].replace('_', '.')}.7",
            tests=(
                TestResult("test_a.py::test_x", "a", outcome),
                TestResult("test_a.py::test_y", "a", Outcome.PASSED),
            ),
        )
        for name, outcome in outcomes.items()
    )
    return Matrix(1, "run", "2026-07-01T00:00:00+00:00", 1.0, ("a",), kernels)


def told(entry: KnownFailure, run: Matrix, *, whole: bool = True) -> tuple[str, ...]:
    return notes([entry], run, ROOT, TODAY, whole=whole)


GONE = KnownFailure("test_a.py::test_z", "issue 7", VersionRange.parse(">=6.1"))


def test_an_entry_that_means_no_test_is_noted() -> None:
    assert told(GONE, matrix(k5_10=Outcome.PASSED, k6_1=Outcome.PASSED)) == (
        'known failure "test_a.py::test_z" matched no test on k6_1: '
        "correct the pattern, or remove it from kernels.toml",
    )


def test_nothing_is_noted_of_kernels_that_an_entry_is_not_about() -> None:
    assert told(GONE, matrix(k5_10=Outcome.PASSED)) == ()


def test_a_run_of_some_tests_says_nothing_of_the_others_entries() -> None:
    assert told(GONE, matrix(k6_1=Outcome.PASSED), whole=False) == ()


def test_a_kernel_that_came_to_no_tests_says_nothing() -> None:
    run = matrix(k6_1=Outcome.PASSED)
    dead = replace(run.kernels[0], tests=(), status=Status.BOOT_FAILED)
    assert told(GONE, replace(run, kernels=(dead,))) == ()


def test_an_entry_that_a_kernel_without_tests_may_be_about_is_not_noted() -> None:
    run = matrix(k6_1=Outcome.PASSED, k6_12=Outcome.PASSED)
    dead = replace(run.kernels[1], tests=(), status=Status.BOOT_FAILED)
    assert told(GONE, replace(run, kernels=(run.kernels[0], dead))) == ()


def test_an_entry_that_means_a_test_on_one_kernel_is_not_noted() -> None:
    entry = KnownFailure("test_a.py::test_x", "issue 7")
    run = matrix(k5_10=Outcome.XFAILED, k6_1=Outcome.XFAILED)
    without = replace(run.kernels[1], tests=run.kernels[1].tests[1:])
    assert told(entry, replace(run, kernels=(run.kernels[0], without))) == ()


EXPIRED = KnownFailure("test_a.py::test_x", "issue 7", until=date(2026, 6, 30))


def test_an_expired_entry_whose_test_passes_is_noted_with_the_kernels() -> None:
    run = matrix(k5_10=Outcome.FAILED, k6_1=Outcome.PASSED, k6_12=Outcome.PASSED)
    assert told(EXPIRED, run, whole=False) == (
        'known failure "test_a.py::test_x" expired 2026-06-30 and passes on k6_1, k6_12: '
        "remove it from kernels.toml",
    )


def test_an_expired_pattern_is_not_noted_by_a_run_of_some_of_its_tests() -> None:
    entry = replace(EXPIRED, test="test_a.py::test_*")
    run = matrix(k6_1=Outcome.PASSED)
    assert told(entry, run, whole=False) == ()
    assert len(told(entry, run)) == 1


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SKIPPED, Outcome.NOT_RUN])
def test_an_expired_entry_is_not_noted_where_its_test_did_not_pass(outcome: Outcome) -> None:
    assert told(EXPIRED, matrix(k6_1=outcome)) == ()


def test_an_entry_that_still_counts_is_not_noted() -> None:
    entry = replace(EXPIRED, until=TODAY)
    assert told(entry, matrix(k6_1=Outcome.PASSED)) == ()

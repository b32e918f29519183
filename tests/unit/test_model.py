import pickle
from dataclasses import replace

import pytest

from vmtest.errors import UsageError
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, exit_status
from vmtest.model.results import TestResult as OneTest
from vmtest.model.versions import KernelVersion, VersionRange


def matrix(*statuses: Status, interrupted: bool = False, gate: bool = True) -> Matrix:
    kernels = tuple(KernelResult(str(n), s, gate=gate) for n, s in enumerate(statuses))
    return Matrix(SCHEMA, "run", "", 0.0, (), kernels, interrupted)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("6.12.117-1", "6.12.117"),
        ("5.10.0-46-amd64", "5.10.0"),
        ("7.3-rc2", "7.3-rc2"),
        ("7.3~rc2-1~exp1", "7.3-rc2"),
        ("v6.6.17", "6.6.17"),
        ("6.12", "6.12.0"),
    ],
)
def test_version_is_read_from_what_kernels_and_packages_call_themselves(
    text: str, shown: str
) -> None:
    assert str(KernelVersion.parse(text)) == shown


def test_versions_sort_by_number_with_candidates_before_their_release() -> None:
    texts = ["7.3", "6.1.192", "7.3-rc2", "6.12.9", "6.12.10", "7.3-rc10"]
    ordered = sorted(texts, key=KernelVersion.parse)
    assert ordered == ["6.1.192", "6.12.9", "6.12.10", "7.3-rc2", "7.3-rc10", "7.3"]


def test_text_that_is_no_version_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match=r"'linux' does not begin with a kernel version"):
        KernelVersion.parse("linux")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=6.1,<6.13", ["6.1.0", "6.12.117"], ["6.13.0", "5.10.9", "6.13.1"]),
        ("<=6.12", ["6.12.117", "6.1.1"], ["6.13.0"]),
        (">6.12", ["6.13.0"], ["6.12.117"]),
        ("==6.1", ["6.1.192"], ["6.12.1", "6.10.0"]),
        ("!=6.12.5", ["6.12.6"], ["6.12.5"]),
    ],
)
def test_a_constraint_compares_as_many_numbers_as_it_names(
    text: str, inside: list[str], outside: list[str]
) -> None:
    wanted = VersionRange.parse(text)
    assert [v for v in inside if KernelVersion.parse(v) not in wanted] == []
    assert [v for v in outside if KernelVersion.parse(v) in wanted] == []


def test_a_range_names_the_part_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"'~6\.2' is not a version constraint"):
        VersionRange.parse(">=6.1,~6.2")


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([Status.PASSED, Status.PASSED], 0),
        ([Status.PASSED, Status.FAILED], 1),
        ([Status.PANICKED, Status.BOOT_FAILED], 1),
        ([Status.SPLAT], 1),
        ([Status.TIMED_OUT], 1),
        ([Status.LOST], 1),
        ([Status.BOOT_FAILED, Status.PASSED], 3),
        ([Status.INFRA_ERROR, Status.NO_TESTS], 3),
        ([Status.PASSED, Status.NO_TESTS], 5),
    ],
)
def test_exit_status_is_the_gravest_of_all_kernels(statuses: list[Status], status: int) -> None:
    assert exit_status(matrix(*statuses)) == status


def test_an_interrupt_goes_before_every_other_exit_status() -> None:
    assert exit_status(matrix(Status.FAILED, interrupted=True)) == 130


def test_a_kernel_without_gate_does_not_decide() -> None:
    assert exit_status(matrix(Status.FAILED, Status.INFRA_ERROR, gate=False)) == 0


def with_tests(whole: Matrix, *outcomes: Outcome) -> Matrix:
    """``whole`` with a test of each outcome on every kernel."""
    tests = tuple(OneTest(f"t.py::{n}", "s", outcome) for n, outcome in enumerate(outcomes))
    return replace(whole, kernels=tuple(replace(k, tests=tests) for k in whole.kernels))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.INFRA_ERROR, 3),
        (Status.BOOT_FAILED, 3),
        (Status.NO_TESTS, 5),
        (Status.CANCELLED, 5),
    ],
)
def test_kernels_without_gate_on_which_nothing_ran_are_no_success(
    status: Status, code: int
) -> None:
    assert exit_status(matrix(status, gate=False)) == code


def test_kernels_without_gate_on_which_tests_ran_do_not_decide_alone_either() -> None:
    assert exit_status(with_tests(matrix(Status.FAILED, gate=False), Outcome.FAILED)) == 0


@pytest.mark.parametrize(
    "outcome", [Outcome.SKIPPED, Outcome.NOT_APPLICABLE, Outcome.NOT_RUN, Outcome.COLLECTED]
)
def test_a_run_of_which_no_test_ran_has_no_tests(outcome: Outcome) -> None:
    assert exit_status(with_tests(matrix(Status.PASSED, Status.PASSED), outcome)) == 5


def test_a_kernel_that_skips_everything_passes_beside_one_that_does_not() -> None:
    ran = with_tests(matrix(Status.PASSED), Outcome.PASSED)
    skipped = with_tests(matrix(Status.PASSED), Outcome.SKIPPED)
    assert exit_status(replace(ran, kernels=(*ran.kernels, *skipped.kernels))) == 0


def test_what_ran_without_gate_does_not_stand_in_for_the_gated_kernels() -> None:
    gated = with_tests(matrix(Status.PASSED), Outcome.SKIPPED)
    free = with_tests(matrix(Status.PASSED, gate=False), Outcome.PASSED)
    assert exit_status(replace(gated, kernels=(*gated.kernels, *free.kernels))) == 5


def test_a_run_of_which_no_load_was_made_has_no_tests() -> None:
    whole = matrix(Status.PASSED)
    loads = (LoadResult("x.o", "", Verdict.NOT_LOADED),)
    whole = replace(whole, kernels=tuple(replace(k, loads=loads) for k in whole.kernels))
    assert exit_status(whole) == 5


def test_a_command_that_skipped_all_its_tests_has_no_tests() -> None:
    whole = with_tests(matrix(Status.PASSED), Outcome.SKIPPED)
    kernels = tuple(replace(kernel, exit_status=0) for kernel in whole.kernels)
    assert exit_status(replace(whole, command=("x",), kernels=kernels)) == 5


def test_tests_that_were_listed_as_asked_are_a_success() -> None:
    assert exit_status(with_tests(matrix(Status.COLLECTED), Outcome.COLLECTED)) == 0


@pytest.mark.parametrize(
    ("status", "own", "passed_on"),
    [
        (Status.PASSED, 0, 0),
        (Status.FAILED, 42, 42),
        (Status.FAILED, 0, 1),  # its tests failed
        (Status.PANICKED, None, 1),
        (Status.SPLAT, 0, 1),
        (Status.NO_TESTS, 0, 5),
        (Status.BOOT_FAILED, None, 125),
        (Status.INFRA_ERROR, None, 125),
    ],
)
def test_a_command_in_a_single_kernel_passes_its_status_on(
    status: Status, own: int | None, passed_on: int
) -> None:
    of_one = matrix(status)
    (kernel,) = of_one.kernels
    of_one = replace(of_one, command=("x",), kernels=(replace(kernel, exit_status=own),))
    assert exit_status(of_one) == passed_on


def test_a_command_in_several_kernels_has_the_matrix_status() -> None:
    whole = matrix(Status.PASSED, Status.FAILED)
    kernels = tuple(replace(kernel, exit_status=42) for kernel in whole.kernels)
    assert exit_status(replace(whole, command=("x",), kernels=kernels)) == 1


def test_results_travel_between_processes() -> None:
    whole = matrix(Status.PASSED, Status.FAILED)
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_an_error_names_the_parameter_that_is_wrong() -> None:
    assert UsageError("`kernels` 9.9: there is no kernel; see `suites`").field == "kernels"
    assert UsageError("kernels.toml: does not exist").field == ""

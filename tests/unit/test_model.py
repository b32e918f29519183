import pickle
from dataclasses import replace

import pytest

from vmtest.model.kernels import (
    SCHEMA,
    KernelResult,
    KernelVersion,
    Matrix,
    Status,
    VersionRange,
    exit_status,
)


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
    with pytest.raises(ValueError, match=r"'~6\.2' is no version constraint"):
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

"""Which kernels ``--collect-only`` asks, and what it makes of their answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.model.kernels import AptSpec, Kernel
from vmtest.model.project import ObjectFile
from vmtest.model.results import KernelResult, Outcome, Status
from vmtest.model.results import TestResult as OneTest
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.suites.collect import collected, only_collects, stand_ins

NAMES = ("5.10", "6.1", "6.12")
KERNELS = tuple(Kernel(name, AptSpec("debian", f"{name}.*")) for name in NAMES)
VERSIONS = {name: KernelVersion.parse(name) for name in NAMES}
COMPAT = ObjectFile("net", Path("compat.o"), VersionRange.parse("<6.1"))
PLAIN = ObjectFile("net", Path("plain.o"))


def asked(*builds: ObjectFile, kernels: tuple[Kernel, ...] = KERNELS) -> dict[str, tuple[str, ...]]:
    found = stand_ins(kernels, builds, ["net"], VERSIONS)
    return {one.kernel.name: one.others for one in found}


def test_one_kernel_is_enough_where_all_get_the_same_objects() -> None:
    assert asked(PLAIN) == {"5.10": ("6.1", "6.12")}


def test_kernels_that_get_other_objects_are_asked_as_well() -> None:
    assert asked(COMPAT, PLAIN) == {"5.10": (), "6.1": ("6.12",)}


def test_an_object_that_no_chosen_suite_needs_divides_nothing() -> None:
    other = ObjectFile("other", Path("o.o"), VersionRange.parse("<6.1"))
    assert asked(other, PLAIN) == {"5.10": ("6.1", "6.12")}


def test_a_kernel_with_a_gate_stands_for_one_without() -> None:
    free = Kernel("sid", AptSpec("debian", "*"), gate=False)
    assert asked(PLAIN, kernels=(free, *KERNELS)) == {"5.10": ("sid", "6.1", "6.12")}


def test_a_kernel_whose_version_nobody_knows_stands_for_itself() -> None:
    unknown = Kernel("x", AptSpec("debian", "*"))
    assert asked(COMPAT, PLAIN, kernels=(*KERNELS, unknown))["x"] == ()


@pytest.mark.parametrize("option", ["--collect-only", "--co"])
def test_pytests_own_options_count_as_well(option: str) -> None:
    assert only_collects(["-k", "x", option])
    assert not only_collects(["-k", "x"])


def of(status: Status, outcome: Outcome) -> KernelResult:
    return collected(KernelResult("k", status, tests=(OneTest("t.py::a", "s", outcome),)))


def test_listed_tests_are_collected_and_not_passed() -> None:
    found = of(Status.PASSED, Outcome.NOT_RUN)
    assert (found.status, found.tests[0].outcome) == (Status.COLLECTED, Outcome.COLLECTED)


def test_what_cannot_be_collected_stays_a_failure() -> None:
    found = of(Status.FAILED, Outcome.ERROR)
    assert (found.status, found.tests[0].outcome) == (Status.FAILED, Outcome.ERROR)

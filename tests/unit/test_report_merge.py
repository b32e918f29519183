"""Shards of a run become the matrix of the run in one piece."""

from dataclasses import replace
from typing import Any

import pytest

from vmtest.errors import UsageError
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import (
    SCHEMA,
    KernelResult,
    Matrix,
    Outcome,
    Status,
    TestResult,
    exit_status,
)
from vmtest.report.again import command_of
from vmtest.report.causes import causes
from vmtest.report.merge import merge

SUITES = ("sendmsg", "cgroup_skb", "cgroup_sock")


def of(suite: str, name: str = "test_x", outcome: Outcome = Outcome.PASSED) -> TestResult:
    return TestResult(f"test_{suite}.py::{name}", suite, outcome)


def kernel(name: str, *tests: TestResult, **more: Any) -> KernelResult:
    plain = KernelResult(
        name,
        Status.PASSED,
        version=f"{name}.57",
        release=f"{name}.57-amd64",
        accelerator="tcg",
        tests=tests,
        boot_seconds=4.0,
        duration=20.0,
        factor=1.5,
        digest="d" * 64,
        objects=(("sendmsg", "a" * 64),),
    )
    return replace(plain, **more)


def matrix(*kernels: KernelResult, run: str = "r", suites: tuple[str, ...] = SUITES) -> Matrix:
    return Matrix(SCHEMA, run, "2026-05-09T07:35:25Z", 60.0, suites, kernels)


def whole() -> Matrix:
    tests = tuple(of(suite, f"test_{n}") for suite in SUITES for n in range(3))
    objects = tuple((suite, suite[-1] * 64) for suite in sorted(SUITES))
    names = ("5.10", "6.1", "6.12", "7.0")
    return matrix(*(kernel(name, *tests, objects=objects) for name in names))


def timeless(merged: Matrix) -> Matrix:
    """Without what a shard cannot know: the run's name and the durations."""
    kernels = tuple(replace(k, duration=0.0, boot_seconds=0.0) for k in merged.kernels)
    return replace(merged, run="", duration=0.0, kernels=kernels)


def test_shards_that_listed_their_tests_do_not_go_with_those_that_ran() -> None:
    ran = matrix(kernel("6.12", of("sendmsg")), run="ran")
    listed = matrix(kernel("6.1", status=Status.COLLECTED), run="listed")
    with pytest.raises(UsageError, match="run listed only listed its tests"):
        merge([ran, listed])


def test_shards_that_listed_their_tests_go_together() -> None:
    listed = of("sendmsg", outcome=Outcome.COLLECTED)
    one = matrix(kernel("6.12", listed, status=Status.COLLECTED), run="r1")
    other = matrix(kernel("6.1", status=Status.BOOT_FAILED), run="r2")
    assert exit_status(merge([one, one])) == 0
    assert exit_status(merge([one, other])) == 3


def by_kernel(full: Matrix, *groups: tuple[int, ...]) -> list[Matrix]:
    return [
        replace(full, run=f"r{n}", kernels=tuple(full.kernels[i] for i in group))
        for n, group in enumerate(groups)
    ]


def by_suite(full: Matrix) -> list[Matrix]:
    def only(kernel: KernelResult, suite: str) -> KernelResult:
        return replace(
            kernel,
            tests=tuple(test for test in kernel.tests if test.suite == suite),
            objects=tuple(pair for pair in kernel.objects if pair[0] == suite),
        )

    return [
        replace(full, run=s, suites=(s,), kernels=tuple(only(k, s) for k in full.kernels))
        for s in full.suites
    ]


def test_notes_of_all_shards_are_kept_once() -> None:
    full = replace(whole(), notes=("one", "two"))
    shards = by_kernel(full, (0, 1), (2, 3))
    shards[1] = replace(shards[1], notes=("two", "three"))
    assert merge(shards).notes == ("one", "two", "three")


def two(first: KernelResult, second: KernelResult) -> KernelResult:
    """One kernel of two shards, merged."""
    return merge([matrix(first, run="r1"), matrix(second, run="r2")]).kernels[0]


def complaint(first: KernelResult, second: KernelResult) -> str:
    with pytest.raises(UsageError) as caught:
        two(first, second)
    return str(caught.value)


def test_shards_by_kernel_are_the_whole() -> None:
    merged = merge(by_kernel(whole(), (0, 1), (2, 3)))
    assert timeless(merged) == timeless(whole())


def test_shards_by_suite_are_the_whole() -> None:
    assert timeless(merge(by_suite(whole()))) == timeless(whole())


def test_shards_by_kernel_and_suite_are_the_whole() -> None:
    shards = [s for half in by_kernel(whole(), (0, 1), (2, 3)) for s in by_suite(half)]
    assert timeless(merge(shards)) == timeless(whole())


def test_shards_in_any_order_are_the_whole_where_the_order_is_given() -> None:
    shards = [s for half in by_kernel(whole(), (3, 1), (2, 0)) for s in reversed(by_suite(half))]
    names = [k.kernel for k in whole().kernels]
    merged = merge(shards, kernels=names, suites=SUITES)
    assert timeless(merged) == timeless(whole())


def test_merging_step_by_step_is_merging_at_once() -> None:
    a, b, c = by_suite(whole())
    assert merge([merge([a, b]), c]) == merge([a, b, c])


def test_without_an_order_kernels_stand_as_they_first_appear() -> None:
    merged = merge(by_kernel(whole(), (2, 3), (0, 1)))
    assert [k.kernel for k in merged.kernels] == ["6.12", "7.0", "5.10", "6.1"]


def test_an_order_may_name_kernels_that_no_shard_has() -> None:
    merged = merge(by_kernel(whole(), (2,), (0,)), kernels=["4.19", "5.10", "6.12"])
    assert [k.kernel for k in merged.kernels] == ["5.10", "6.12"]


def test_one_matrix_is_itself() -> None:
    assert merge([whole()]) == whole()


def test_shards_of_one_command_keep_it_and_of_two_have_none() -> None:
    a, b = (replace(matrix(kernel(name)), command=("x",)) for name in ("6.1", "6.12"))
    assert merge([a, b]).command == ("x",)
    assert merge([a, replace(b, command=("y",))]).command == ()


def test_shards_of_several_commands_have_no_command_to_run_again() -> None:
    a, b = (
        replace(
            matrix(kernel(name, of("net", outcome=Outcome.FAILED), status=Status.FAILED)),
            command=("x", name),
            again=(("exec",),),
        )
        for name in ("6.1", "6.12")
    )
    merged = merge([a, b])
    assert [command_of(cause, merged) for cause in causes(merged)] == [""]
    assert "-- x 6.1" in command_of(causes(a)[0], a)


def test_shards_keep_of_their_command_lines_what_all_have() -> None:
    config, suite, other = ("--config", "k.toml"), ("--suite", "net"), ("--suite", "sched")
    a = replace(matrix(kernel("6.1")), again=(("run",), config, suite))
    b = replace(matrix(kernel("6.12")), again=(("run",), config, other))
    assert merge([a, b]).again == (("run",), config)
    assert merge([a, replace(b, again=(("verify",), config))]).again == ()


def test_a_shard_given_twice_counts_once() -> None:
    assert merge([whole(), whole()]) == whole()


def test_nothing_to_merge_is_an_error_of_use() -> None:
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([])


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Status.PASSED, Status.FAILED, Status.FAILED),
        (Status.FAILED, Status.PANICKED, Status.PANICKED),
        (Status.FAILED, Status.TIMED_OUT, Status.TIMED_OUT),
        (Status.SPLAT, Status.FAILED, Status.FAILED),
        (Status.PASSED, Status.SPLAT, Status.SPLAT),
        (Status.PASSED, Status.BOOT_FAILED, Status.BOOT_FAILED),
        (Status.PASSED, Status.INFRA_ERROR, Status.INFRA_ERROR),
        (Status.PASSED, Status.NO_TESTS, Status.PASSED),
        (Status.NO_TESTS, Status.NO_TESTS, Status.NO_TESTS),
        (Status.PANICKED, Status.CANCELLED, Status.CANCELLED),
    ],
)
def test_the_gravest_status_holds(one: Status, other: Status, both: Status) -> None:
    first = kernel("6.12", of("sendmsg"), status=one)
    second = kernel("6.12", of("cgroup_skb"), status=other)
    assert {two(first, second).status, two(second, first).status} == {both}


RAN = [s for s in Status if s not in (Status.NO_TESTS, Status.COLLECTED)]


@pytest.mark.parametrize("one", RAN)
@pytest.mark.parametrize("other", RAN)
def test_merging_does_not_change_the_exit_status(one: Status, other: Status) -> None:
    first = matrix(kernel("6.12", of("sendmsg"), status=one), run="r1")
    second = matrix(kernel("6.12", of("cgroup_skb"), status=other), run="r2")
    apart = matrix(first.kernels[0], replace(second.kernels[0], kernel="other"))
    assert exit_status(merge([first, second])) == exit_status(apart)


def test_all_reasons_and_notes_are_kept() -> None:
    merged = two(
        kernel("6.12", reason="1 failed", note="cached"),
        kernel("6.12", reason="panicked", note="cached"),
    )
    assert (merged.reason, merged.note) == ("1 failed; panicked", "cached")


def test_logs_and_console_are_those_of_the_gravest() -> None:
    merged = two(
        kernel("6.12", directory="r1/6.12"),
        kernel("6.12", directory="r2/6.12", status=Status.PANICKED, console_tail=("Oops",)),
    )
    assert (merged.directory, merged.console_tail) == ("r2/6.12", ("Oops",))


def test_a_kernel_s_duration_is_the_sum_and_its_boot_the_slowest() -> None:
    merged = two(kernel("6.12", boot_seconds=4.0), kernel("6.12", boot_seconds=5.0))
    assert (merged.duration, merged.boot_seconds) == (40.0, 5.0)


def test_the_matrix_lasts_as_long_as_its_longest_shard() -> None:
    shards = by_kernel(whole(), (0, 1), (2, 3))
    assert merge([replace(shards[0], duration=90.0), shards[1]]).duration == 90.0


def test_the_matrix_began_with_its_first_shard() -> None:
    shards = by_kernel(whole(), (0, 1), (2, 3))
    early = replace(shards[1], started="2026-05-09T07:00:00Z")
    assert merge([shards[0], early]).started == "2026-05-09T07:00:00Z"


@pytest.mark.parametrize(
    ("starts", "merged"),
    [
        (("warm", "warm"), "warm"),
        (("warm", "cold"), "cold+warm"),
        (("cold+warm", "warm"), "cold+warm"),
        (("", "cold"), "cold"),
        (("", ""), ""),
    ],
)
def test_a_kernel_says_all_ways_in_which_its_guests_came(
    starts: tuple[str, str], merged: str
) -> None:
    shards = [
        matrix(kernel("6.12", of(suite), start=start), run=suite, suites=(suite,))
        for suite, start in zip(SUITES, starts, strict=False)
    ]
    assert merge(shards).kernels[0].start == merged


def test_an_interrupted_shard_makes_an_interrupted_matrix() -> None:
    shards = by_kernel(whole(), (0, 1), (2, 3))
    assert merge([shards[0], replace(shards[1], interrupted=True)]).interrupted


def test_a_kernel_that_did_not_boot_in_one_shard_keeps_what_the_other_knows() -> None:
    dead = KernelResult("6.12", Status.BOOT_FAILED)
    merged = two(dead, kernel("6.12", of("sendmsg")))
    assert (merged.version, merged.digest) == ("6.12.57", "d" * 64)


def test_accelerators_that_differ_are_both_named() -> None:
    assert two(kernel("6.12", accelerator="kvm"), kernel("6.12")).accelerator == "kvm+tcg"


def test_a_test_that_one_shard_did_not_reach_is_taken_from_the_other() -> None:
    missed, ran = of("sendmsg", outcome=Outcome.NOT_RUN), of("sendmsg")
    results = [two(kernel("6.12", a), kernel("6.12", b)) for a, b in ((missed, ran), (ran, missed))]
    assert [result.tests for result in results] == [(ran,), (ran,)]


def test_a_test_that_two_shards_judge_differently_is_a_conflict() -> None:
    said = complaint(
        kernel("6.12", of("sendmsg")), kernel("6.12", of("sendmsg", outcome=Outcome.FAILED))
    )
    assert said.startswith(
        "kernel 6.12: test_sendmsg.py::test_x: passed in run r1, failed in run r2"
    )


@pytest.mark.parametrize("field", ["version", "release", "digest"])
def test_another_exact_kernel_is_a_conflict(field: str) -> None:
    first = kernel("6.12", of("sendmsg"))
    other: dict[str, Any] = {field: "other"}
    said = complaint(first, replace(first, **other))
    assert said.startswith(f"kernel 6.12: {field} differs between shards: ")


def test_another_build_of_an_object_is_a_conflict() -> None:
    first = kernel("6.12", of("sendmsg"))
    said = complaint(first, replace(first, objects=(("sendmsg", "b" * 64),)))
    assert said.startswith('kernel 6.12: object "sendmsg" differs between shards: ')


def test_another_exact_version_of_another_kernel_is_no_conflict() -> None:
    merged = merge([matrix(kernel("6.1"), run="r1"), matrix(kernel("6.12"), run="r2")])
    assert [k.version for k in merged.kernels] == ["6.1.57", "6.12.57"]


def loaded(program: str, verdict: Verdict = Verdict.ACCEPTED) -> LoadResult:
    return LoadResult("x.o", program, verdict)


def test_the_loads_of_shards_are_put_together() -> None:
    merged = two(kernel("6.12", loads=(loaded("a"),)), kernel("6.12", loads=(loaded("b"),)))
    assert merged.loads == (loaded("a"), loaded("b"))


def test_a_load_that_one_shard_did_not_come_to_is_taken_from_the_other() -> None:
    missed, made = loaded("a", Verdict.NOT_LOADED), loaded("a")
    results = [
        two(kernel("6.12", loads=(a,)), kernel("6.12", loads=(b,)))
        for a, b in ((missed, made), (made, missed))
    ]
    assert [result.loads for result in results] == [(made,), (made,)]


def test_a_load_that_two_shards_judge_differently_is_a_conflict() -> None:
    said = complaint(
        kernel("6.12", loads=(loaded("a"),)),
        kernel("6.12", loads=(loaded("a", Verdict.REJECTED),)),
    )
    assert said.startswith("kernel 6.12: x.o: a: accepted in run r1, rejected in run r2")


def by(libbpf: str, *programs: str, **more: Any) -> KernelResult:
    """A kernel on which one libbpf loaded an object."""
    loads = tuple(LoadResult("x.o", p, Verdict.ACCEPTED, libbpf=libbpf) for p in ("", *programs))
    plain = kernel("6.12", loads=loads, libbpf=libbpf, objects=(("x.o", "a" * 64),))
    return replace(plain, **more)


def test_shards_that_loaded_by_different_versions_of_libbpf_have_rows_of_each() -> None:
    old = LoadResult("x.o", "a", Verdict.REFUSED, libbpf="1.1")
    merged = two(by("1.1", loads=(old,)), by("1.5", "a"))
    assert merged.libbpf == "1.1, 1.5"
    assert {(load.object, load.program): load.verdict for load in merged.loads} == {
        ("x.o (libbpf 1.1)", "a"): Verdict.REFUSED,
        ("x.o (libbpf 1.5)", ""): Verdict.ACCEPTED,
        ("x.o (libbpf 1.5)", "a"): Verdict.ACCEPTED,
    }
    assert dict(merged.objects).keys() == {"x.o (libbpf 1.1)", "x.o (libbpf 1.5)"}


def test_a_shard_of_one_libbpf_goes_with_one_of_several() -> None:
    several = by(
        "1.1, 1.7", objects=(("x.o (libbpf 1.1)", "a" * 64), ("x.o (libbpf 1.7)", "a" * 64))
    )
    rows = [LoadResult(f"x.o (libbpf {v})", "", Verdict.ACCEPTED, libbpf=v) for v in ("1.1", "1.7")]
    merged = two(replace(several, loads=tuple(rows)), by("1.5"))
    assert [load.object for load in merged.loads] == [
        "x.o (libbpf 1.1)",
        "x.o (libbpf 1.7)",
        "x.o (libbpf 1.5)",
    ]


def test_kernels_that_loaded_by_different_versions_of_libbpf_share_no_row() -> None:
    merged = merge([matrix(by("1.5"), run="r1"), matrix(by("1.7", kernel="7.0"), run="r2")])
    assert [load.object for k in merged.kernels for load in k.loads] == [
        "x.o (libbpf 1.5)",
        "x.o (libbpf 1.7)",
    ]


def test_one_libbpf_in_all_shards_leaves_the_names_as_they_are() -> None:
    merged = two(by("1.5"), by("1.5", "a", loads=(loaded("a"),)))
    assert {load.object for load in merged.loads} == {"x.o"}
    assert merged.libbpf == "1.5"

"""What the columns of a matrix say of one another: `unsupported` where a newer kernel accepts."""

from __future__ import annotations

from dataclasses import replace

from vmtest.model.loads import LoadResult, Reason, Verdict
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.report.merge import merge as merge_matrices
from vmtest.verify.baseline import FailOn, Rules
from vmtest.verify.columns import compared, of_shards

REFUSED = LoadResult("o", "p", Verdict.REJECTED, reason=Reason("possible-null", "a", "b", "log: c"))
ACCEPTED = LoadResult("o", "p", Verdict.ACCEPTED)


def kernel(name: str, version: str, load: LoadResult, sha: str = "aa") -> KernelResult:
    return KernelResult(
        name,
        Status.FAILED if load.verdict.bad else Status.PASSED,
        version=version,
        release=version,
        loads=(load,),
        objects=(("o", sha),),
    )


def after(*kernels: KernelResult, fail_on: str = "rejected") -> tuple[KernelResult, ...]:
    matrix = Matrix(1, "r", "now", 1.0, (), kernels)
    return compared(matrix, Rules(FailOn.parse(fail_on))).kernels


def test_what_a_newer_kernel_accepts_is_unsupported_and_not_rejected() -> None:
    old, _, new = after(
        kernel("5.10", "5.10.262", REFUSED),
        kernel("6.1", "6.1.1", REFUSED),
        kernel("6.12", "6.12.1", ACCEPTED),
    )
    (load,) = old.loads
    assert load.verdict is Verdict.UNSUPPORTED
    assert load.reason is not None
    assert load.reason.code == "possible-null"
    assert load.reason.evidence == (
        "log: c; the newer kernel 6.12 of this run accepts the same object"
    )
    assert (old.status, old.reason) == (Status.FAILED, "1 unsupported")
    assert new.loads == (ACCEPTED,)


def test_what_only_an_older_kernel_accepts_stays_rejected() -> None:
    _, new = after(kernel("5.10", "5.10.262", ACCEPTED), kernel("6.12", "6.12.1", REFUSED))
    assert new.loads == (REFUSED,)


def test_other_bytes_say_nothing() -> None:
    refused, _ = after(
        kernel("5.10", "5.10.262", REFUSED, "aa"), kernel("6.12", "6.12.1", ACCEPTED, "bb")
    )
    assert refused.loads == (REFUSED,)


def test_a_crash_and_the_loaders_own_limits_stay_what_they_are() -> None:
    for load in (
        replace(REFUSED, verdict=Verdict.TIMED_OUT),
        replace(REFUSED, verdict=Verdict.REFUSED, reason=Reason("memlock", "a")),
    ):
        old, _ = after(kernel("5.10", "5.10.262", load), kernel("6.12", "6.12.1", ACCEPTED))
        assert old.loads == (load,)


def test_a_refusal_still_fails_the_run() -> None:
    old, _ = after(kernel("5.10", "5.10.262", REFUSED), kernel("6.12", "6.12.1", ACCEPTED))
    assert old.status is Status.FAILED


def test_shards_say_of_one_another_what_the_run_in_one_piece_says() -> None:
    old = replace(
        kernel("5.10", "5.10.262", REFUSED), reason="1 rejected", counts=(("rejected", 1),)
    )
    kernels = (old, kernel("6.12", "6.12.1", ACCEPTED))
    assert of_shards(Matrix(1, "r", "now", 1.0, (), kernels)).kernels == after(*kernels)


def test_a_shards_reason_that_counts_no_verdict_stays() -> None:
    old = replace(
        kernel("5.10", "5.10.262", REFUSED), reason="1 regressed", counts=(("regressed", 1),)
    )
    new = kernel("6.12", "6.12.1", ACCEPTED)
    found, _ = of_shards(Matrix(1, "r", "now", 1.0, (), (old, new))).kernels
    assert (found.reason, found.loads[0].verdict) == ("1 regressed", Verdict.UNSUPPORTED)


def test_shards_of_one_kernel_add_up_what_failed_them() -> None:
    other = replace(REFUSED, program="q")
    first = replace(
        kernel("6.12", "6.12.1", REFUSED),
        reason="1 rejected, 1 regressed",
        counts=(("rejected", 1), ("regressed", 1)),
    )
    second = replace(
        kernel("6.12", "6.12.1", other), reason="1 rejected", counts=(("rejected", 1),)
    )
    died = replace(first, loads=(), objects=(), reason="it stopped: no answer", counts=())
    ran = (first, second, died)
    shards = [Matrix(1, str(at), "now", 1.0, (), (one,)) for at, one in enumerate(ran)]
    (found,) = of_shards(merge_matrices(shards)).kernels
    assert found.reason == "2 rejected, 1 regressed; it stopped: no answer"
    assert found.counts == (("rejected", 2), ("regressed", 1))

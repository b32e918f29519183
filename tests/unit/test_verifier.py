"""Baselines: kept by release and digest, compared, and what decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.model.loads import (
    Attachment,
    ChangeKind,
    Cost,
    LoadResult,
    LoadSet,
    Reason,
    Verdict,
    near_limit,
)
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.verify import baseline as verifier
from vmtest.verify.baseline import Baseline, FailOn, Rules

A, R = Verdict.ACCEPTED, Verdict.REJECTED


def load(
    program: str = "p", verdict: Verdict = A, instructions: int = 0, required: bool = True
) -> LoadResult:
    cost = Cost(instructions=instructions)
    return LoadResult("o", program, verdict, cost=cost, required=required)


def kernel(*loads: LoadResult, release: str = "6.12.1-amd64", sha: str = "aa") -> KernelResult:
    objects = (("o", sha),)
    return KernelResult("6.12", Status.PASSED, release=release, loads=loads, objects=objects)


def matrix(*kernels: KernelResult) -> Matrix:
    return Matrix(1, "r", "now", 1.0, (), kernels)


def kept(*loads: LoadResult, release: str = "6.12.1-amd64", sha: str = "aa") -> Baseline:
    return verifier.baseline_of(matrix(kernel(*loads, release=release, sha=sha)))


def kinds(now: KernelResult, baseline: Baseline | None) -> list[tuple[ChangeKind, str]]:
    return [(change.kind, change.cost) for change in verifier.changes(now, baseline)]


def judged(now: KernelResult, words: str, baseline: Baseline | None = None) -> KernelResult:
    return verifier.judge(now, Rules(FailOn.parse(words), baseline))


def test_a_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    before = kept(load("", A), load("p", A, 812), load("q", R))
    file = tmp_path / "b.json"
    file.write_text(verifier.dumps(before))
    assert verifier.load(file) == before


def tried(attachment: Attachment, required: bool = True) -> KernelResult:
    return kernel(replace(load("p", required=required), attachment=attachment))


def test_a_failed_attachment_decides_only_where_it_is_asked_to() -> None:
    failed = tried(Attachment(False, errno="ENOENT"))
    assert judged(failed, "rejected").status is Status.PASSED
    asked = judged(failed, "rejected,attach")
    assert (asked.status, asked.reason) == (Status.FAILED, "1 not attached")


def test_an_attachment_that_is_never_called_has_failed() -> None:
    idle = Attachment(True, reason=Reason("lsm-inactive", "never called"))
    assert judged(tried(idle), "attach").reason == "1 attached and never called"


def test_an_attachment_that_works_or_is_not_required_fails_nothing() -> None:
    assert judged(tried(Attachment(True)), "attach").status is Status.PASSED
    assert judged(tried(Attachment(False), required=False), "attach").status is Status.PASSED
    assert judged(kernel(load("p")), "attach").status is Status.PASSED


def test_a_refusal_that_other_kernels_show_in_another_light_is_no_change() -> None:
    why = Reason("possible-null", "a")
    before = kept(replace(load("p", R), reason=why))
    unsupported = replace(load("p", Verdict.UNSUPPORTED), reason=why)
    assert kinds(kernel(unsupported), before) == []
    other = replace(unsupported, reason=Reason("helper", "b"))
    assert kinds(kernel(other), before) == [(ChangeKind.CHANGED, "")]


def test_a_baseline_is_by_exact_release_and_digest() -> None:
    value = json.loads(verifier.dumps(kept(load("p", A, 812))))
    entry = value["kernels"]["6.12.1-amd64"]
    assert entry["kernel"] == "6.12"
    assert entry["objects"]["o"]["sha256"] == "aa"
    assert entry["objects"]["o"]["programs"]["p"]["costs"] == {"instructions": 812}


def test_saving_replaces_the_kernels_that_ran_and_keeps_the_others() -> None:
    other = replace(kernel(load("p", R), release="5.10.1"), kernel="5.10")
    before = verifier.baseline_of(matrix(kernel(load("p", R), release="6.12.0"), other))
    after = verifier.baseline_of(matrix(kernel(load("p", A))), before)
    assert sorted(after.kernels) == ["5.10.1", "6.12.1-amd64"]
    assert after.kernels["6.12.1-amd64"].objects["o"].programs["p"].verdict is A


def narrow(*loads: LoadResult, sha: str = "aa") -> KernelResult:
    """A kernel of which only programs `p*` were asked."""
    return replace(kernel(*loads, sha=sha), programs=("p*",))


def programs_of(baseline: Baseline) -> dict[str, Verdict]:
    programs = baseline.kernels["6.12.1-amd64"].objects["o"].programs
    return {name: load.verdict for name, load in programs.items()}


def test_saving_some_programs_keeps_the_others_of_the_same_object() -> None:
    before = kept(load("", R), load("p", R), load("q", R))
    after = verifier.baseline_of(matrix(narrow(load("p", A))), before)
    assert programs_of(after) == {"": R, "p": A, "q": R}


def test_saving_some_programs_of_a_new_build_keeps_nothing_of_the_old_one() -> None:
    before = kept(load("", R), load("p", R), load("q", R))
    after = verifier.baseline_of(matrix(narrow(load("p", A), sha="bb")), before)
    assert programs_of(after) == {"p": A}


def test_saving_some_programs_keeps_what_an_older_release_said() -> None:
    before = kept(load("p", R), load("q", R), release="6.12.0")
    after = verifier.baseline_of(matrix(narrow(load("p", A))), before)
    assert sorted(after.kernels) == ["6.12.0", "6.12.1-amd64"]


def test_saving_some_objects_keeps_the_others() -> None:
    other = LoadResult("other", "x", A)
    before = verifier.baseline_of(matrix(kernel(load("p", R), other)))
    after = verifier.baseline_of(matrix(kernel(load("p", A))), before, partial=True)
    assert sorted(after.kernels["6.12.1-amd64"].objects) == ["o", "other"]


def test_programs_that_were_not_asked_for_are_not_gone() -> None:
    before = kept(load("", R), load("p", A), load("px", A), load("q", R))
    assert kinds(narrow(load("p", A)), before) == [(ChangeKind.GONE, "")]  # px


def test_what_is_left_out_of_an_old_run_does_not_decide() -> None:
    whole = kernel(load("", R), load("p", A), load("q", R))
    assert judged(verifier.narrowed(whole, ("p",)), "rejected").status is Status.PASSED
    assert judged(verifier.narrowed(whole, ("q",)), "rejected").status is Status.FAILED


def test_an_object_that_cannot_be_opened_answers_for_its_programs() -> None:
    whole = kernel(load("", Verdict.OPEN_FAILED))
    assert judged(verifier.narrowed(whole, ("p",)), "rejected").status is Status.FAILED


def test_an_old_run_without_the_program_has_no_tests() -> None:
    found = judged(verifier.narrowed(kernel(load("p", A)), ("x",)), "rejected")
    assert found.status is Status.NO_TESTS


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.BOOT_FAILED, Status.PANICKED])
def test_a_kernel_that_did_not_end_leaves_no_baseline(status: Status) -> None:
    assert verifier.baseline_of(matrix(replace(kernel(load()), status=status))).kernels == {}


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (A, R, ChangeKind.REGRESSED),
        (R, A, ChangeKind.FIXED),
        (R, Verdict.TIMED_OUT, ChangeKind.CHANGED),
    ],
)
def test_a_verdict_that_changes_has_a_kind(
    before: Verdict, after: Verdict, kind: ChangeKind
) -> None:
    assert kinds(kernel(load("p", after)), kept(load("p", before))) == [(kind, "")]


def test_what_did_not_change_is_no_change() -> None:
    assert kinds(kernel(load("p", A, 5), load("q", R)), kept(load("p", A, 5), load("q", R))) == []


def test_a_moved_kernel_and_the_same_object_is_kernel_drift() -> None:
    before = kept(load("p", A), release="6.12.0-amd64")
    assert kinds(kernel(load("p", R)), before) == [(ChangeKind.DRIFT, "")]


def test_a_moved_kernel_and_another_object_is_a_regression_that_names_the_old_kernel() -> None:
    before = kept(load("p", A), release="6.12.0-amd64", sha="bb")
    (change,) = verifier.changes(kernel(load("p", R)), before)
    assert (change.kind, change.since) == (ChangeKind.REGRESSED, "6.12.0-amd64")


def test_the_exact_release_counts_before_the_name() -> None:
    before = kept(load("p", A))
    old = kept(load("p", R), release="6.12.0-amd64")
    both = Baseline(1, {**old.kernels, **before.kernels})
    assert kinds(kernel(load("p", A)), both) == []


def test_a_cost_of_a_moved_kernel_is_drift() -> None:
    before = kept(load("p", A, 100), release="6.12.0-amd64")
    assert kinds(kernel(load("p", A, 150)), before) == [(ChangeKind.DRIFT, "instructions")]


def test_verdicts_come_before_costs_and_costs_by_growth() -> None:
    now = kernel(load("a", A, 110), load("b", A, 300), load("c", R))
    before = kept(load("a", A, 100), load("b", A, 100), load("c", A))
    found = verifier.changes(now, before)
    assert [change.program for change in found] == ["c", "b", "a"]
    assert found[1].percent == pytest.approx(200.0)


def test_programs_that_came_and_went_are_told() -> None:
    found = verifier.changes(kernel(load("new")), kept(load("old")))
    assert [(c.program, c.kind) for c in found] == [
        ("new", ChangeKind.NEW),
        ("old", ChangeKind.GONE),
    ]


def test_an_object_that_was_not_asked_for_is_not_gone() -> None:
    before = verifier.baseline_of(matrix(kernel(load("p"), replace(load("q"), object="other"))))
    assert kinds(kernel(load("p")), before) == []


def test_other_builds_of_the_same_boot_take_the_place_of_a_baseline() -> None:
    other = LoadSet("v1", (("o", "aa"),), (load("p", A),))
    now = replace(kernel(load("p", R)), against=other)
    (change,) = verifier.changes(now, kept(load("p", R)))
    assert (change.kind, change.since) == (ChangeKind.REGRESSED, "v1")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("rejected", Status.FAILED),
        ("regressed", Status.FAILED),
        ("drift", Status.PASSED),
        ("limit", Status.PASSED),
        ("nothing", Status.PASSED),
    ],
)
def test_what_decides_is_what_was_asked(words: str, status: Status) -> None:
    assert judged(kernel(load("p", R)), words, kept(load("p", A))).status is status


def test_drift_decides_when_it_was_asked() -> None:
    before = kept(load("p", A), release="6.12.0-amd64")
    assert judged(kernel(load("p", R)), "drift", before).reason == "1 kernel drift"


def test_drift_is_no_regression() -> None:
    before = kept(load("p", A), release="6.12.0-amd64")
    assert judged(kernel(load("p", R)), "regressed", before).status is Status.PASSED


@pytest.mark.parametrize(
    ("now", "status"), [(119, Status.PASSED), (120, Status.PASSED), (121, Status.FAILED)]
)
def test_a_cost_decides_when_it_grew_by_more(now: int, status: Status) -> None:
    before = kept(load("p", A, 100))
    assert judged(kernel(load("p", A, now)), "+20%", before).status is status


def test_what_is_not_required_is_shown_and_does_not_decide() -> None:
    found = judged(kernel(load("p", R, required=False)), "rejected,regressed", kept(load("p", A)))
    assert found.status is Status.PASSED
    assert [change.kind for change in found.changes] == [ChangeKind.REGRESSED]


@pytest.mark.parametrize("verdict", [v for v in Verdict if v.bad])
def test_rejected_means_whatever_was_not_accepted(verdict: Verdict) -> None:
    assert judged(kernel(load("p", verdict)), "rejected").reason == f"1 {verdict}"


def test_a_program_that_was_left_out_decides_nothing() -> None:
    assert judged(kernel(load("p", Verdict.NOT_LOADED)), "rejected").status is Status.PASSED


@pytest.mark.parametrize(
    ("instructions", "near"), [(899_999, False), (900_000, True), (1_000_000, True)]
)
def test_within_a_tenth_of_the_limit_is_near(instructions: int, near: bool) -> None:
    assert near_limit(load("p", A, instructions)) is near
    expected = Status.FAILED if near else Status.PASSED
    assert judged(kernel(load("p", A, instructions)), "limit").status is expected


def test_a_rejected_program_is_not_near_the_limit() -> None:
    assert not near_limit(load("p", R, 1_000_000))


def test_a_kernel_that_crashed_keeps_its_status() -> None:
    crashed = replace(kernel(load("p", R)), status=Status.PANICKED)
    assert judged(crashed, "rejected").status is Status.PANICKED


def test_a_kernel_that_the_baseline_does_not_know_is_noted() -> None:
    found = judged(
        replace(kernel(load()), kernel="7.3", release="7.3.4"), "regressed", kept(load())
    )
    assert "knows nothing of 7.3.4" in found.note


@pytest.mark.parametrize("words", ["reject", "+x%", "+20", "", "rejected;regressed"])
def test_words_that_are_none_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="is not one of rejected, regressed, drift, limit"):
        FailOn.parse(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "is not a baseline"),
        ('{"schema": 1}', "is not a baseline"),
        ('{"schema": 2, "kernels": {}}', "schema 2, but this vmtest reads 1; upgrade vmtest"),
        ('{"schema": 0, "kernels": {}}', "schema 0, but this vmtest reads 1; write a new one"),
        ('{"schema": 1, "kernels": {"6": {"kernel": "6"}}}', "kernels.6.objects: field required"),
        ("\xff", "not JSON"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "b.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        verifier.load(file)
    assert said in str(caught.value)
    assert "--save FILE" in str(caught.value)


def test_a_baseline_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; write a new one with --save FILE"):
        verifier.load(tmp_path / "b.json")

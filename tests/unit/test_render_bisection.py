"""The words of a bisect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Conclusion, Point, Question, Seen, Standing
from vmtest.bisect.render import changelog, meaning, observed, opening, render, standing
from vmtest.bisect.search import Answer, Verdict

GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.SKIP
VERSIONS = ("6.12.90", "6.12.94", "6.12.95", "6.12.96", "6.16.3")
POINTS = tuple(Point(version, f"{version}-1", "trixie") for version in VERSIONS)


def one(verdict: Verdict, n: int, *facts: tuple[str, str]) -> Observation:
    return Observation(verdict, f"why {n}", facts, f"{VERSIONS[n]}-amd64", VERSIONS[n])


def words(answer: Answer, seen: Seen, *way: str, **changes: Any) -> str:
    question = Question({}, POINTS, **changes)
    commands = {answer.last: "vmtest run LAST", answer.first: "vmtest run FIRST"}
    return render(Conclusion(question, answer, seen, 3, way, 4), commands, "runs/x")


SEEN = {
    0: [one(GOOD, 0, ("x.o: p", "accepted, 812 instructions"), ("x.o: q", "accepted"))],
    2: [one(BAD, 2, ("x.o: p", "rejected (stack): too deep"), ("x.o: q", "accepted"))],
    4: [one(BAD, 4)],
}


def test_first_and_last_are_named_with_package_and_suite() -> None:
    said = words(Answer(0, 2, (1,)), {**SEEN, 1: [one(SKIP, 1)]})
    assert "last good: 6.12.90 (package 6.12.90-1, trixie)" in said
    assert "first seen bad: 6.12.95 (package 6.12.95-1, trixie)" in said


def test_a_range_names_the_kernels_that_could_not_tell_and_why() -> None:
    said = words(Answer(0, 2, (1,)), {**SEEN, 1: [one(SKIP, 1)]})
    assert "first bad: one of 6.12.94 to 6.12.95: 1 kernel between could not tell" in said
    assert "  6.12.94: skip: why 1" in said


def test_an_exact_answer_speaks_of_no_range() -> None:
    seen = {1: SEEN[0], 2: SEEN[2]}
    said = words(Answer(1, 2), seen)
    assert said.startswith("first bad: 6.12.95 (package")
    assert "could not tell" not in said


def test_flaky_is_named_as_such_with_every_verdict() -> None:
    flaky = [one(GOOD, 1), one(BAD, 1)]
    assert "  6.12.94: flaky: good 1 of 2, bad 1 of 2" in words(
        Answer(0, 2, (1,)), {**SEEN, 1: flaky}
    )


def test_what_could_not_tell_outside_of_the_answer_is_named_too() -> None:
    said = words(Answer(1, 2), {1: SEEN[0], 2: SEEN[2], 3: [one(SKIP, 3)]})
    assert "could not tell elsewhere: 6.12.96 (skip: why 3)" in said


def test_only_what_differs_stands_side_by_side() -> None:
    lines = words(Answer(0, 2), SEEN).splitlines()
    place = lines.index("what differs")
    assert lines[place + 1 : place + 5] == [
        "  x.o: p",
        "    6.12.90  accepted, 812 instructions",
        "    6.12.95  rejected (stack): too deep",
        "",
    ]


def test_without_facts_that_differ_the_reasons_stand_side_by_side() -> None:
    seen = {0: [one(GOOD, 0)], 2: [one(BAD, 2)]}
    lines = words(Answer(0, 2), seen).splitlines()
    place = lines.index("what differs")
    assert lines[place + 1 : place + 3] == ["  6.12.90  why 0", "  6.12.95  why 2"]


def test_each_end_has_its_command_and_its_logs() -> None:
    said = words(Answer(0, 2), SEEN)
    assert "  6.12.90 (good): vmtest run LAST" in said
    assert "  6.12.95 (bad): vmtest run FIRST" in said
    assert "  logs of 6.12.95: runs/x/6.12.95" in said


def test_looking_for_what_fixed_it_the_words_change_sides() -> None:
    said = words(Answer(0, 2), {0: [one(BAD, 0)], 2: [one(GOOD, 2)]}, find_fixed=True)
    assert said.startswith("first good: 6.12.95")
    assert "last bad: 6.12.90" in said


def test_what_was_never_booted_is_listed() -> None:
    assert words(Answer(0, 2), SEEN).splitlines()[-1] == (
        "3 of 5 kernels asked in 3 rounds; never booted: 6.12.94, 6.12.96"
    )


def test_a_contradiction_is_said() -> None:
    said = words(Answer(0, 2, contradictions=(3,)), {**SEEN, 3: [one(GOOD, 3)]})
    assert "contradiction: 6.12.96 behind it is good again" in said


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("gone", "released between them and no longer to be had: 6.12.93-1"),
        ("left_out", "between them and not in the cache"),
    ],
)
def test_versions_that_were_not_asked_are_named_where_the_answer_may_lie(
    which: str, said: str
) -> None:
    points = (Point("6.12.93-1", "6.12.93-1", "t"), Point("6.12.99-1", "6.12.99-1", "t"))
    text = words(Answer(0, 2), SEEN, **{which: points})
    assert said in text
    assert "6.12.99" not in text


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (("6.12.90-1", "6.12.90-2"), "both are of one upstream version"),
        (("6.12.90-1", "6.12.95-1"), "git log --oneline v6.12.90..v6.12.95"),
        (("6.12.90-1", "6.16.3-1~bpo13+1"), "git log --oneline v6.12..v6.16.3"),
    ],
)
def test_the_changelog_is_where_the_two_versions_differ(
    versions: tuple[str, str], said: str
) -> None:
    last, first = (Point(version, version, "s") for version in versions)
    lines = changelog(last, first, one(BAD, 0))
    assert f"down to {versions[0]}" in lines[0]
    assert "linux-image-6.12.90-amd64" in lines[0]
    assert said in " ".join(lines[1:])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("apt", ["`apt changelog linux-image-6.12.90-amd64`", "CONFIG_X in /boot/config-RELEASE"]),
        ("dnf", ["`rpm -qp --changelog` of its .rpm", "CONFIG_X in /lib/modules/RELEASE/config"]),
        ("oci", []),
        ("mainline", []),
    ],
)
def test_an_archives_own_tools_tell_what_its_packages_changed(table: str, said: list[str]) -> None:
    versions = ("6.12.90-1.el10", "6.12.95-1.el10")
    last, first = (Point(version, version, "s", table=table) for version in versions)
    lines = changelog(last, first, one(BAD, 0), "CONFIG_X")
    assert len(lines) == len(said) + 1 and "git log" in lines[-1]
    assert [part for part, line in zip(said, lines, strict=False) if part not in line] == []


def test_what_lies_between_two_packages_goes_by_the_order_of_their_archive() -> None:
    # To rpm a number is newer than letters, to dpkg older.
    last, gone, first = (
        Point(version, version, "s", table="dnf") for version in ("6.1-1.a", "6.1-1.1", "6.1-1.2")
    )
    question = Question({}, (last, first), gone=(gone,))
    seen = {0: SEEN[0], 1: SEEN[2]}
    said = render(Conclusion(question, Answer(0, 1), seen, 1, (), 1), {0: "", 1: ""}, "runs/x")
    assert "released between them and no longer to be had: 6.1-1.1" in said


@pytest.mark.parametrize(
    ("versions", "gone", "said"),
    [
        (
            ("6.18.15-1", "7.2.6-1"),
            "do_renameat2",
            "git log --oneline -S do_renameat2 v6.18..v7.2.6",
        ),
        (
            ("6.1.9-1", "6.1.20-1"),
            "bpf_iter__ksym",
            "log --oneline -S bpf_iter__ksym v6.1.9..v6.1.20",
        ),
        (
            ("6.18.15-1", "7.2.6-1"),
            "CONFIG_FPROBE",
            "git log --oneline -G '^config FPROBE$' v6.18..v7.2.6 -- '*Kconfig*'",
        ),
        (("6.1.9-1", "6.1.9-2"), "CONFIG_FPROBE", "CONFIG_FPROBE in /boot/config-RELEASE of both"),
    ],
)
def test_where_to_read_follows_what_is_gone(
    versions: tuple[str, str], gone: str, said: str
) -> None:
    last, first = (Point(version, version, "s") for version in versions)
    text = "\n".join(changelog(last, first, one(BAD, 0), gone))
    assert said in text
    assert "kernel/bpf" not in text


@pytest.mark.parametrize("lacking", [0, 2])
def test_what_is_gone_is_of_the_end_that_refuses(lacking: int) -> None:
    seen = {n: [replace(SEEN[n][0], gone="bpf_obj_new" if n == lacking else "")] for n in (0, 2)}
    assert "git log --oneline -S bpf_obj_new v6.12.90..v6.12.95" in words(Answer(0, 2), seen)


def test_a_resumed_bisect_says_how_much_is_known() -> None:
    said = opening("6.12.90", "6.16.3", "5 kernels, 2 at a time", "runs/x", 3)
    assert said == "6.12.90 to 6.16.3: 5 kernels, 2 at a time; runs/x; resumed, 3 of them known"
    assert opening("6.12.90", "6.16.3", "5 kernels", "runs/x", 0).endswith("; runs/x")


def test_a_round_says_what_is_known_what_runs_and_how_long_it_takes() -> None:
    now = Standing(3, (2,), last=0, first=4, rounds=2, between=3)
    assert standing(now, VERSIONS, False, 45.0, "5 kernels") == (
        "round 3: 6.12.95 (good 6.12.90, bad 6.16.3, 3 between; at most 2 rounds, about 1:30 min)"
    )


def test_the_round_of_the_ends_says_so() -> None:
    assert standing(Standing(1, (0, 4)), VERSIONS, False, 0.0, "5 kernels") == (
        "round 1: the ends, 6.12.90, 6.16.3, of 5 kernels"
    )


def test_an_observation_counts_its_repetitions() -> None:
    assert observed("6.1", 2, 3, one(BAD, 0)) == "6.1 (2 of 3): bad: why 0"


LOOKED_FOR = "t.py::test_x at t.py:7: failed: assert … == …"
PANIC = replace(one(BAD, 1), way=("WARNING in foo",))
FAILED = replace(one(BAD, 2), way=(LOOKED_FOR,))


def test_what_counts_as_bad_is_told_with_the_end_that_failed_so() -> None:
    said = words(Answer(0, 2), {**SEEN, 2: [FAILED]}, LOOKED_FOR)
    assert f"bad is what fails as 6.16.3: {LOOKED_FOR}" in said.splitlines()


def test_a_kernel_that_failed_another_way_is_named_with_how_and_how_often() -> None:
    said = words(Answer(0, 2, (1,)), {**SEEN, 1: [PANIC, PANIC]}, LOOKED_FOR)
    failed = "failed another way 2 of 2: WARNING in foo; it counts for neither side"
    assert f"  6.12.94: {failed}" in said.splitlines()
    assert "to count any failure as bad: --any-failure" in said
    elsewhere = words(Answer(1, 2), {1: SEEN[0], 2: [FAILED], 3: [PANIC, PANIC]}, LOOKED_FOR)
    assert f"could not tell elsewhere: 6.12.96 ({failed})" in elsewhere


def test_two_other_failures_are_named_one_after_the_other() -> None:
    second = replace(PANIC, way=("exit status 3",))
    said = words(Answer(0, 2, (1,)), {**SEEN, 1: [PANIC, second]}, LOOKED_FOR)
    assert "failed another way 2 of 2: WARNING in foo; then exit status 3;" in said


def test_the_answer_has_how_often_each_of_its_two_kernels_said_it() -> None:
    good = one(GOOD, 0)
    said = words(Answer(0, 2), {0: [good, good], 2: [PANIC, FAILED]}, LOOKED_FOR)
    observations = "6.12.90 good 2 of 2; 6.12.95 failed another way 1 of 2, bad 1 of 2"
    assert f"observed: {observations}" in said.splitlines()


def test_what_differs_is_of_the_observation_that_counts() -> None:
    failed = replace(FAILED, why="the assertion")
    said = words(Answer(0, 2), {0: [one(GOOD, 0)], 2: [PANIC, failed]}, LOOKED_FOR)
    assert "  6.12.95  the assertion" in said.splitlines()


def test_where_any_failure_counts_no_way_is_told() -> None:
    said = words(Answer(0, 2), {**SEEN, 2: [FAILED]}, any_failure=True)
    assert "bad is" not in said


def test_of_an_older_journal_it_is_told_that_any_failure_counted() -> None:
    said = words(Answer(0, 2), SEEN)
    assert "bad is any failure: how the bad end failed is not recorded" in said


def test_an_observation_of_another_failure_says_so() -> None:
    assert observed("6.1", 1, 1, PANIC, (LOOKED_FOR,)) == "6.1: failed another way: why 1"
    assert observed("6.1", 2, 1, PANIC, (LOOKED_FOR,)) == "6.1 (again): failed another way: why 1"
    assert observed("6.1", 1, 1, FAILED, (LOOKED_FOR,)) == "6.1: bad: why 2"


def test_many_failures_of_the_bad_end_are_the_first_and_a_number() -> None:
    assert (
        meaning(["a", "b", "c", "d"], "6.1") == "bad is what fails as 6.1: a; or b; or c; or 1 more"
    )

"""The end of a bisect over commits, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vmtest.bisect.commits import Commit, CommitRange
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Conclusion, Question
from vmtest.bisect.render import render_commits
from vmtest.bisect.search import Answer, Verdict

GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.SKIP


def commit(letter: str, subject: str) -> Commit:
    return Commit(letter * 40, "Ada Adams <ada@example.org>", "2026-03-01T10:00:00+01:00", subject)


OLD, NEW, CULPRIT, BROKEN = (
    commit("a", "the base"),
    commit("b", "the head"),
    commit("c", "cgroup: simplify"),
    commit("d", "filter: count"),
)


def outcome(answer: Answer, *, find_fixed: bool = False) -> Conclusion:
    points = tuple(one.point for one in (OLD, NEW, CULPRIT, BROKEN))
    seen = {
        0: [Observation(GOOD, "9 passed", (("test_it[ipv6]", "passed"),))],
        1: [Observation(BAD, "1 failed", (("test_it[ipv6]", "failed: 1 == 2"),))],
        2: [Observation(BAD, "1 failed", (("test_it[ipv6]", "failed: 1 == 2"),))],
        3: [Observation(SKIP, "does not build: a.c:1: error: no")],
    }
    return Conclusion(Question({}, points, find_fixed=find_fixed), answer, seen, 4)


def said(answer: Answer, *culprits: Commit, notes: tuple[str, ...] = ()) -> str:
    span = CommitRange(OLD, NEW, 11, notes)
    commands = {0: "vmtest bisect step linux --rev aaa", 2: "vmtest bisect step linux --rev ccc"}
    logs = {0: ["run/aaa/pytest.log"], 2: ["run/ccc/console.log", "run/ccc/pytest.log"]}
    return render_commits(outcome(answer), span, Path("/src/linux"), culprits, commands, logs)


def test_the_end_names_the_commit_its_author_and_what_was_good_before() -> None:
    assert said(Answer(0, 2), CULPRIT).splitlines()[:4] == [
        f"first bad: {'c' * 40}",
        "  cgroup: simplify",
        "  Ada Adams <ada@example.org>, 2026-03-01T10:00:00+01:00",
        'last good: aaaaaaaaaaaa "the base"',
    ]


def test_the_end_says_what_could_not_tell_and_why() -> None:
    text = said(Answer(0, 2), CULPRIT)
    assert '  dddddddddddd "filter: count": skip: does not build: a.c:1: error: no' in text


def test_the_end_shows_both_verdicts_side_by_side() -> None:
    lines = said(Answer(0, 2), CULPRIT).splitlines()
    start = lines.index("what differs")
    assert lines[start + 1 : start + 4] == [
        "  test_it[ipv6]",
        "    aaaaaaaaaaaa  passed",
        "    cccccccccccc  failed: 1 == 2",
    ]


def test_the_end_says_how_to_see_each_end_again_and_where_the_logs_are() -> None:
    text = said(Answer(0, 2), CULPRIT)
    assert f"  git -C /src/linux show {'c' * 40}" in text
    assert "  aaaaaaaaaaaa (good): vmtest bisect step linux --rev aaa" in text
    assert "  cccccccccccc (bad): vmtest bisect step linux --rev ccc" in text
    assert "  logs of cccccccccccc: run/ccc/console.log, run/ccc/pytest.log" in text
    assert "4 of 12 commits asked in 4 rounds" in text


def test_skipped_commits_beside_the_culprit_are_all_named() -> None:
    lines = said(Answer(0, 2, (3,)), BROKEN, CULPRIT).splitlines()
    assert lines[0].startswith("first bad: one of 2 commits")
    assert [line for line in lines if line in (f"  {'d' * 40}", f"  {'c' * 40}")] == [
        f"  {'d' * 40}",
        f"  {'c' * 40}",
    ]


def test_notes_are_repeated_at_the_end() -> None:
    assert said(Answer(0, 2), CULPRIT, notes=("it is dirty",)).endswith("note: it is dirty")


def test_a_commit_that_failed_another_way_is_named_with_how() -> None:
    panicked = Observation(BAD, "PANICKED", way=("WARNING in foo",))
    found = outcome(Answer(0, 2))
    seen = {**found.seen, 3: [panicked, panicked]}
    found = replace(found, seen=seen, way=("exit status 3",), bad=1)
    text = render_commits(
        found, CommitRange(OLD, NEW, 11), Path("linux"), [CULPRIT], {0: "", 2: ""}, {0: [], 2: []}
    )
    assert "bad is what fails as bbbbbbbbbbbb: exit status 3" in text.splitlines()
    assert 'd "filter: count": failed another way 2 of 2: WARNING in foo;' in text
    assert "observed: aaaaaaaaaaaa good 1 of 1; cccccccccccc bad 1 of 1" in text.splitlines()

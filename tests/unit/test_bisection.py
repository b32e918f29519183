"""The bisect's driver over kernels that only answer: ends, rounds, journal, resuming."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmtest.bisect.journal import JOURNAL, Journal, Recorded, begin, find_interrupted, read
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Conclusion, Point, Question, Standing
from vmtest.bisect.rounds import Told, Watch, bisect
from vmtest.bisect.search import Verdict
from vmtest.errors import InfrastructureError, UsageError

GOOD, BAD, SKIP, FLAKY = Verdict.GOOD, Verdict.BAD, Verdict.SKIP, Verdict.FLAKY
OTHER = Verdict.OTHER
Said = Verdict | str
"""What a kernel says: a verdict, or in words how it fails."""


def question(count: int, **changes: Any) -> Question:
    points = tuple(Point(f"6.{n}", f"6.{n}-1", "trixie") for n in range(count))
    return Question({"good": "a", "sha256": "1"}, points, **changes)


class Kernels:
    """Answers with ``verdicts``, one a point or, where it differs, one an attempt."""

    def __init__(self, *verdicts: Said | tuple[Said, ...], faulty: bool = False) -> None:
        self.verdicts = verdicts
        self.faulty = faulty
        self.asked: list[tuple[tuple[int, ...], int]] = []
        self.interrupt_before: int | None = None

    def __call__(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        self.asked.append((points, attempt))
        for n in points:
            if n == self.interrupt_before:
                raise KeyboardInterrupt
            verdict = self.verdicts[n]
            if isinstance(verdict, tuple):
                verdict = verdict[attempt - 1]
            why = f"it was {verdict}"
            way: tuple[str, ...] = ()
            if not isinstance(verdict, Verdict):
                way, verdict = (verdict,), BAD
            faulty = self.faulty and verdict is SKIP
            facts = (("test", why),)
            told(n, Observation(verdict, why, facts, "6-amd64", f"6.{n}", faulty, way=way))

    @property
    def order(self) -> list[int]:
        return [n for points, _ in self.asked for n in points]


class Run:
    """One project's runs folder; each bisect has a folder of its own there."""

    def __init__(self, runs: Path) -> None:
        self.folder = runs / "20260101T000000Z-abcdef"
        self.folder.mkdir(parents=True)
        self.standings: list[Standing] = []

    def __call__(
        self, asked: Question, kernels: Kernels, slots: int = 1, recorded: Recorded | None = None
    ) -> Conclusion:
        watch = Watch(self.standings.append, lambda place, attempt, one: None)
        with closing(Journal.open(self.folder)) as journal:
            if recorded is None:
                begin(journal, asked)
            return bisect(recorded or Recorded(asked), slots, kernels, journal, watch)

    @property
    def events(self) -> list[str]:
        lines = (self.folder / JOURNAL).read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_both_ends_are_asked_before_anything_else(run: Run) -> None:
    kernels = Kernels(*[GOOD] * 5, *[BAD] * 5)
    run(question(10), kernels)
    assert kernels.asked[0] == ((0, 9), 1)


def test_the_answer_is_found_and_no_kernel_is_asked_twice(run: Run) -> None:
    kernels = Kernels(*[GOOD] * 6, *[BAD] * 10)
    outcome = run(question(16), kernels)
    assert (outcome.answer.last, outcome.answer.first) == (5, 6)
    assert len(kernels.order) == len(set(kernels.order)) <= 2 + 4


def test_two_slots_ask_two_points_a_round(run: Run) -> None:
    kernels = Kernels(*[GOOD] * 6, *[BAD] * 10)
    outcome = run(question(16), kernels, slots=2)
    assert [len(points) for points, _ in kernels.asked[1:]] == [2, 2, 1]
    assert outcome.answer.first == 6


def test_what_fixed_it_is_found_from_bad_to_good(run: Run) -> None:
    outcome = run(question(6, find_fixed=True), Kernels(*[BAD] * 4, *[GOOD] * 2))
    assert (outcome.answer.last, outcome.answer.first) == (3, 4)


def test_a_kernel_that_cannot_tell_narrows_the_answer_to_a_range(run: Run) -> None:
    outcome = run(question(5), Kernels(GOOD, GOOD, SKIP, BAD, BAD))
    assert outcome.answer.between == (2,)
    assert outcome.verdicts[2] is SKIP


def test_a_kernel_that_disagrees_with_itself_is_flaky_and_is_not_gone_by(run: Run) -> None:
    kernels = Kernels(GOOD, (GOOD, BAD, GOOD), BAD)
    outcome = run(question(3, repeat=3), kernels)
    assert outcome.verdicts[1] is FLAKY
    assert outcome.answer.between == (1,)


def test_a_kernel_is_not_asked_again_once_it_has_disagreed(run: Run) -> None:
    kernels = Kernels(GOOD, (GOOD, BAD, GOOD), BAD)
    run(question(3, repeat=3), kernels)
    assert kernels.order.count(1) == 2


def test_each_kernel_is_asked_as_often_as_it_is_to_be_repeated(run: Run) -> None:
    kernels = Kernels(GOOD, GOOD, BAD)
    run(question(3, repeat=3), kernels)
    assert [kernels.order.count(n) for n in range(3)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((GOOD, GOOD), "both ends have the same verdict"),
        ((BAD, BAD), "both ends have the same verdict"),
        ((BAD, GOOD), "did you mean `find` fixed"),
        ((SKIP, BAD), "one end has no verdict"),
    ],
)
def test_ends_that_are_none_are_refused_with_what_each_said(
    run: Run, ends: tuple[Verdict, Verdict], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run(question(2), Kernels(*ends))
    assert said in str(caught.value)
    assert f"6.0: it was {ends[0]}\n6.1: it was {ends[1]}" in str(caught.value)


def test_refused_ends_leave_nothing_to_resume(run: Run) -> None:
    asked = question(2)
    with pytest.raises(UsageError):
        run(asked, Kernels(GOOD, GOOD))
    assert run.events[-1] == "error"
    with pytest.raises(UsageError, match="asked this and came to its end"):
        find_interrupted(run.folder.parent, asked.asked)


def test_an_end_that_the_machine_kept_from_telling_is_the_machines_fault(run: Run) -> None:
    said = r"6\.0: it was skip; a bisect needs a verdict from both ends"
    with pytest.raises(InfrastructureError, match=said):
        run(question(2), Kernels(SKIP, BAD, faulty=True))


def test_what_the_machine_kept_from_telling_is_asked_again_when_resumed(run: Run) -> None:
    asked = question(2)
    with pytest.raises(InfrastructureError):
        run(asked, Kernels(SKIP, BAD, faulty=True))
    kernels = Kernels(GOOD, BAD)
    run(asked, kernels, recorded=read(run.folder))
    assert kernels.order == [0]


@pytest.mark.parametrize("done", range(6))
def test_an_interrupted_bisect_is_resumed_without_repeating(run: Run, done: int) -> None:
    asked = question(16)
    whole = Kernels(*[GOOD] * 11, *[BAD] * 5)
    Run(run.folder / "other")(asked, whole)
    kernels = Kernels(*whole.verdicts)
    kernels.interrupt_before = whole.order[done]
    with pytest.raises(KeyboardInterrupt):
        run(asked, kernels)
    kernels.interrupt_before, kernels.asked = None, []
    outcome = run(asked, kernels, recorded=find_interrupted(run.folder.parent, asked.asked)[1])
    assert outcome.answer.first == 11
    assert kernels.order == whole.order[done:]


def test_a_repetition_goes_on_where_it_was_interrupted(run: Run) -> None:
    asked = question(3, repeat=2)
    kernels = Kernels(GOOD, GOOD, BAD)

    def interrupted(points: tuple[int, ...], attempt: int, told: Told) -> None:
        if attempt == 2 and 1 in points:
            raise KeyboardInterrupt
        kernels(points, attempt, told)

    with pytest.raises(KeyboardInterrupt):
        run(asked, interrupted)  # type: ignore[arg-type]  # a probe as good as Kernels
    kernels.asked = []
    run(asked, kernels, recorded=read(run.folder))
    assert kernels.asked == [((1,), 2)]


def test_every_step_is_in_the_journal_before_the_next_begins(run: Run) -> None:
    lengths: list[int] = []
    kernels = Kernels(*[GOOD] * 3, *[BAD] * 3)

    def probe(points: tuple[int, ...], attempt: int, told: Told) -> None:
        lengths.append(len(run.events))
        kernels(points, attempt, told)

    run(question(6), probe)  # type: ignore[arg-type]  # a probe as good as Kernels
    # question, round | 2 told, round | told, round ...
    assert lengths == [2, 5, 7, 9][: len(lengths)]
    assert len(lengths) >= 3


def test_a_line_that_was_cut_short_is_as_if_it_had_not_been_begun(run: Run) -> None:
    asked = question(3)
    kernels = Kernels(GOOD, GOOD, BAD)
    kernels.interrupt_before = 1
    with pytest.raises(KeyboardInterrupt):
        run(asked, kernels)
    short = '{"event": "told", "kern'
    with (run.folder / JOURNAL).open("a") as file:
        file.write(short)
    kernels.interrupt_before, kernels.asked = None, []
    assert run(asked, kernels, recorded=read(run.folder)).answer.first == 2
    assert kernels.order == [1]
    lines = (run.folder / JOURNAL).read_text().splitlines()
    assert [line for line in lines if not line.endswith("}")] == [short]


def test_a_round_that_was_interrupted_before_it_told_anything_is_not_counted_twice(
    run: Run,
) -> None:
    asked = question(3)
    kernels = Kernels(GOOD, GOOD, BAD)
    kernels.interrupt_before = 1
    with pytest.raises(KeyboardInterrupt):
        run(asked, kernels)
    kernels.interrupt_before = None
    assert run(asked, kernels, recorded=read(run.folder)).rounds == 2


def test_another_question_is_not_resumed_and_says_what_differs(run: Run) -> None:
    asked = question(3)
    kernels = Kernels(GOOD, GOOD, BAD)
    kernels.interrupt_before = 1
    with pytest.raises(KeyboardInterrupt):
        run(asked, kernels)
    with pytest.raises(UsageError, match=f"{run.folder.name} differs in sha256"):
        find_interrupted(run.folder.parent, {"good": "a", "sha256": "2"})


def test_a_bisect_that_still_runs_is_not_resumed(run: Run) -> None:
    with (
        closing(Journal.open(run.folder)),
        pytest.raises(UsageError, match="still running"),
    ):
        Journal.open(run.folder)


def test_rounds_tell_between_what_the_change_lies(run: Run) -> None:
    run(question(4), Kernels(GOOD, GOOD, BAD, BAD))
    assert run.standings[0] == Standing(1, (0, 3))
    assert run.standings[1] == Standing(2, (2,), last=0, first=3, rounds=2, between=2)
    assert run.standings[2] == Standing(3, (1,), last=0, first=2, rounds=1, between=1)


def test_what_was_never_booted_is_known(run: Run) -> None:
    outcome = run(question(16), Kernels(*[GOOD] * 6, *[BAD] * 10))
    asked = set(outcome.seen)
    assert {point.name for point in outcome.unasked} == {f"6.{n}" for n in range(16)} - {
        f"6.{n}" for n in asked
    }
    assert outcome.unasked


def test_only_what_fails_as_the_bad_end_is_bad(run: Run) -> None:
    kernels = Kernels(GOOD, GOOD, "WARNING in foo", GOOD, GOOD, "3 == 4", "3 == 4")
    outcome = run(question(7), kernels)
    assert (outcome.answer.last, outcome.answer.first) == (4, 5)
    assert outcome.way == ("3 == 4",)


def test_the_way_that_fixed_it_is_that_of_the_older_end(run: Run) -> None:
    kernels = Kernels("3 == 4", "3 == 4", "panic", GOOD, GOOD)
    outcome = run(question(5, find_fixed=True), kernels)
    assert (outcome.answer.last, outcome.answer.between, outcome.answer.first) == (1, (2,), 3)


def test_a_kernel_that_fails_another_way_is_asked_once_more(run: Run) -> None:
    kernels = Kernels(GOOD, ("panic", "panic"), "3 == 4")
    outcome = run(question(3), kernels)
    assert kernels.order == [0, 2, 1, 1]
    assert (outcome.verdicts[1], outcome.answer.between) == (OTHER, (1,))


@pytest.mark.parametrize(
    ("second", "answer", "verdict"), [("3 == 4", (0, 1), BAD), (GOOD, (1, 2), GOOD)]
)
def test_what_it_says_the_second_time_counts(
    run: Run, second: Said, answer: tuple[int, int], verdict: Verdict
) -> None:
    outcome = run(question(3), Kernels(GOOD, ("panic", second), "3 == 4"))
    assert (outcome.answer.last, outcome.answer.first) == answer
    assert outcome.verdicts[1] is verdict


def test_a_kernel_that_is_repeated_anyway_is_not_asked_more_often(run: Run) -> None:
    kernels = Kernels(GOOD, ("panic",) * 4, "3 == 4")
    run(question(3, repeat=3), kernels)
    assert kernels.order.count(1) == 3


def test_any_failure_counts_where_that_is_asked(run: Run) -> None:
    kernels = Kernels(GOOD, "panic", "3 == 4")
    outcome = run(question(3, any_failure=True), kernels)
    assert (outcome.answer.last, outcome.answer.first, outcome.way) == (0, 1, ())
    assert kernels.order == [0, 2, 1]


def test_an_end_that_fails_another_way_is_refused_with_both_ways(run: Run) -> None:
    kernels = Kernels(("panic", "panic"), "3 == 4")
    with pytest.raises(UsageError, match=r"6\.0 failed another way and 6\.1 is bad") as caught:
        run(question(2), kernels)
    assert "bad is what fails as 6.1: 3 == 4\n`any_failure` counts" in str(caught.value)
    assert kernels.asked == [((0, 1), 1), ((0,), 2)]


@pytest.mark.parametrize("done", range(5))
def test_a_resumed_bisect_keeps_its_way(run: Run, done: int) -> None:
    asked = question(6)
    kernels = Kernels(GOOD, GOOD, ("panic", "panic"), ("panic", "3 == 4"), "3 == 4", "3 == 4")
    left = [done]

    def interrupted(points: tuple[int, ...], attempt: int, told: Told) -> None:
        for n in points:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            kernels((n,), attempt, told)

    with pytest.raises(KeyboardInterrupt):
        run(asked, interrupted)  # type: ignore[arg-type]  # a probe as good as Kernels
    outcome = run(asked, kernels, recorded=read(run.folder))
    assert outcome.way == ("3 == 4",)
    assert (outcome.answer.last, outcome.answer.between, outcome.answer.first) == (1, (2,), 3)


def test_a_journal_of_an_older_version_goes_on_by_its_own_rule(run: Run) -> None:
    asked = question(4)
    kernels = Kernels(GOOD, "panic", "panic", "3 == 4")
    kernels.interrupt_before = 1
    with pytest.raises(KeyboardInterrupt):
        run(asked, kernels)
    file = run.folder / JOURNAL
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line.pop("any_failure", None)
        for name in ("way", "beside"):
            line.get("observation", {}).pop(name, None)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    kernels.interrupt_before = None
    outcome = run(asked, kernels, recorded=find_interrupted(run.folder.parent, asked.asked)[1])
    assert (outcome.answer.first, outcome.verdicts[1], outcome.way) == (1, BAD, ())


def test_one_that_runs_meanwhile_is_not_the_one_to_resume(run: Run) -> None:
    asked = question(3)
    interrupted = Kernels(GOOD, GOOD, BAD)
    interrupted.interrupt_before = 1
    with pytest.raises(KeyboardInterrupt):
        run(asked, interrupted)
    runs = run.folder.parent
    later = runs / "20260102T000000Z-abcdef"
    later.mkdir()
    with closing(Journal.open(later)) as journal:
        begin(journal, asked)
        assert find_interrupted(runs, asked.asked)[0] == run.folder
        (run.folder / JOURNAL).unlink()
        assert find_interrupted(runs, asked.asked)[0] == later  # whose journal nobody else opens


def test_a_question_that_counted_any_failure_is_another_one(run: Run) -> None:
    asked = question(3)
    asked = replace(asked, asked={**asked.asked, "any_failure": True}, any_failure=True)
    kernels = Kernels(GOOD, GOOD, BAD)
    kernels.interrupt_before = 1
    with pytest.raises(KeyboardInterrupt):
        run(asked, kernels)
    with pytest.raises(UsageError, match="differs in any_failure"):
        find_interrupted(run.folder.parent, question(3).asked)

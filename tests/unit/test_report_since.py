"""Since when a cause is there: from the runs before, on the card and at the head of the page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from histories import day, run_of

from vmtest.model.loads import Change, ChangeKind, LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report.causes import Cause, causes
from vmtest.report.html.page import Memory, render
from vmtest.report.html.since import Earlier, Part, Since, against_baseline
from vmtest.runs.past import Past, past_of


def run(n: int) -> str:
    return f"run 202611{n:02d}T000000Z-abcdef of 2026-11-{n:02d} 00:00, commit {n:040}"[:-28]


def words(parts: tuple[Part, ...]) -> str:
    return "".join(text for text, _ in parts)


def history_of(*letters: str, test: str = "a", branch: str = "main") -> list[Past]:
    return [day(n, run_of({test: both}), branch) for n, both in enumerate(letters, 1)]


def since(runs: list[Past], now: Matrix, place: int = 0) -> Since | None:
    earlier = Earlier((*runs, day(29, now)), {})
    return earlier.of(causes(now)[place])


@pytest.mark.parametrize(
    ("letters", "word", "told"),
    [
        (("PP", "PP"), "new", f"New. It passed in {run(2)}."),
        (("PP", "PF"), "since 2026-11-02", f"Failing since {run(2)}."),
        (("PP", "PF", "PF"), "since 2026-11-02", f"Failing since {run(2)}."),
        (("PF", "PF"), "since 2026-11-01", f"Failing since {run(1)}, the oldest that is kept."),
        (("PP", "PF", "P-", "Ps"), "since 2026-11-02", f"Failing since {run(2)}."),
        (("PP", "P ", "P-"), "new", f"New. It passed in {run(1)}."),
        (("Px", "Px"), "since 2026-11-01", f"Failing since {run(1)}, the oldest that is kept."),
        (
            ("P ", "P-"),
            "first seen",
            "First seen: none of the 2 earlier runs on this branch has a result of it.",
        ),
    ],
    ids=["new", "once", "twice", "always", "with gaps", "new after gaps", "known", "unseen"],
)
def test_a_card_says_since_when(letters: tuple[str, ...], word: str, told: str) -> None:
    found = since(history_of(*letters), run_of({"a": "PF"}))
    assert found is not None
    assert (found.word, words(found.told)) == (word, told)


def test_results_of_one_cause_may_be_of_different_ages() -> None:
    found = since(history_of("PP", "FP"), run_of({"a": "FF"}))
    assert found is not None
    assert found.word == "1 of 2 new"
    told = f"1 of 2 results new, which passed in {run(2)}. 1 of 2 failing since {run(2)}."
    assert words(found.told) == told


def test_a_test_that_passes_though_known_to_fail_is_new_where_it_failed_before() -> None:
    found = since(history_of("PP", "Px"), run_of({"a": "PX"}))
    assert found is not None
    assert words(found.told) == f"New. It did not pass in {run(2)}."


def test_only_runs_on_the_same_branch_count() -> None:
    runs = [*history_of("PP"), *history_of("PF", branch="topic")]
    found = since(runs, run_of({"a": "PF"}))
    assert found is not None
    assert found.word == "new"
    assert since(history_of("PP", branch="topic"), run_of({"a": "PF"})) is None


def kernel(status: Status, **more: object) -> Matrix:
    of = KernelResult("6.12", status, reason="it is so", **more)  # type: ignore[arg-type]
    return replace(run_of({"a": "P"}, kernels=("6.12",)), kernels=(of,))


def test_a_kernel_that_panics_is_new_where_it_only_failed_before() -> None:
    before = day(1, run_of({"a": "F"}, kernels=("6.12",)))
    found = since([before], kernel(Status.PANICKED))
    assert found is not None
    assert words(found.told) == f"New. It was not so in {run(1)}."


def test_a_kernel_that_a_new_test_panics_is_not_new_but_first_seen() -> None:
    lost = TestResult("t.py::b", "s", Outcome.LOST)
    now = kernel(Status.PANICKED, tests=(lost,))
    found = since([day(1, run_of({"a": "P"}, kernels=("6.12",)))], now)
    assert found is not None and found.word == "first seen"
    found = since([day(1, run_of({"b": "P"}, kernels=("6.12",)))], now)
    assert found is not None and found.word == "new"


def test_a_kernel_that_panicked_before_is_there_since_then() -> None:
    ran = TestResult("t.py::a", "s", Outcome.PASSED)
    runs = [day(n, kernel(Status.PANICKED, tests=(ran,))) for n in (1, 2)]
    found = since(runs, kernel(Status.PANICKED))
    assert found is not None
    assert words(found.told) == f"There since {run(1)}, the oldest that is kept."


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (Status.PASSED, f"New. It was not so in {run(1)}."),
        (Status.SPLAT, f"There since {run(1)}, the oldest that is kept."),
        (Status.FAILED, None),
    ],
)
def test_a_complaint_of_a_kernel_that_was_judged_otherwise(before: Status, told: str) -> None:
    """An earlier run remembers how a kernel ended, not what it complained of."""
    now = run_of({"a": "F"}, kernels=("6.12",))
    now = replace(now, kernels=(replace(now.kernels[0], splats=("BUG: x",)),))
    (complaint,) = (cause for cause in causes(now) if not cause.tests)
    ran = TestResult("t.py::a", "s", Outcome.PASSED)
    found = Earlier((day(1, kernel(before, tests=(ran,))), day(2, now)), {}).of(complaint)
    assert (found and words(found.told)) == told


def head(runs: list[Past], now: Matrix, branch: str = "main") -> str:
    return words(Earlier((*runs, day(29, now, branch)), {}).head(causes(now)))


def test_the_head_counts_what_is_new_since_the_last_run_that_passed() -> None:
    runs = [day(1, run_of({"a": "PP"})), day(2, run_of({"a": "PF"}))]
    told = head(runs, run_of({"a": "FF", "b": "PF"}))
    assert told == (
        f"2 results in 1 cause are new since {run(1)}, the last on branch main that passed. "
        "1 result of now is not in it."
    )


def test_the_head_takes_the_run_before_where_none_passed() -> None:
    told = head(history_of("FP", "PF"), run_of({"a": "PF"}))
    assert told == (
        f"Nothing is new since {run(2)}, the one before on branch main (none of the 2 kept passed)."
    )


def test_the_head_says_that_there_is_nothing_to_compare_with() -> None:
    told = head(history_of("PP", branch="topic"), run_of({"a": "PF"}))
    assert told == "Since when: the history has no earlier run on main to compare with."


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("a" * 40, "b" * 40, f"git log --oneline {'a' * 12}..{'b' * 12}"),
        ("a" * 40, "a" * 40, ""),
        ("", "b" * 40, ""),
        ("$(reboot)", "b" * 40, ""),
    ],
)
def test_the_commits_since_then_are_a_command_away(old: str, new: str, told: str) -> None:
    runs = (
        replace(history_of("PP")[0], commit=old),
        replace(day(2, run_of({"a": "PF"})), commit=new),
    )
    assert Earlier(runs, {}).changes() == told
    page = render(run_of({"a": "PF"}), Memory(runs=runs))
    assert ("git log" in page) == bool(told)


def test_a_kernel_that_failed_as_a_whole_before_need_not_have_failed_so() -> None:
    """Its reason is not remembered: what a verify's limits say may be another thing each time."""
    ran = TestResult("t.py::a", "s", Outcome.PASSED)
    before, now = (kernel(Status.FAILED, tests=(ran,)) for _ in range(2))
    assert since([day(1, before)], now) is None
    assert head([day(1, before)], now).startswith("Nothing is known to be new since ")
    passed = kernel(Status.PASSED, tests=(ran,))
    found = since([day(1, passed)], now)
    assert found is not None
    assert words(found.told) == f"New. It was not so in {run(1)}."


def test_a_run_without_a_cause_has_no_since_at_its_head() -> None:
    assert head(history_of("PP"), run_of({"a": "PP"})) == ""


def test_the_page_has_both_with_a_link_to_the_run() -> None:
    now = run_of({"a": "PF"})
    runs = (*history_of("PP", "PF"), day(29, now))
    page = render(now, Memory(runs=runs, pages={run.run: f"../{run.run}.html" for run in runs}))
    one, two = (f'<a href="../{run.run}.html">run {run.run}</a>' for run in runs[:2])
    assert f"1 result in 1 cause is new since {one}" in page[: page.index("</header>")]
    card = page[page.index('class="card"') : page.index("</article>")]
    assert f"Failing since {two}" in card


@pytest.mark.parametrize(("letters", "there"), [(("PP",), False), (("PP", "P "), True)])
def test_a_card_does_not_repeat_the_sentence_of_the_head(
    letters: tuple[str, ...], there: bool
) -> None:
    """The badge has it; it is told where the test passed in another run than the head names."""
    now = run_of({"a": "PF"})
    page = render(now, Memory(runs=(*history_of(*letters), day(29, now))))
    card = page[page.index('class="card"') : page.index("</article>")]
    assert bool(re.search(r'<p class="hint">\s*New\. It passed', card)) == there
    assert f'<span class="mark bad" title="New. It passed in {run(1)}.">new</span>' in card


def refused(*kinds: ChangeKind) -> Cause:
    load = LoadResult("x.o", "p", Verdict.REJECTED)
    changes = tuple(
        Change("x.o", "p", kind, Verdict.ACCEPTED, Verdict.REJECTED, since="6.12.8")
        for kind in kinds
    )
    of = KernelResult("6.12", Status.FAILED, loads=(load,), changes=changes)
    return causes(replace(run_of({}), kernels=(of,)))[0]


def test_a_refused_program_says_what_it_was_in_the_baseline() -> None:
    told = against_baseline(refused(ChangeKind.REGRESSED))
    assert told == "Against the baseline (6.12.8): 1 regressed."
    assert against_baseline(refused()) == ""


def test_a_program_has_its_age_as_well() -> None:
    load = LoadResult("x.o", "p", Verdict.ACCEPTED)
    of = KernelResult("6.12", Status.PASSED, loads=(load,))
    old = replace(run_of({}), kernels=(of,))
    bad = replace(of, status=Status.FAILED, loads=(replace(load, verdict=Verdict.REJECTED),))
    now = replace(old, kernels=(bad,))
    found = Earlier((past_of(old, {}), past_of(now, {})), {}).of(causes(now)[0])
    assert found is not None
    assert words(found.told).startswith("New. It was accepted in run r of ")

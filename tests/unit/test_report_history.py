"""The history on a run's page: squares, flips and costs, as values and as text of the page."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import histories
import pages
import pytest
from histories import day, run_of

from vmtest.api.page import PAGE
from vmtest.model.results import Status
from vmtest.report.html.history import Flaky, History, history
from vmtest.report.html.page import Memory, render
from vmtest.report.html.spark import spark
from vmtest.runs.past import HISTORY, Past, past_of


def of(*runs: Past) -> History:
    found = history(runs, {})
    assert found is not None
    return found


def days(*letters: str, test: str = "a") -> list[Past]:
    """A run a day of one test on 5.10 and 6.12."""
    return [day(n, run_of({test: both})) for n, both in enumerate(letters, 1)]


def flips(*letters: str) -> list[tuple[tuple[str, ...], int]]:
    return [(one.kernels, one.flips) for one in of(*days(*letters)).flaky]


def test_one_run_is_no_history() -> None:
    assert history(days("PP"), {}) is None


def test_a_square_says_whether_all_kernels_failed_or_some() -> None:
    found = of(*days("PP", "FP", "FE", "  ", "fP", "ss", "xP", "xx", "--", "nc", "PP"))
    drawn = found.squares([("s", "t.py::a"), ("s", "t.py::other")])
    assert drawn["rows"] == [["PMF fsPx-sP", {1: 0}], [""]]
    assert drawn["mixed"] == ["FP"]


def test_only_kernels_of_this_run_count() -> None:
    old = day(1, run_of({"a": "FPP"}, kernels=("4.19", "6.12", "5.10")))
    found = of(old, day(2, run_of({"a": "PF"})))
    assert found.tests["s", "t.py::a"] == ("PP", "PF")
    assert [name for name, _ in found.kernels] == ["5.10", "6.12"]


def test_a_kernel_has_a_square_for_its_status() -> None:
    found = of(day(1, run_of({"a": "P"}, kernels=("6.12",))), day(2, run_of({"a": "FP"})))
    cells = {name: [cell.title for cell in cells] for name, cells in found.kernels}
    assert cells == {"5.10": ["not in this run", "FAILED"], "6.12": ["PASSED", "PASSED"]}


def test_the_signs_of_the_kernels_have_a_legend() -> None:
    matrix = run_of({"a": "P"}, kernels=("6.12",))
    ended = [
        day(n, replace(matrix, kernels=(replace(matrix.kernels[0], status=status),)))
        for n, status in enumerate((Status.PASSED, Status.PANICKED, Status.BOOT_FAILED), 1)
    ]
    assert of(*ended).legend == "B: BOOT_FAILED, P: PANICKED"
    assert "B: BOOT_FAILED, P: PANICKED." in render(matrix, Memory(runs=tuple(ended)))


def test_the_empty_square_of_a_kernel_has_a_legend() -> None:
    one = day(1, run_of({"a": "P"}, kernels=("6.12",)))
    assert of(one, *days("PP")).legend == "empty: not in that run"


LEGENDS = [
    (("PP", "P-"), "✓: passed on at least one kernel, failed on none"),
    (("F-", "F "), "F: failed on every kernel that ran it"),
    (("FP", "Fs"), "±: failed on some kernels, not on others"),
    (("  ", "--"), "-: not run. empty: not in that run on these kernels"),
]


@pytest.mark.parametrize(("letters", "told"), LEGENDS)
def test_each_sign_of_a_test_that_is_there_has_a_legend(
    letters: tuple[str, ...], told: str
) -> None:
    assert of(*days(*letters)).legend_of_tests == told
    page = render(run_of({"a": letters[-1]}), Memory(runs=tuple(days(*letters))))
    assert f"{told}. A kernel that did not reach a test does not count." in page


@pytest.mark.parametrize(
    ("letters", "found"),
    [
        (("PP", "PF", "PP"), [(("6.12",), 2)]),
        (("FP", "PF", "FP"), [(("5.10", "6.12"), 2)]),
        (("PP", "PF", "P-", "Ps", "P ", "PP"), [(("6.12",), 2)]),
        (("PX", "Px", "PX"), [(("6.12",), 2)]),
        (("PP", "PL", "PP"), [(("6.12",), 2)]),
        (("FP", "PP", "PP"), []),
        (("FF", "xx", "FF"), []),
        (("PP", "ss", "PP"), []),
    ],
    ids=["one", "both", "gaps", "known", "lost", "fixed once", "known later", "skipped"],
)
def test_flips_are_counted_on_the_kernel_that_has_most(
    letters: tuple[str, ...], found: list[tuple[tuple[str, ...], int]]
) -> None:
    assert flips(*letters) == found


def test_a_test_that_passed_only_when_repeated_is_flaky() -> None:
    (one,) = of(*days("PP", "Pf", "PP")).flaky
    assert one == Flaky(("s", "t.py::a"), ("6.12",), 0, 0, 1)


def test_a_flip_is_one_between_runs_of_the_same_branch() -> None:
    good, bad = run_of({"a": "PP"}), run_of({"a": "FF"})
    runs = [day(n, bad if n % 2 else good, branch="topic" if n % 2 else "main") for n in range(6)]
    assert of(*runs).flaky == ()


def test_one_flip_at_the_same_commit_is_enough() -> None:
    same = "c" * 40
    runs = [day(1, run_of({"a": "PP"}), commit=same), day(2, run_of({"a": "PF"}), commit=same)]
    assert [(one.flips, one.same) for one in of(*runs).flaky] == [(1, 1)]


def test_those_that_flip_most_come_first() -> None:
    runs = [
        day(n, run_of({"a": "P" + "PF"[n in (2, 3)], "b": "P" + "PF"[n % 2]})) for n in range(6)
    ]
    assert [one.test[1] for one in of(*runs).flaky] == ["t.py::b", "t.py::a"]


def test_a_program_has_its_cost_in_each_run_on_its_dearest_kernel() -> None:
    runs = [day(n, run_of({}, cost=cost)) for n, cost in enumerate((40, -1, 50), 1)]
    (price,) = of(*runs).prices
    assert (price.kernel, price.first, price.now, price.percent) == ("6.12", 80, 100, 25.0)
    assert price.spark.path.count("M") == 2  # a gap where it was refused


def test_a_line_goes_from_left_to_right_and_up_with_the_numbers() -> None:
    drawn = spark([10, 20, None, 15])
    assert re.findall(r"[ML]([\d.]+) ([\d.]+)", drawn.path) == [
        ("4.0", "20.0"),
        ("54.7", "4.0"),
        ("156.0", "12.0"),
    ]
    assert drawn.text == "10 to 15 instructions, least 10, most 20"


def test_the_page_in_a_runs_folder_has_the_runs_before_it_with_links(tmp_path: Path) -> None:
    histories.leave(tmp_path, 1, run_of({"a": "PP"}))
    histories.leave(tmp_path, 2, run_of({"a": "PP"}), page=False)
    last = histories.leave(tmp_path, 3, run_of({"a": "PF"}))
    page = (last.path / PAGE).read_text()
    assert re.findall(r'href="(\.\./[^"]*)"', page) == ["../20261101T000000Z-abcdef/report.html"]
    heads = page[page.index('id="history"') :]
    assert re.findall(r"11-\d\d 00:00", heads)[:3] == ["11-01 00:00", "11-02 00:00", "11-03 00:00"]
    assert (last.path / HISTORY).exists()
    assert f'"within":"{last.path.name}"' in page


def test_a_first_run_has_no_section_for_its_history(tmp_path: Path) -> None:
    folder = histories.leave(tmp_path, 1, run_of({"a": "PP"}))
    assert 'id="history"' not in (folder.path / PAGE).read_text()


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_nothing_that_an_earlier_run_names_is_anything_but_text(text: str) -> None:
    matrix = pages.hostile(text)
    facts = {"project": {"branch": text, "commit": text}}
    runs = (past_of(matrix, facts),) * 3
    page = render(matrix, Memory(runs=runs))
    plain = render(pages.three(), Memory(runs=(past_of(pages.three(), {}),) * 3))
    assert 'id="history"' in page
    for tag in ("<script", "</script", "<style", "<img", "<dialog", "<!--"):
        assert page.count(tag) == plain.count(tag), tag
    assert not re.search(r"""<[^>]*\son\w+=["']?window""", page)
    links = [unescape(link) for link in re.findall(r'\b(?:href|src)="([^"]*)"', page)]
    assert [link for link in links if not link.startswith("#")] == []


def test_twenty_big_runs_stay_below_five_megabytes() -> None:
    matrix = pages.big()
    runs = tuple(past_of(matrix, {}) for _ in range(20))
    assert len(render(matrix, Memory(runs=runs)).encode()) < 5_000_000

"""A bisect on its run's page: a line of kernels by round, from its journal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import histories
import pages
import pytest

from vmtest.api.bisect import leaving_page
from vmtest.api.page import PAGE, bisection_of, page_of
from vmtest.api.site import write_site
from vmtest.bisect.journal import JOURNAL, Journal, Recorded, begin
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Point, Question
from vmtest.bisect.rounds import Told, Watch, bisect
from vmtest.bisect.search import Verdict
from vmtest.report.html.bisection import Bisection, Stop, line
from vmtest.report.html.page import Memory, render
from vmtest.runs.folder import RunFolder

GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.SKIP
SILENT = Watch(lambda standing: None, lambda place, attempt, one: None)


def search(folder: Path, verdicts: Sequence[Verdict], until: int = 99) -> None:
    """A bisect over 6.0, 6.1, ..., which is interrupted after ``until`` kernels."""
    points = tuple(Point(f"6.{n}", f"6.{n}-1") for n in range(len(verdicts)))
    asked: list[int] = []

    def ask(places: tuple[int, ...], attempt: int, told: Told) -> None:
        for n in places:
            if len(asked) == until:
                raise KeyboardInterrupt
            asked.append(n)
            told(n, Observation(verdicts[n], f"it was {verdicts[n]}"))

    question = Question({}, points)
    with closing(Journal.open(folder)) as journal, suppress(KeyboardInterrupt):
        begin(journal, question)
        bisect(Recorded(question), 1, ask, journal, SILENT)


def drawn(found: Bisection | None) -> list[str]:
    """The rows of the line, a sign a column."""
    assert found is not None
    return ["".join(cell.sign or "." for cell in cells) for _, cells in line(found).rows]


def test_the_line_narrows_from_round_to_round_to_the_answer(tmp_path: Path) -> None:
    search(tmp_path, [GOOD] * 5 + [BAD] * 4)
    found = bisection_of(tmp_path)
    assert found is not None
    assert drawn(found) == ["✓.....F", "..✓....", "....F..", "...F...", "..▲▲..."]
    assert found.words == "first bad: 6.5, last good: 6.4; 5 of 9 kernels asked"


def test_neighbours_that_were_not_asked_share_a_column(tmp_path: Path) -> None:
    search(tmp_path, [GOOD] * 5 + [BAD] * 4)
    found = bisection_of(tmp_path)
    assert found is not None
    assert line(found).heads == ("6.0", "3 more", "6.4", "6.5", "6.6", "6.7", "6.8")


def test_an_interrupted_bisect_has_its_line_without_an_answer(tmp_path: Path) -> None:
    search(tmp_path, [GOOD] * 5 + [BAD] * 4, until=2)
    found = bisection_of(tmp_path)
    assert found is not None
    assert found.words == "2 of 9 kernels asked, without an answer so far"


def test_a_kernel_that_could_not_tell_has_a_sign_of_its_own() -> None:
    found = Bisection((Stop("a", "good", 1), Stop("b", "skip", 2, "no boot"), Stop("c", "bad", 1)))
    assert drawn(found) == ["✓.F", ".?."]
    assert line(found).rows[1][1][1].title == "skip: no boot"


def test_a_kernel_that_failed_another_way_is_told_from_a_bad_one(tmp_path: Path) -> None:
    ways = [(), (), ("WARNING in foo",), ("3 == 4",)]
    question = Question({}, tuple(Point(f"6.{n}", f"6.{n}-1") for n in range(4)))
    with closing(Journal.open(tmp_path)) as journal:
        begin(journal, question)

        def ask(places: tuple[int, ...], attempt: int, told: Told) -> None:
            for n in places:
                told(n, Observation(BAD if ways[n] else GOOD, "why", way=ways[n]))

        bisect(Recorded(question), 1, ask, journal, SILENT)
    found = bisection_of(tmp_path)
    assert found is not None
    assert [stop.verdict for stop in found.stops] == ["good", "good", "other", "bad"]
    assert line(found).rows[1][1][2].title == "failed another way: why"


def test_a_run_without_a_journal_is_not_a_bisect(tmp_path: Path) -> None:
    assert bisection_of(tmp_path) is None


def test_a_damaged_journal_costs_its_lines_only(tmp_path: Path) -> None:
    search(tmp_path, [GOOD, GOOD, BAD])
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    damaged = [json.dumps({"event": "round", "number": "x", "points": 3}), "{", *lines[1:]]
    (tmp_path / JOURNAL).write_text("\n".join([lines[0], *damaged]))
    found = bisection_of(tmp_path)
    assert found is not None
    assert found.first == "6.2"


def test_the_page_of_a_bisect_has_its_line(tmp_path: Path) -> None:
    search(tmp_path, [GOOD, GOOD, BAD])
    page = page_of(pages.three(), tmp_path)
    assert "first bad: 6.2, last good: 6.1; 3 of 3 kernels asked" in page
    assert 'id="bisect"' not in page_of(pages.three(), tmp_path / "none")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_bisect_leaves_its_page_however_it_ends(
    error: type[BaseException] | None, tmp_path: Path
) -> None:
    folder = histories.leave(tmp_path, 1, histories.run_of({"a": "PF"}), page=False)
    with suppress(KeyboardInterrupt), leaving_page(folder, lambda event: None):
        if error is not None:
            raise error
    assert (folder.path / PAGE).is_file()


def test_a_bisect_that_asked_nothing_leaves_no_page(tmp_path: Path) -> None:
    with leaving_page(RunFolder(tmp_path), lambda event: None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_bisect_is_not_the_front_page_of_a_site(tmp_path: Path) -> None:
    matrix = histories.run_of({"a": "PP"})
    folders = [histories.leave(tmp_path, n, matrix) for n in (1, 2)]
    search(folders[1].path, [GOOD, BAD])
    done = write_site(folders, tmp_path / "public", strict=True)
    assert done.newest == folders[0].name
    page = (tmp_path / "public" / "runs" / f"{folders[1].name}.html").read_text()
    assert "first bad: 6.1" in page


@pytest.mark.parametrize("text", pages.HOSTILE, ids=range(len(pages.HOSTILE)))
def test_what_a_kernel_says_is_text(text: str) -> None:
    stops = (Stop(text, "good", 1, text, text), Stop(f"{text}2", "bad", 1, text, text))
    page = render(pages.three(), Memory(bisected=Bisection(stops, stops[1].name, stops[0].name)))
    plain = render(pages.three())
    for tag in ("<script", "</script", "<style", "<img", "<dialog", "<!--"):
        assert page.count(tag) == plain.count(tag), tag
    assert len(re.findall("▲</td>", page)) == 2

"""A site of runs: what is written, where it links, and what a run cannot do to it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import histories
import pages
import pytest
from command import vmtest
from histories import day, run_of

from vmtest.api.site import write_site
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.report.html.badge import badge, words
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder

GOOD, BAD = run_of({"a": "PP"}), run_of({"a": "PF"})
NAME = "202611{:02d}T000000Z-abcdef"


def links(page: Path) -> list[str]:
    """The links of a page that leave it."""
    found = re.findall(r'\b(?:href|src)="([^"]*)"', page.read_text())
    return [unescape(link) for link in found if not link.startswith("#")]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The site of three runs, of which the last failed."""
    for n, matrix in enumerate((GOOD, GOOD, BAD), 1):
        histories.leave(tmp_path, n, matrix)
    said = vmtest("report", "--site", "public", cwd=tmp_path)
    assert said.status == 0, said
    assert said.out == f"public/index.html: 3 runs, the newest {NAME.format(3)}\n"
    return tmp_path / "public"


def test_a_site_has_a_page_a_run_the_newest_as_index_its_matrix_and_a_badge(site: Path) -> None:
    files = sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_file())
    of_runs = [f"runs/{NAME.format(n)}.html" for n in (1, 2, 3)]
    assert files == ["badge.svg", "index.html", "matrix.json", *of_runs]
    assert matrix_json.read(site / "matrix.json").run == NAME.format(3)
    assert "1 of 2 kernels did not pass" in (site / "index.html").read_text()
    assert "failing on 1 of 2 kernels" in (site / "badge.svg").read_text()


def test_the_front_page_lists_the_runs_the_newest_first(site: Path) -> None:
    rows = re.findall(r'<th scope="row"><a href="([^"]*)', (site / "index.html").read_text())
    assert rows == [f"./runs/{NAME.format(n)}.html" for n in (3, 2, 1)]


def test_every_link_of_a_site_leads_to_a_file_of_it(site: Path) -> None:
    every = list(site.rglob("*.html"))
    assert len(every) == 4
    for page in every:
        there = links(page)
        assert there
        assert [one for one in there if not (page.parent / unquote(one)).is_file()] == []


def test_a_page_has_the_history_before_it_and_none_of_later_runs(site: Path) -> None:
    assert 'id="history"' not in (site / "runs" / f"{NAME.format(1)}.html").read_text()
    second = (site / "runs" / f"{NAME.format(2)}.html").read_text()
    assert re.findall(r'<th scope="col" title="(2026\d{4})', second) == ["20261101", "20261102"]


def test_every_page_allows_only_its_own_style_and_script(site: Path) -> None:
    every = list(site.rglob("*.html"))
    assert len(every) == 4
    for page in every:
        assert 'content="default-src &#39;none&#39;; script-src' in page.read_text()


def test_only_the_runs_that_are_named_are_published(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        histories.leave(tmp_path, n, GOOD)
    said = vmtest("report", "20261101T", "20261102T", "--site", "public", cwd=tmp_path)
    assert said.status == 0, said
    for page in (tmp_path / "public").rglob("*.html"):
        assert NAME.format(3) not in page.read_text()


def test_a_newest_run_that_ran_nothing_is_not_the_front_page(tmp_path: Path) -> None:
    histories.leave(tmp_path, 1, GOOD)
    dead = replace(GOOD, kernels=(KernelResult("6.12", Status.INFRA_ERROR),))
    histories.leave(tmp_path, 2, dead)
    folders = [RunFolder(tmp_path / ".vmtest/runs" / NAME.format(n)) for n in (1, 2)]
    assert write_site(folders, tmp_path / "public", strict=True).newest == NAME.format(1)


def test_a_run_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    histories.leave(tmp_path, 1, GOOD)
    broken = histories.leave(tmp_path, 2, GOOD, page=False)
    broken.write("matrix.json", "{")
    said = vmtest("report", "--site", "public", cwd=tmp_path)
    assert said.status == 0
    assert f"left out: {broken.path / 'matrix.json'}: not JSON" in said.err
    named = vmtest("report", broken.name, "--site", "public", cwd=tmp_path)
    named.refuses(2, "matrix.json: not JSON")


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("--site", "file"), 2, "file: is not a folder; name another for the site"),
        (("--site", "public", "--html", "x.html"), 2, "--site writes pages only"),
        (("20261101T", "20261102T"), 2, "2 runs: give one of them, or --site DIR"),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: tuple[str, ...], status: int, why: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for n in (1, 2):
        histories.leave(tmp_path, n, GOOD)
    vmtest("report", *arguments, cwd=tmp_path).refuses(status, why)


def test_a_site_of_no_run_is_refused(tmp_path: Path) -> None:
    said = vmtest("report", "--site", "public", cwd=tmp_path)
    said.refuses(2, "there is no run to be published; start one with: vmtest run")
    assert not (tmp_path / "public").exists()


def test_a_run_that_is_named_twice_has_one_page(tmp_path: Path) -> None:
    folder = histories.leave(tmp_path, 1, GOOD)
    assert write_site([folder, folder], tmp_path / "public", strict=True).pages == 1


def test_two_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    for project in ("one", "two"):
        histories.leave(tmp_path / project, 1, GOOD)
    runs = [f"{project}/.vmtest/runs/{NAME.format(1)}" for project in ("one", "two")]
    said = vmtest("report", *runs, "--site", "public", cwd=tmp_path)
    said.refuses(2, f"two runs are called {NAME.format(1)}")


@pytest.mark.parametrize("name", ['"><b>', "a%2f..#?", "..x", "index", "\u202ex"])
def test_a_folder_of_any_name_is_a_page_below_the_site(name: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / name)
    folder.path.mkdir()
    folder.write("matrix.json", matrix_json.dumps(pages.hostile(name)))
    site = tmp_path / "public"
    write_site([folder], site, strict=True)
    every = list(site.rglob("*.html"))
    assert len(every) == 2
    for page in every:
        assert [one for one in links(page) if not (page.parent / unquote(one)).is_file()] == []
        assert "<b>" not in page.read_text()


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (GOOD, "passing on 2 of 2 kernels"),
        (BAD, "failing on 1 of 2 kernels"),
        (replace(GOOD, interrupted=True), "ended early, exit 130"),
        (pages.of(KernelResult("a", Status.BOOT_FAILED)), "nothing ran"),
        (pages.of(), "nothing ran"),
    ],
    ids=["passed", "failed", "interrupted", "no boot", "no kernel"],
)
def test_a_badge_says_how_many_kernels_passed(matrix: Matrix, said: str) -> None:
    run = day(1, matrix)
    assert words(run) == said
    picture = ET.fromstring(badge(run))
    assert picture.attrib["aria-label"] == f"vmtest: {said}"
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["vmtest", said]

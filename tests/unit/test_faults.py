"""The list of faults: its tests are there, and its page says what came of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from tests.faults.__main__ import Ran, left, noticed, ran, results_in, table, verdict
from tests.faults.rows import LIST, ROOT, Fault, faults

PAGE = ROOT / "docs" / "explanation" / "reliability.md"
FOUND = faults(LIST.read_text(encoding="utf-8"))


@cache
def names_in(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("fault", FOUND, ids=lambda fault: fault.what)
def test_each_fault_is_injected_by_tests_that_are_there(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert name in names_in(ROOT / file), test


def test_the_page_has_each_fault_as_the_list_says_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [
        one.what for one in FOUND if f"| {one.what} | {one.sees} | {one.kept} |" not in page
    ] == []


FAULT = Fault(
    "g", "it breaks", "what", "all", ("tests/unit/test_a.py::test_x", "tests/b.py::test_y")
)


def case(
    name: str, place: str = "tests.unit.test_a", result: Failure | Skipped | None = None
) -> TestCase:
    made = TestCase(name, place, 1.5)
    if result is not None:
        made.result = [result]
    return made


def test_the_page_is_made_of_the_results_of_all_tests_too(tmp_path: Path) -> None:
    """Not of those of tests that inject nothing; what was in none of the files was not tried."""
    files = []
    for number, cases in enumerate(
        [[case("test_x[1]"), case("test_other")], [case("test_x[2]", result=Failure())]]
    ):
        suite = TestSuite("pytest")
        suite.add_testcases(cases)
        xml = JUnitXml()
        xml.add_testsuite(suite)
        files.append(tmp_path / f"{number}.xml")
        xml.write(str(files[-1]))
    results = results_in(files, [FAULT])
    assert list(results) == [FAULT.tests[0]]
    assert verdict(FAULT, results) == "**NOT as designed** (1 of 2 failed)"
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "tests.faults", "--page", str(page)]
    of = [word for file in files for word in ("--of", str(file))]
    done = subprocess.run([*command, *of], cwd=ROOT, check=False)
    assert done.returncode == 1
    text = page.read_text()
    assert f"\n{len(FOUND)} faults, 0 variants.\n" in text
    assert text.count("not tried here") == len(FOUND)


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([case("test_x[1]"), case("test_x[2]"), case("test_y", "tests.b")], "as designed (3)"),
        ([case("test_x[1]"), case("test_x[2]", result=Failure())], "NOT as designed** (1 of 2"),
        ([case("test_x")], "not tried here"),
        ([case("test_x", result=Skipped()), case("test_y", "tests.b", Skipped())], "not tried"),
        ([case("test_x"), case("test_y", "tests.b", Skipped())], "(1, 1 not tried here)"),
    ],
)
def test_a_fault_is_as_designed_where_all_its_tests_passed(
    cases: list[TestCase], said: str
) -> None:
    results = ran(cases)
    assert said in verdict(FAULT, results)
    assert "## g\n" in table([FAULT], results) and said in table([FAULT], results)


X, Y = FAULT.tests


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (
            {X: [Ran("passed", (0.42, 2.05)), Ran("passed", (1.0,))], Y: [Ran("passed")]},
            "0.4 to 2.0 s",
        ),
        ({X: [Ran("passed", (23.4,))], Y: [Ran("passed", (22.9,))]}, "23 s"),
        ({X: [Ran("passed", (9.96,))], Y: [Ran("passed", (0.0,))]}, "0.0 to 10 s"),
        ({X: [Ran("passed")]}, ""),
        ({}, ""),
    ],
)
def test_a_fault_is_noticed_between_the_fewest_and_the_most_seconds(
    runs: dict[str, list[Ran]], said: str
) -> None:
    assert noticed(FAULT, runs) == said
    assert f"| what | all | {said} |" in table([FAULT], runs)


CLEAN, UNSEEN = Ran("passed", clean=True), Ran("passed")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({X: [CLEAN, CLEAN], Y: [CLEAN, Ran("skipped")]}, "nothing"),
        ({X: [CLEAN, UNSEEN], Y: [CLEAN]}, ""),
        ({X: [Ran("skipped")]}, ""),
        ({}, ""),
    ],
)
def test_nothing_is_left_where_each_variant_has_looked(
    runs: dict[str, list[Ran]], said: str
) -> None:
    assert left(FAULT, runs) == said
    by_design = replace(FAULT, left="a folder, for a week")
    assert left(by_design, runs) == ("a folder, for a week" if said else "")

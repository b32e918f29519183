"""The cards of the page's causes: kernels, place, variants, logs; and what did not run."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html import unescape

import pages
import pytest

from vmtest.model.loads import Change, ChangeKind, LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report.again import command_of
from vmtest.report.causes import causes
from vmtest.report.html.cards import Card, Chip, Results, card_of, runs_of_lines
from vmtest.report.html.commands import patterns
from vmtest.report.html.page import Memory, render
from vmtest.report.html.since import Earlier
from vmtest.report.html.unrun import Unrun, unrun

PANIC = 'kernel panicked: "Kernel panic - not syncing: x"; while t.py::test_b ran'


def result(name: str, outcome: Outcome = Outcome.PASSED, **more: object) -> TestResult:
    message = "assert 1 == 2" if outcome is Outcome.FAILED else ""
    at = {"message": message, "file": "tests/t.py", "line": 7, **more}
    return TestResult(f"t.py::{name}", "s", outcome, **at)  # type: ignore[arg-type]


def kernel(name: str, *tests: TestResult, status: Status = Status.FAILED) -> KernelResult:
    return KernelResult(name, status, tests=tests, directory=name)


def panicked() -> Matrix:
    """5.10 dies in test_b; 6.12 passes it, 6.1 skips it, 4.19 does not boot."""
    lost = TestResult("t.py::test_b", "s", Outcome.LOST, message=PANIC)
    left = TestResult("t.py::test_c", "s", Outcome.NOT_RUN)
    dead = kernel("5.10", result("test_a"), lost, left, status=Status.PANICKED)
    none = KernelResult("4.19", Status.BOOT_FAILED, reason="no console")
    return pages.of(
        replace(dead, reason=PANIC, start="cold"),
        kernel("6.12", *map(result, ("test_a", "test_b", "test_c")), status=Status.PASSED),
        kernel("6.1", result("test_a"), result("test_b", Outcome.SKIPPED), status=Status.PASSED),
        none,
    )


def cards(matrix: Matrix) -> list[Card]:
    results = Results(matrix)
    return [card_of(cause, results, Earlier((), {})) for cause in causes(matrix)]


def test_the_card_of_a_panic_says_how_its_test_fared_elsewhere() -> None:
    card = cards(panicked())[0]
    assert card.chips == (
        Chip("5.10", "bad", "✗"),
        Chip("6.12", "good", "✓", "passed"),
        Chip("6.1", "warn", "s", "skipped"),
        Chip("4.19", "quiet", "·", "BOOT_FAILED"),
    )


def test_the_test_that_panicked_is_named_with_its_place_in_the_project() -> None:
    card = cards(panicked())[0]
    assert (card.labels, card.place) == (("test_b",), "tests/t.py:7")


def test_where_no_other_kernel_tells_the_place_is_the_tests_file() -> None:
    matrix = panicked()
    assert cards(replace(matrix, kernels=matrix.kernels[:1]))[0].place == "t.py"


def test_a_refused_program_says_how_it_fared_elsewhere() -> None:
    def loaded(name: str, verdict: Verdict) -> KernelResult:
        return KernelResult(name, Status.FAILED, loads=(LoadResult("x.o", "p", verdict),))

    verdicts = (Verdict.REJECTED, Verdict.ACCEPTED, Verdict.NOT_LOADED)
    card = cards(pages.of(*(loaded(v.value, v) for v in verdicts)))[0]
    assert [(chip.sign, chip.word) for chip in card.chips] == [
        ("✗", ""),
        ("✓", "accepted"),
        ("-", "not loaded"),
    ]


@pytest.mark.parametrize(
    ("letters", "told"),
    [
        ("FPP", ["1 of 3 variants of test_x; passed here: [b], [c]"]),
        ("FSP", ["1 of 3 variants of test_x; passed here: [c]"]),
        ("FFF", ["all 3 variants of test_x"]),
        ("F", []),
    ],
)
def test_a_card_says_which_other_variants_passed(letters: str, told: list[str]) -> None:
    outcomes = {"F": Outcome.FAILED, "P": Outcome.PASSED, "S": Outcome.SKIPPED}
    tests = [result(f"test_x[{one}]", outcomes[o]) for one, o in zip("abc", letters, strict=False)]
    assert list(cards(pages.of(kernel("6.12", *tests)))[0].variants) == told


def test_a_variant_that_passed_on_one_kernel_only_did_not_pass() -> None:
    bad, other = result("test_x[a]", Outcome.FAILED), result("test_x[b]")
    second = kernel("6.1", bad, replace(other, outcome=Outcome.SKIPPED))
    card = cards(pages.of(kernel("6.12", bad, other), second))[0]
    assert card.variants == ("1 of 2 variants of test_x",)


def test_a_kernel_that_failed_by_its_costs_says_which() -> None:
    load = LoadResult("x.o", "p", Verdict.ACCEPTED)
    grown = Change("x.o", "p", ChangeKind.COST, cost="instructions", old=10, new=20, since="6.1")
    mended = Change("x.o", "q", ChangeKind.FIXED, Verdict.REJECTED, Verdict.ACCEPTED, since="6.1")
    of = KernelResult("6.12", Status.FAILED, reason="1 cost over 20% more", loads=(load,))
    card = cards(pages.of(replace(of, changes=(grown, mended))))[0]
    assert card.details == "cost: x.o: p: instructions 10 -> 20 (+100.0%) (since 6.1)"


def test_what_went_wrong_stands_out_of_a_text() -> None:
    text = "def test():\n>   assert 1 == 2\nE   assert 1 == 2\nE\n\nt.py:3: AssertionError"
    assert list(runs_of_lines(text)) == [
        (False, "def test():\n>   assert 1 == 2\n"),
        (True, "E   assert 1 == 2\nE\n"),
        (False, "\nt.py:3: AssertionError"),
    ]
    log = "[    1.0] fine\n[    2.0] BUG: unable to handle page fault\n[    2.1] Call Trace:\n"
    assert [part for wrong, part in runs_of_lines(log) if wrong] == [log.splitlines(True)[1]]


def test_a_page_without_its_logs_says_where_they_are() -> None:
    page = unescape(render(panicked()))
    assert "logs in the run's folder, run:\n<code>5.10/console.log</code>" in page
    assert '<a href="./5.10/console.log">' in render(panicked(), Memory(beside=True))


def test_a_page_elsewhere_links_to_the_logs_from_there() -> None:
    page = render(panicked(), Memory(logs="../.vmtest/runs/r/", within="public"))
    assert '<a href="../.vmtest/runs/r/5.10/console.log">5.10/console.log</a>' in page
    assert '"within":"public"' in page


def test_what_did_not_run_has_a_reason() -> None:
    assert unrun(panicked()) == (
        Unrun(("5.10",), "the kernel panicked before", ("test_c",), 1),
        Unrun(("4.19",), "BOOT_FAILED: no console", (), 0),
    )


def test_kernels_that_did_not_run_the_same_are_one() -> None:
    left = TestResult("t.py::test_c", "s", Outcome.NOT_RUN, message="stopped by -x")
    load = LoadResult("x.o", "p", Verdict.NOT_LOADED)
    matrix = pages.of(
        kernel("6.1", left),
        kernel("6.12", left),
        replace(kernel("6.2", status=Status.CANCELLED), loads=(load,)),
    )
    assert unrun(matrix) == (
        Unrun(("6.1", "6.12"), "stopped by -x", ("test_c",), 1),
        Unrun(("6.2",), "CANCELLED", ("x.o: p",), 1),
    )


def test_the_page_names_them() -> None:
    page = unescape(render(panicked()))
    (row,) = re.findall(r'<tr><th scope="row">5\.10</th>.*?</tr>', page, re.DOTALL)
    assert "the kernel panicked before" in row
    assert "test_c" in row
    assert 'href="#skips"' in page


def filled(matrix: Matrix, name: str, words: dict[str, str]) -> str:
    """A pattern filled in as the page's script does it."""
    pattern: str = patterns(matrix)[name]
    for sign, word in words.items():
        pattern = pattern.replace(sign, shlex.quote(word))
    return pattern


AGAIN = (("run",), ("--config", "other dir/k.toml"), ("--repeat", "3"))


@pytest.mark.parametrize(
    ("test", "pattern", "name"),
    [
        ("test_y[a]", "test", "test_y[a]"),
        ("test_x[a b]", "test", "test_x"),
        ("a b", "suite", ""),
    ],
)
def test_the_pattern_of_a_test_is_the_command_of_its_cause(
    test: str, pattern: str, name: str
) -> None:
    matrix = pages.of(kernel("6.12", result(test, Outcome.FAILED)))
    matrix = replace(matrix, again=AGAIN)
    words = {"@kernel@": "6.12", "@suite@": "s", "VMTEST__NAME": name}
    assert filled(matrix, pattern, words) == command_of(causes(matrix)[0], matrix)


def test_the_pattern_of_a_program_is_the_command_of_its_cause() -> None:
    for program, pattern in (("p q", "program"), ("", "object")):
        load = LoadResult("x.o (libbpf 1.5)", program, Verdict.REJECTED, libbpf="1.5")
        of = KernelResult("6.12", Status.FAILED, loads=(load,))
        matrix = replace(pages.of(of), again=(("verify",), ("--attach",)))
        assert patterns(matrix)["objects"] == ["x.o"]
        words = {"@kernel@": "6.12", "@object@": "x.o", "VMTEST__NAME": program}
        assert filled(matrix, pattern, words) == command_of(causes(matrix)[0], matrix)

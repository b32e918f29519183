"""The report as GitHub-flavoured Markdown."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import markdown
from vmtest.runs import matrix_json

DATA = Path(__file__).parent / "data" / "report"
MIB = 1 << 20


def recorded() -> Matrix:
    return matrix_json.loads((DATA / "matrix.json").read_text(encoding="utf-8"))


def failing(**more: Any) -> Matrix:
    test = TestResult("test_s.py::test_x", "s", Outcome.FAILED, message="assert 1 == 2")
    test = replace(test, **more)
    kernel = KernelResult("6.12", Status.FAILED, tests=(test,), directory="runs/1/6.12")
    return Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), (kernel,))


def many(count: int, **more: Any) -> Matrix:
    test = failing(**more).kernels[0].tests[0]
    tests = tuple(replace(test, test=f"test_s.py::test_{n}") for n in range(count))
    kernel = replace(failing().kernels[0], tests=tests)
    return replace(failing(), kernels=(kernel,))


def size(text: str) -> int:
    return len(text.encode("utf-8"))


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_report_is_as_it_was_approved() -> None:
    """To approve another, look at it, and write it into the file."""
    approved = (DATA / "report.md").read_text(encoding="utf-8")
    assert markdown.render(recorded()) == approved


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        (Status.COLLECTED, Outcome.COLLECTED, "vmtest: 1 kernel listed their tests"),
        (Status.PASSED, Outcome.SKIPPED, "vmtest: nothing ran"),
    ],
)
def test_the_headline_says_what_was_no_pass(status: Status, outcome: Outcome, said: str) -> None:
    tests = (TestResult("t.py::a", "s", outcome),)
    whole = Matrix(SCHEMA, "r", "", 1.0, ("s",), (KernelResult("a", status, tests=tests),))
    assert said in markdown.render(whole).splitlines()[0]


def test_every_row_has_as_many_cells_as_the_head() -> None:
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows(markdown.render(recorded()))}
    assert counts == {6}


def test_a_pipe_in_a_test_name_does_not_end_its_cell() -> None:
    of = failing(test="test_s.py::test_x[a|b]")
    (row,) = [row for row in rows(markdown.render(of)) if "test_x" in row]
    assert row == "| `test_x[a\\|b]` | **FAIL** |"


def test_backticks_in_a_test_name_do_not_end_its_span() -> None:
    (row,) = [r for r in rows(markdown.render(failing(test="f.py::test_x[a``]"))) if "_x" in r]
    assert row == "| ```test_x[a``]``` | **FAIL** |"


def test_a_fence_in_output_does_not_end_the_block() -> None:
    text = markdown.render(failing(output="```\n# no heading"))
    assert "\n````text\n```\n# no heading\n````\n" in text


@pytest.mark.parametrize("field", ["message", "test", "suite"])
def test_html_in_what_a_test_wrote_is_text_outside_of_code(field: str) -> None:
    text = markdown.render(failing(**{field: "<script>alert(1)</script></details>"}))
    outside = re.sub(r"(?s)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    assert "<script>" not in outside


def test_markup_in_a_reason_is_no_markup() -> None:
    of = failing()
    kernel = replace(of.kernels[0], status=Status.INFRA_ERROR, reason="**@all** <b>x</b>")
    text = markdown.render(replace(of, kernels=(kernel,)))
    assert "<code>**@all** &lt;b&gt;x&lt;/b&gt;</code>" in text


def test_control_characters_are_spelled_out() -> None:
    assert "a\\x07b" in markdown.render(failing(output="\x1b[31ma\x07b"))


def test_failures_are_folded_away() -> None:
    text = markdown.render(many(2))
    assert text.count("<details><summary><b>FAIL</b>") == 2


def test_a_single_failure_is_open() -> None:
    assert "<details open><summary><b>FAIL</b>" in markdown.render(failing())


def test_every_fold_is_closed() -> None:
    text = markdown.render(recorded())
    assert text.count("<details") == text.count("</details>")


def test_a_failure_names_its_log() -> None:
    assert "`runs/1/6.12/pytest.log`" in markdown.render(failing())


def test_a_test_that_ran_nowhere_is_reported() -> None:
    text = markdown.render(failing(outcome=Outcome.SKIPPED))
    assert ":warning: 1 test ran on no kernel of this matrix: `test_x`\n" in text


@pytest.mark.parametrize("letter", ["x", "漢", "`", "<", "|"])
def test_the_report_of_very_long_output_stays_below_a_mebibyte(letter: str) -> None:
    line = letter * 900
    assert size(markdown.render(many(300, output="\n".join([line] * 200)))) < MIB


def test_the_report_of_very_many_tests_stays_below_a_mebibyte() -> None:
    assert size(markdown.render(many(30_000))) < MIB


def test_the_report_of_very_long_names_stays_below_a_mebibyte() -> None:
    kernel = replace(failing().kernels[0], kernel="k" * MIB, reason="r" * MIB)
    assert size(markdown.render(replace(failing(), kernels=(kernel,)))) < MIB


def test_what_was_left_out_is_said() -> None:
    text = markdown.render(many(10, output="x" * 900), limit=6_000)
    assert re.search(r"\*\*Left out to stay below 1 MiB: \d+ failures\.\*\*", text)


@pytest.mark.parametrize("limit", range(20_000, 20_300, 15))
def test_folds_are_closed_in_a_report_that_was_cut(limit: int) -> None:
    text = markdown.render(many(150, outcome=Outcome.SKIPPED, message="y" * 150), limit=limit)
    assert re.search(r"Left out to stay below 1 MiB: \d+ skipped tests\.", text)
    assert text.count("<details") == text.count("</details>")


def test_nothing_is_said_to_be_left_out_of_a_report_that_is_whole() -> None:
    assert "Left out" not in markdown.render(recorded())


def test_the_kernels_that_did_not_pass_stand_in_front() -> None:
    head = next(line for line in markdown.render(recorded()).splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "",
        "6.1",
        "6.12",
        "7.0",
        "5.10",
    ]


def test_a_long_name_loses_its_middle_in_the_table_and_not_below() -> None:
    text = markdown.render(recorded())
    assert "| `test_stale_connec…ly_one_event[ipv6]` | **FAIL** |" in text
    assert "<code>test_stale_connection_gives_exactly_one_event[ipv6]</code>" in text


def test_a_complaint_of_the_kernel_names_the_test_that_ran() -> None:
    told = replace(
        recorded().kernels[0],
        status=Status.SPLAT,
        splats=("BUG: a",),
        fingerprints=("a",),
        splat_tests=("t.py::test_it",),
    )
    text = markdown.render(replace(recorded(), kernels=(told,)))
    assert "The kernel complained while `t.py::test_it` ran:" in text


def test_a_complaint_of_the_kernel_has_its_fingerprint() -> None:
    splats = ("WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2",)
    told = replace(recorded().kernels[0], status=Status.SPLAT, splats=splats)
    assert "Its fingerprint: `WARNING in f`" in markdown.render(
        replace(recorded(), kernels=(told,))
    )


def test_causes_come_first_with_the_command_that_runs_each_again() -> None:
    head = markdown.render(recorded()).partition("\n|  |")[0]
    assert "### 4 causes, 2 failing results in 1 test on 2 kernels, 2 kernels as" in head
    assert head.count("<br>`vmtest run --kernel ") == 4


def test_a_reader_learns_which_run_it_is_and_where_its_logs_are() -> None:
    name = "2026-05-09T07-35-25Z-1f3a"
    assert f"\nRun `{name}` of 2026-05-09 07:35 UTC. Its logs are in `.vmtest/runs/{name}`.\n" in (
        markdown.render(recorded())
    )


def test_a_failure_on_several_kernels_is_printed_once_whatever_addresses_it_has() -> None:
    kernel = failing(details="met = <Met at 0x7fc8754aa900>\nassert 1 == 2").kernels[0]
    (test,) = kernel.tests
    there = replace(test, details="met = <Met at 0x7f276f14a900>\nassert 1 == 2")
    other = replace(kernel, kernel="other", tests=(there,))
    text = markdown.render(replace(failing(), kernels=(kernel, other)))
    assert text.count("met = <Met at") == 1
    assert f"on {kernel.kernel}, other" in text


def test_what_differs_from_an_earlier_run_stands_at_the_top() -> None:
    words = "9 new failing results since run 20261130T051733Z-ded2f3, the last that passed"
    assert words in markdown.render(failing(), since=words).splitlines()[:6]

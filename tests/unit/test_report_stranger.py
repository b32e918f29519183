"""What somebody reads who sees a failing run for the first time; the run was recorded.

On 5.10 and 6.12 a suite fails in helpers, with long values, and on 5.10 a test crashes the kernel.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.model.results import Matrix, Outcome, TestResult
from vmtest.report import github, ids, junit, markdown, terminal
from vmtest.report.again import MOST_KERNELS, command_of
from vmtest.report.causes import causes, counts
from vmtest.report.tracebacks import own_place
from vmtest.runs import matrix_json

RECORDED = Path(__file__).parent / "data" / "report" / "failing.json"
BOTH = [terminal.render, markdown.render]
REGISTERS = re.compile(r"\b(RAX|RSP|R1\d): |Code: |RIP: 0033|Hardware name")


def recorded() -> Matrix:
    return matrix_json.loads(RECORDED.read_text(encoding="utf-8"))


def summary(of: Matrix) -> str:
    drawn = terminal.render(of, width=80)
    return drawn[drawn.index("\nsummary ") :]


def in_project(of: Matrix) -> list[str]:
    return [test.test for kernel in ids.in_project(of).kernels for test in kernel.tests]


@pytest.mark.parametrize("render", BOTH)
def test_the_log_that_is_named_has_what_the_test_said(render: Callable[[Matrix], str]) -> None:
    """pytest.log of 5.10 ends at the panic, and pytest had printed no traceback before."""
    shown = render(recorded())
    assert "5.10/pytest.log" not in shown
    assert "5.10/results.jsonl" in shown and "6.12/pytest.log" in shown


def test_every_cause_is_told_with_what_differs() -> None:
    told = [cause.message for cause in causes(recorded())]
    assert [part for part in told if part.endswith("has_encoded: False != True")] == told[3:5]
    assert told[2].endswith(r": at index 0: b'\x01' != b's'")
    assert max(map(len, told)) <= 200


def test_the_place_is_the_line_of_the_test_and_then_that_of_the_helper() -> None:
    end = summary(recorded())
    assert "  FAIL 5.10: tests/suites/test_sendmsg.py:241 (raised at line 380): Assert" in end
    other = "tests/suites/test_sendmsg.py:301 (raised in tests/suites/messages.py:30): Assert"
    assert f"  FAIL all kernels: {other}" in end
    assert f": `{other[: other.index(': A')]}`: `Assert" in markdown.render(recorded())


@pytest.mark.parametrize("render", BOTH)
def test_causes_results_tests_and_kernels_are_counted(render: Callable[[Matrix], str]) -> None:
    words = "6 causes, 9 failing results in 5 tests on 2 kernels, 1 kernel as a whole (PANICKED)"
    assert counts(causes(recorded())) == words
    shown = " ".join(render(recorded()).replace("─", "").replace(",", "").split())
    assert words.replace(",", "") in shown


@pytest.mark.parametrize("render", BOTH)
def test_a_file_has_one_path_in_a_report(render: Callable[[Matrix], str]) -> None:
    shown = render(recorded())
    assert "tests/suites/test_extra.py::test_a_crash_is_survived ran" in shown
    assert re.findall(r"(?<![\w/])test_\w+\.py", shown) == []


@pytest.mark.parametrize("render", BOTH)
def test_details_and_summary_have_one_order(render: Callable[[Matrix], str]) -> None:
    of = recorded()
    names = [cause.labels[0] if cause.labels else "PANICKED" for cause in causes(of)]
    shown = render(of)
    if render is terminal.render:
        heads = re.findall(r"^(?:FAIL|(?=PANICKED)) ?(\S+)", shown, re.MULTILINE)
    else:
        found = re.findall(r"<summary><b>(\w+)</b> <code>([^<]*)", shown)
        heads = [status if status == "PANICKED" else name for status, name in found]
    assert [name[:60] for name in names] == [head.rstrip("…")[:60] for head in heads]


@pytest.mark.parametrize("render", BOTH)
def test_a_test_that_did_not_run_is_named_with_the_reason(render: Callable[[Matrix], str]) -> None:
    shown = render(recorded()).replace("`", "")
    assert re.search(r"1 test .*on 5\.10: the kernel panicked before: test_after_it\n", shown)


@pytest.mark.parametrize("render", BOTH)
def test_a_panic_begins_with_its_line_and_has_no_registers(
    render: Callable[[Matrix], str],
) -> None:
    shown = render(recorded())
    assert REGISTERS.search(shown) is None
    story = shown[shown.index("the panic, without registers:") :]
    assert story.index("Kernel panic - not syncing") < story.index("sysrq_handle_crash+0x16")
    assert REGISTERS.search("\n".join(recorded().kernels[0].console_tail))


@pytest.mark.parametrize("render", BOTH)
def test_words_that_are_not_plain_are_explained(render: Callable[[Matrix], str]) -> None:
    shown = render(recorded())
    for words in (
        "tcg: emulated",
        "warm: restored",
        "deadlines x10.0: time limits",
        "LOST: no result",
        "(exit status 1)",
        "20 results of 10 tests",
    ):
        assert words in shown


def test_one_command_runs_a_cause_again_on_all_of_its_kernels() -> None:
    of = recorded()
    panic, first, *others = causes(of)
    for cause in (panic, first):
        assert command_of(cause, of).startswith("vmtest run --kernel 5.10 --suite ")
    for cause in others:
        assert "--kernel 5.10 --kernel 6.12 --suite sendmsg -k" in command_of(cause, of)


def test_a_command_names_no_hundred_kernels_and_says_so() -> None:
    of = recorded()
    some = tuple(replace(of.kernels[1], kernel=f"6.{n}") for n in range(100))
    drawn = summary(replace(of, kernels=some))
    assert drawn.count(" (on 12 of its 100 kernels)") == 4
    assert max(line.count("--kernel") for line in drawn.splitlines()) == MOST_KERNELS


def test_details_do_not_repeat_the_message_below_the_place() -> None:
    drawn = terminal.render(recorded())
    lines = [line for line in drawn.splitlines() if line.startswith("      AssertionError:")]
    assert lines == []


def test_long_lines_of_details_lose_their_middle_and_all_is_there_on_request() -> None:
    sections = terminal.render(recorded()).split("\nsummary ")[0].splitlines()
    assert max(map(len, sections)) <= 250
    whole = terminal.render(recorded(), amount=terminal.Amount.WHOLE)
    assert max(map(len, whole.splitlines())) > 1000


def test_an_annotation_is_at_the_line_of_the_test() -> None:
    lines = github.annotated(github.deciding(recorded()))
    (line,) = [line for line in lines if "out of reach" in line]
    assert line.startswith("::error file=tests/suites/test_sendmsg.py,line=301,")
    assert "(raised in tests/suites/messages.py%3A30)" in line.replace(".py:30", ".py%3A30")


def test_a_message_of_junit_has_what_differs() -> None:
    assert 'has_encoded: False != True"' in junit.render(recorded()).decode()


def failed(test: str, details: str, file: str = "", line: int = 0) -> TestResult:
    return TestResult(test, "s", Outcome.FAILED, details=details, file=file, line=line)


@pytest.mark.parametrize(
    ("details", "place"),
    [
        ("tests/test_s.py:7: \n_ _\ntests/h.py:3: ValueError", "tests/test_s.py:7"),
        ("tests/test_s.py:7: in test_x\n    h()\ntests/h.py:3: in h", "tests/test_s.py:7"),
        ("tests/test_s.py:7: \n_ _\ntests/test_s.py:30: ValueError", "tests/test_s.py:7"),
        ("tests/conftest.py:7: \n_ _\ntests/h.py:3: ValueError", ""),
        ("tests/my_test_s.py:7: ValueError", ""),
        (
            "tests/test_s.py:7: KeyError\n\nThe above exception was the direct cause of the "
            "following exception:\n\ntests/test_s.py:9: \n_ _\ntests/h.py:3: ValueError",
            "tests/test_s.py:9",
        ),
        (
            "tests/test_s.py:7: KeyError\n\nDuring handling of the above exception, another "
            "exception occurred:\n\ntests/h.py:3: ValueError",
            "tests/test_s.py:7",
        ),
        ("", ""),
    ],
)
def test_the_own_line_of_a_test_comes_out_of_its_traceback(details: str, place: str) -> None:
    assert own_place(failed("test_s.py::TestA::test_x[a]", details)) == place


def test_ids_begin_in_the_folder_of_the_project() -> None:
    of = recorded()
    assert all(name.startswith("tests/suites/test_") for name in in_project(of))
    assert ids.in_project(of).kernels[0].reason.endswith("while tests/suites/" + LOST + " ran")


def test_lines_of_a_run_that_goes_on_have_the_same_ids() -> None:
    of = recorded().kernels[0]
    assert ids.of_kernel(of).reason == ids.in_project(recorded()).kernels[0].reason
    told = [ids.of_test(test) for test in of.tests if test.outcome is Outcome.FAILED]
    assert [name.partition("::")[0] for name in told] == ["tests/suites/test_sendmsg.py"] * 5


LOST = "test_extra.py::test_a_crash_is_survived"


def test_ids_without_a_place_stay_and_so_do_those_that_are_paths_already() -> None:
    of = recorded()
    bare = replace(
        of.kernels[0],
        tests=tuple(replace(test, file="", line=0) for test in of.kernels[0].tests),
    )
    one = replace(of, kernels=(bare,))
    assert ids.in_project(one) is one
    once = ids.in_project(of)
    assert ids.in_project(once) is once

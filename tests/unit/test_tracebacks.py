"""A shortened traceback keeps the line of the project."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _pytest._code import Traceback

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import markdown, terminal
from vmtest.report.html import page
from vmtest.report.text import last_lines
from vmtest.report.tracebacks import last_of_traceback


def direct() -> None:
    subprocess.run(["false"], check=True)  # of the project


def helped() -> None:
    direct()


def chained() -> None:
    try:
        int("a")
    except ValueError:
        direct()


def told(raising: Callable[[], None], style: Any) -> str:
    """What pytest says of ``raising``."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        raising()
    first, *between, last = caught.traceback[1:]
    if style == "auto":  # as pytest draws it by default
        between = [entry.with_repr_style("short") for entry in between]
    caught.traceback = Traceback([first, *between, last])
    return str(caught.getrepr(style="long" if style == "auto" else style))


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project is this folder: places below it are relative."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.mark.parametrize("style", ["long", "auto", "short"])
@pytest.mark.parametrize("raising", [direct, helped, chained])
@pytest.mark.parametrize("lines", [8, 40])
def test_the_innermost_line_of_the_project_stays(
    lines: int, raising: Callable[[], None], style: str
) -> None:
    shown, _ = last_of_traceback(told(raising, style), lines)
    assert len(shown) <= lines
    assert any("# of the project" in line for line in shown)
    assert any(line.startswith("E ") and "exit status 1" in line for line in shown)


def test_frames_outside_of_the_project_are_cut_first_and_counted() -> None:
    shown, left_out = last_of_traceback(told(direct, "long"), 40)
    assert left_out == 0
    assert [line for line in shown if "outside of the project left out" in line] != []
    assert not any("capture_output" in line for line in shown)


def test_a_traceback_with_room_is_whole() -> None:
    whole = told(direct, "long")
    assert last_of_traceback(whole, 1000) == last_lines(whole, 1000)


def test_a_text_that_is_no_traceback_keeps_its_end() -> None:
    text = "\n".join(f"line {n}" for n in range(50))
    assert last_of_traceback(text, 5) == last_lines(text, 5)


def test_pytests_full_diff_is_cut_before_what_differs() -> None:
    said = ["    def test_x():", ">       assert a == b", "E       assert [1] == [2]", "E         "]
    said += ["E         At index 0 diff: 1 != 2", "E         ", "E         Full diff:"]
    said += [f"E         - {n}" for n in range(60)]
    shown, left_out = last_of_traceback("\n".join([*said, "", "tests/t.py:7: AssertionError"]), 12)
    assert left_out == 0
    assert shown[4:7] == [said[4], "E", "... 61 lines of pytest's full diff left out"]
    assert shown[-1] == "tests/t.py:7: AssertionError"


def test_a_long_line_loses_its_middle_and_runs_of_the_same() -> None:
    text = "E   assert " + "\\x00" * 500 + " == " + "abc" * 200 + "END"
    ((line,), _) = last_of_traceback(text, 5, 100)
    assert line.startswith("E   assert \\x00(x500) == abcabc")
    assert line.endswith("END")
    assert len(line) == 100


GOOGLETEST = """\
/src/build/foo_test.cc:42: Failure
Expected equality of these values:
  answer()
    Which is: 41
  42
"""


def test_a_line_that_looks_like_a_place_makes_no_frame_of_a_text() -> None:
    assert last_of_traceback(GOOGLETEST, 3) == last_lines(GOOGLETEST, 3)
    place = "/src/build/foo_test.cc:42: Failure\n"
    text = place + "a value\n" * 30 + place
    assert last_of_traceback(text, 20) == last_lines(text, 20)


def test_tests_beside_the_folder_of_kernels_toml_are_of_the_project() -> None:
    between = "_ " * 40 + "\n"
    own = "    def test_x():\n" + "        pass\n" * 5 + ">       helper()\n\n../tests/t.py:7: \n"
    other = (
        "    def run():\n"
        + "        deep()\n" * 20
        + "E   ValueError\n\n/usr/lib/x.py:9: ValueError\n"
    )
    shown, left_out = last_of_traceback(own + between + other, 16)
    assert left_out == 0
    assert ">       helper()" in shown
    assert any("outside of the project left out" in line for line in shown)
    text = between.join([own] * 4)
    assert last_of_traceback(text, 6) == last_lines(text, 6)


def test_the_work_grows_with_the_lines() -> None:
    text = "t.py:1: in f\n" + "_ _\n" * 200_000 + "/usr/lib/x.py:1: in g\n"
    assert len(last_of_traceback(text, 5)[0]) <= 5  # by the square of the lines it took hours


@pytest.mark.parametrize("render", [terminal.render, page.render])
def test_what_was_written_is_no_traceback(render: Callable[[Matrix], str]) -> None:
    place = "_ _\n/usr/lib/x.py:1: in g\n"
    text = "t.py:1: in f\n" + place + "a value\n" * 90 + place
    test = TestResult("t", "s", Outcome.FAILED, message="m", output=text, stderr=text)
    of = KernelResult("6.12", Status.FAILED, tests=(test,))
    drawn = render(Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), (of,)))
    assert "outside of the project left out" not in drawn


@pytest.mark.parametrize("render", [terminal.render, markdown.render, page.render])
def test_every_report_has_the_line_of_the_project(render: Callable[[Matrix], str]) -> None:
    details = told(direct, "long") + "\n" * 2
    deep = details.replace(
        "        if input is not None:\n", "        if input is not None:\n" * 90
    )
    test = TestResult("test_s.py::test_x", "s", Outcome.FAILED, details=deep)
    of = KernelResult("6.12", Status.FAILED, tests=(test,))
    drawn = render(Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), (of,)))
    assert "# of the project" in drawn
    assert "outside of the project left out" in drawn

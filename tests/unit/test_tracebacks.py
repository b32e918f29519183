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

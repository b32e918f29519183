"""The report on a terminal, at the widths people have."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from many import CAUSES, RESULTS, many
from rich.cells import cell_len

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import markdown, terminal
from vmtest.report.causes import causes
from vmtest.report.html import page as html
from vmtest.report.terminal import Amount
from vmtest.runs import matrix_json

DATA = Path(__file__).parent / "data" / "report"


def recorded() -> Matrix:
    return matrix_json.loads((DATA / "matrix.json").read_text(encoding="utf-8"))


def failing(**more: Any) -> Matrix:
    test = TestResult("test_s.py::test_x", "s", Outcome.FAILED, message="assert 1 == 2")
    test = replace(test, **more)
    kernel = KernelResult("6.12", Status.FAILED, tests=(test,), directory="runs/1/6.12")
    return Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), (kernel,))


def with_kernel(**more: Any) -> Matrix:
    kernel = KernelResult("6.12", Status.PANICKED, reason="it panicked", directory="runs/1/6.12")
    kernel = replace(kernel, **more)
    return Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), (kernel,))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_report_is_as_it_was_approved(width: int) -> None:
    """To approve another, look at it, and write it into the file."""
    approved = (DATA / f"terminal-{width}.txt").read_text(encoding="utf-8")
    assert terminal.render(recorded(), width=width) == approved


@pytest.mark.parametrize("width", range(60, 200, 7))
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    drawn = terminal.render(recorded(), width=width).split("\nFAIL test_")[0]
    table = [line for line in drawn.splitlines() if ": " not in line]  # no legend, no sentence
    assert max(map(cell_len, table)) <= width


def test_kernels_are_across_where_there_is_room() -> None:
    head = terminal.render(recorded(), width=200).splitlines()[0].split()
    assert head == ["5.10", "6.1", "6.12", "7.0"]


def test_a_table_wider_than_the_terminal_is_turned_round() -> None:
    head = terminal.render(recorded(), width=60).splitlines()[1].split()
    assert head == ["kernel", "status", "time", "sendmsg"]


@pytest.mark.parametrize("matrix", [recorded(), many()])
def test_a_table_of_this_project_stands_upright_in_80_columns(matrix: Matrix) -> None:
    drawn = terminal.render(matrix, width=80).splitlines()
    assert drawn[0].split() == [kernel.kernel for kernel in matrix.kernels]
    table = drawn[: drawn.index("")]
    assert max(map(cell_len, table)) <= 80


def test_names_lose_their_middle_before_the_table_is_turned() -> None:
    drawn = terminal.render(recorded(), width=80)
    assert "\n   test_st…nt[ipv6]  PASS         FAIL         FAIL            -\n" in drawn


def test_a_turned_table_still_tells_which_test_failed_where() -> None:
    drawn = terminal.render(recorded(), width=60)
    assert "test_stale_connection_gives_exactly_one_event[ipv6]: PASS 5.10; FAIL 6.1, 6.12" in drawn


def test_more_suites_than_fit_go_on_in_a_second_table() -> None:
    suites = tuple(f"a_suite_with_a_long_name_{n}" for n in range(6))
    drawn = terminal.render(replace(recorded(), suites=suites), width=80)
    assert all(suite in drawn for suite in suites)


def test_without_colour_there_is_no_escape() -> None:
    assert "\x1b" not in terminal.render(recorded(), width=120, color=False)


def test_colour_changes_no_letter() -> None:
    from rich.text import Text

    coloured = terminal.render(recorded(), width=120, color=True)
    plain = "\n".join(line.rstrip() for line in Text.from_ansi(coloured).plain.split("\n"))
    assert "\x1b[" in coloured
    assert plain.strip() == terminal.render(recorded(), width=120).strip()


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = terminal.render(recorded(), width=120, color=True)
    for name, value in {"NO_COLOR": "1", "COLUMNS": "40", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert terminal.render(recorded(), width=120, color=True) == before


@pytest.mark.parametrize("field", ["message", "details", "output", "stderr", "kernel_log"])
def test_markup_in_what_a_test_wrote_is_not_interpreted(field: str) -> None:
    drawn = terminal.render(failing(**{field: "[red]x[/red] [link=y]z :bee:"}), color=True)
    assert "[red]x[/red] [link=y]z :bee:" in drawn


@pytest.mark.parametrize(
    "field", ["message", "details", "output", "stderr", "kernel_log", "test", "suite"]
)
def test_escapes_of_a_guest_never_reach_the_terminal(field: str) -> None:
    drawn = terminal.render(failing(**{field: "a\x1b[2Jb\x1b]0;t\x07c\x07\x9b1m"}))
    assert not set(drawn) & {"\x1b", "\x07", "\x9b"}


@pytest.mark.parametrize("field", ["reason", "note", "version", "release"])
def test_escapes_in_what_is_said_of_a_kernel_never_reach_the_terminal(field: str) -> None:
    assert "\x1b" not in terminal.render(with_kernel(**{field: "a\x1b[2Jb\x1b"}))


def test_escapes_of_the_console_never_reach_the_terminal() -> None:
    drawn = terminal.render(with_kernel(console_tail=("\x1b[2Ja",), splats=("\x1b[2Jb\x1b",)))
    assert "\x1b" not in drawn


def test_long_details_keep_their_end_and_say_what_is_missing() -> None:
    lines = [f"line {n}" for n in range(100)]
    drawn = terminal.render(failing(details="\n".join(lines))).splitlines()
    assert "      ... 60 lines before these left out; the log has all" in drawn
    assert "      line 99" in drawn
    assert "      line 59" not in drawn


def test_a_failure_names_kernel_test_and_log() -> None:
    drawn = terminal.render(failing())
    assert "test_s.py::test_x on 6.12" in drawn
    assert "log of 6.12: runs/1/6.12/pytest.log" in drawn


def test_a_failure_of_a_command_names_its_log() -> None:
    drawn = terminal.render(replace(failing(), command=("./x",)))
    assert "log of 6.12: runs/1/6.12/command.log" in drawn


def test_a_failure_shows_standard_error_and_the_kernels_messages_apart() -> None:
    drawn = terminal.render(failing(stderr="to stderr", kernel_log="[    1.5] said"))
    errors, messages = drawn.index("standard error on"), drawn.index("the kernel's messages on")
    assert errors < drawn.index("to stderr") < messages < drawn.index("[    1.5] said")


def test_a_complaint_names_the_test_during_which_it_came() -> None:
    of = replace(
        recorded().kernels[0],
        status=Status.SPLAT,
        splats=("BUG: a",),
        fingerprints=("a",),
        splat_tests=("t.py::test_it",),
    )
    drawn = terminal.render(replace(recorded(), kernels=(of,)))
    assert "the kernel complained while t.py::test_it ran:" in drawn


def test_a_failure_shows_assertion_and_output() -> None:
    drawn = terminal.render(failing(details="E   assert 1 == 2", output="what it wrote"))
    assert "      E   assert 1 == 2" in drawn
    assert "      what it wrote" in drawn


def test_a_message_that_the_details_lack_is_shown_too() -> None:
    assert "      assert 1 == 2" in terminal.render(failing(details="elsewhere"))


def test_a_message_that_the_details_hold_is_not_repeated() -> None:
    told = terminal.render(failing(details="E   assert 1 == 2")).split("\nsummary ")[0]
    assert told.count("assert 1 == 2") == 1


def test_a_path_is_never_broken() -> None:
    long = with_kernel(directory="runs/" + "x" * 200, start="cold")
    assert f"runs/{'x' * 200}/console.log\n" in terminal.render(long, width=80)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_run_with_97_failures_is_told_in_less_than_120_lines(width: int) -> None:
    """The line that names the logs comes below."""
    assert RESULTS == 97
    drawn = terminal.render(many(), width=width)
    assert drawn.count("\n") < 119


def test_every_cause_of_97_failures_has_its_line_and_its_command_at_the_end() -> None:
    drawn = terminal.render(many(), width=80)
    end = drawn[
        drawn.index("\nsummary 17 causes, 97 failing results in 33 tests on 4 kernels ") :
    ].splitlines()
    assert CAUSES == 17
    for cause in causes(many()):
        assert sum(f" {cause.place}: {cause.message}" in line for line in end) == 1
    assert sum(line.startswith("      vmtest run --kernel ") for line in end) == CAUSES


def test_what_97_failures_leave_out_is_counted() -> None:
    drawn = terminal.render(many(), width=80)
    rows = [line for line in drawn.splitlines() if line.startswith("   test_")]
    assert f"  ... and {33 - len(rows)} more tests that did not pass everywhere" in drawn
    sections = drawn.count("\nFAIL ")
    assert f"\n{CAUSES - sections} more causes in the summary below" in drawn


def test_all_of_97_failures_is_told_on_request() -> None:
    drawn = terminal.render(many(), width=80, amount=Amount.WHOLE)
    assert not [line for line in drawn.splitlines() if re.search(r"\.\.\. and|more causes", line)]
    assert drawn.count("\nFAIL ") == CAUSES
    assert "left out" not in drawn


def test_little_is_the_causes_and_the_summary() -> None:
    drawn = terminal.render(many(), width=80, amount=Amount.LITTLE).splitlines()
    assert drawn[0].startswith("summary 17 causes, 97 failing results in 33 tests on 4 kernels")
    assert len(drawn) == 1 + 2 * CAUSES + 2


def test_rows_that_tell_kernels_apart_stay_before_the_others() -> None:
    drawn = terminal.render(many(), width=200)
    rows = [line.split()[1:] for line in drawn.splitlines() if line.startswith("   test_")]
    assert rows
    assert all(len(set(row)) > 1 for row in rows)


def test_a_failure_names_one_log_though_several_kernels_have_it() -> None:
    drawn = terminal.render(recorded())
    assert drawn.count("pytest.log") == 1


def test_a_log_is_called_what_it_is_from_where_the_user_stands() -> None:
    drawn = terminal.render(failing(), where=lambda name: f"../{name}")
    assert "  log of 6.12: ../runs/1/6.12/pytest.log\n" in drawn


def test_a_log_that_is_not_there_is_not_named() -> None:
    assert "log of" not in terminal.render(failing(), where=lambda name: "")


def test_a_kernel_that_panicked_shows_reason_note_splat_console_and_log() -> None:
    drawn = terminal.render(
        with_kernel(note="cached copy", splats=("WARNING: at x.c:1",), console_tail=("Rebooting",))
    )
    section = drawn[drawn.index("  it panicked") :]
    assert section.splitlines()[:8] == [
        "  it panicked",
        "  note: cached copy",
        "  the kernel complained:",
        "      WARNING: at x.c:1",
        "  its fingerprint: WARNING",
        "  the console's last lines:",
        "      Rebooting",
        "  log of 6.12: runs/1/6.12/console.log",
    ]


def test_no_console_is_named_of_a_kernel_that_was_never_started() -> None:
    unstarted = with_kernel(status=Status.INFRA_ERROR, reason="no such package", boot_seconds=0.0)
    assert "console.log" not in terminal.render(unstarted)
    assert "console.log" not in markdown.render(unstarted)
    silent = with_kernel(status=Status.BOOT_FAILED, boot_seconds=0.0)
    assert "runs/1/6.12/console.log" in terminal.render(silent)
    assert "runs/1/6.12/console.log" in markdown.render(silent)


def test_the_log_that_is_named_is_that_of_the_guest_whose_console_is_shown() -> None:
    late = with_kernel(
        status=Status.PANICKED,
        directory="6.12",
        start="cold",
        console_tail=("Oops",),
        console_log="console-7.log",
    )
    page = html.render(late, html.Memory(beside=True))
    for said in (terminal.render(late), markdown.render(late), page):
        assert "6.12/console-7.log" in said
        assert "console.log" not in said


def test_a_note_of_a_kernel_that_passed_is_said() -> None:
    assert "6.12: a cached copy\n" in terminal.render(
        with_kernel(status=Status.PASSED, reason="", note="a cached copy")
    )


def test_a_test_that_ran_nowhere_is_reported() -> None:
    drawn = terminal.render(failing(outcome=Outcome.SKIPPED, message="no veth"))
    assert "1 test ran on no kernel of this matrix:\n  test_x\n" in drawn


def test_the_reason_of_a_skip_is_listed() -> None:
    drawn = terminal.render(failing(outcome=Outcome.SKIPPED, message="no veth"))
    assert "  skip  test_x on 6.12: no veth\n" in drawn


def test_the_summary_is_the_last_line() -> None:
    assert terminal.render(failing()).splitlines()[-1] == (
        "1 kernel: 1 failed (exit status 1), 1 test (1 FAILED), 1.0 s"
    )


def test_a_matrix_without_kernels_is_a_summary() -> None:
    empty = Matrix(SCHEMA, "run", "", 0.0, (), ())
    assert (
        terminal.render(empty)
        == "0 kernels: nothing to do (exit status 5: nothing ran), 0 tests, 0.0 s\n"
    )


@pytest.mark.parametrize(("start", "row"), [("warm", True), ("cold+warm", True), ("cold", False)])
def test_a_guest_from_a_snapshot_is_said_to_be_one(start: str, row: bool) -> None:
    lines = terminal.render(with_kernel(start=start), width=160).splitlines()
    assert any(line.split() == ["start", start] for line in lines) == row


def test_a_name_with_line_breaks_begins_no_line_of_the_report() -> None:
    """A guest names its tests as it likes: none of them is to look like another kernel's row."""
    name = "t.py::test_x\n9.9: PASSED\n::error::forged"
    test = TestResult(name, "s", Outcome.FAILED, message="no", details="E   no")
    kernel = KernelResult(
        "6.1",
        Status.FAILED,
        reason="1 failed",
        tests=(test,),
        splats=("WARNING: bad",),
        fingerprints=("WARNING",),
        splat_tests=(f"{name} of another file",),
    )
    report = terminal.render(Matrix(SCHEMA, "r", "2026-11-30T09:00:00Z", 1.0, ("s",), (kernel,)))
    assert "forged" in report
    begins = [line for line in report.split("\n") if line.startswith(("9.9", "::"))]
    assert begins == []

"""What is written for GitHub's runner, and that no guest writes to it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pages
import pytest
from command import Said, vmtest
from many import CAUSES, many

from vmtest.cli.actions import Folded
from vmtest.model.events import Output
from vmtest.model.loads import Change, ChangeKind, LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import github
from vmtest.report.live import PlainView
from vmtest.runs import matrix_json

EVIL = "::error file=x::owned"


def comment(matrix: Matrix) -> str:
    return github.comment(matrix, github.deciding(matrix))


def failing(**more: Any) -> Matrix:
    test = TestResult("t.py::test_a", "s", Outcome.FAILED, 0.1, "no, 100%: it\nfailed")
    test = replace(test, line=7, **{"file": "tests/t.py", **more})
    return pages.of(KernelResult("6.12", Status.FAILED, tests=(test,)))


def test_a_cause_is_an_annotation_at_its_place() -> None:
    assert github.annotated(github.deciding(failing())) == (
        "::error file=tests/t.py,line=7,title=test_a on 6.12::no, 100%25: it failed",
    )


def test_a_project_below_the_repository_has_its_folder_in_front() -> None:
    (line,) = github.annotated(github.deciding(failing()), "bpf")
    assert line.startswith("::error file=bpf/tests/t.py,line=7,")


def test_a_value_cannot_end_early() -> None:
    (line,) = github.annotated(github.deciding(failing(file="a,line=1::x%.py")))
    assert line.startswith("::error file=a%2Cline=1%3A%3Ax%25.py,line=7,title=")


def test_no_more_annotations_than_github_shows() -> None:
    lines = github.annotated(github.deciding(many()))
    assert len(lines) == 11
    assert lines[-1] == f"::notice::and {CAUSES - 10} more causes; the summary has all"


def test_a_run_that_passed_has_nothing_to_say() -> None:
    good = pages.of(
        KernelResult("6.12", Status.PASSED, tests=(TestResult("t", "s", Outcome.PASSED),))
    )
    assert (github.annotated(github.deciding(good)), comment(good)) == ((), "")


def test_a_comment_has_causes_commands_and_changed_costs() -> None:
    change = Change(
        "o", "p", ChangeKind.COST, Verdict.ACCEPTED, Verdict.ACCEPTED,
        cost="instructions", old=100, new=150, since="6.12.1",
    )  # fmt: skip
    kernel = replace(failing().kernels[0], changes=(change,))
    text = comment(replace(failing(), kernels=(kernel,)))
    assert "- **FAIL** on 6.12: `tests/t.py:7`: `no, 100%: it failed`" in text
    assert "`vmtest run --kernel 6.12 --suite s -k test_a`" in text
    assert re.search(r"\| cost `o.*p: instructions 100 -> 150 \(\+50\.0%\).*` \| 6\.12 \|", text)


def executed(script: str) -> str:
    of = replace(failing(), command=("sh", "-c", script), again=(("exec",),))
    return comment(of)


def test_a_command_of_several_lines_is_a_block_of_the_item() -> None:
    lines = executed("a  b\n\n```\nc").split("\n")
    at = lines.index("  ````text")
    assert lines[at : at + 6] == [
        "  ````text", "  vmtest exec --kernel 6.12 -- sh -c 'a  b", "", "  ```", "  c'", "  ````",
    ]  # fmt: skip


def test_a_long_command_is_not_cut() -> None:
    assert "its command is long" in executed("x " * 600)
    assert "x x" not in executed("x " * 600)
    assert "x" * 800 in executed("x" * 800)


def test_a_cost_that_changed_is_worth_a_comment_where_everything_passed() -> None:
    change = Change(
        "o", "p", ChangeKind.COST, Verdict.ACCEPTED, Verdict.ACCEPTED,
        cost="instructions", old=100, new=150, since="6.12.1",
    )  # fmt: skip
    loads = (LoadResult("o", "p", Verdict.ACCEPTED),)
    kernel = KernelResult("6.12", Status.PASSED, loads=loads, changes=(change,))
    assert "instructions 100 -> 150" in comment(pages.of(kernel))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project below a repository, with a run in which a guest tries to annotate."""
    project = tmp_path / "repository" / "below"
    run = project / ".vmtest" / "runs" / "20261101T000000Z-000001"
    run.mkdir(parents=True)
    evil = failing(message=EVIL, details=f"{EVIL}\n  {EVIL}", output=f"{EVIL}\n##[error]owned\n")
    (run / "matrix.json").write_text(matrix_json.dumps(evil))
    return project


def report(project: Path, *options: str, environment: Mapping[str, str] | None = None) -> Said:
    run = str(project / ".vmtest" / "runs" / "20261101T000000Z-000001")
    files = {
        "GITHUB_STEP_SUMMARY": str(project.parent / "summary.md"),
        "GITHUB_OUTPUT": str(project.parent / "output"),
        "GITHUB_WORKSPACE": str(project.parent),
    }
    return vmtest("report", run, *options, cwd=project, environment=files | dict(environment or {}))


def obeyed(text: str) -> list[str]:
    """The commands that GitHub's runner takes out of ``text``: any indentation, and stops."""
    found, token = [], None
    for line in text.splitlines():
        command = line.lstrip()
        if token is not None:
            token = None if command == f"::{token}::" else token
        elif stopped := re.fullmatch("::stop-commands::(.+)", command):
            token = stopped[1]
        elif command.startswith("::") or "##[" in line:
            found.append(command)
    assert token is None
    return found


@pytest.mark.parametrize("options", [(), ("-v",), ("-q",)])
def test_a_guests_line_is_not_obeyed(project: Path, options: tuple[str, ...]) -> None:
    (command,) = obeyed(report(project, "--github", *options).out)
    assert command.startswith("::error file=below/tests/t.py,line=7,title=test_a on 6.12::")


@pytest.mark.parametrize("said", [Output("k", b"", b"oops"), Output("k", b"oops", b"")])
def test_the_runner_obeys_again_behind_a_line_without_an_end(said: Output) -> None:
    stream = StringIO()
    with Folded(PlainView(stream, quiet=True), stream) as view:
        stream.write((said.out + said.err).decode())
        view.handle(said)
    found = obeyed(f"{stream.getvalue()}::warning::x")
    assert found == ["::group::vmtest", "::endgroup::", "::warning::x"]


def test_a_line_that_ended_is_not_ended_again() -> None:
    stream = StringIO()
    with Folded(PlainView(stream, quiet=True), stream) as view:
        view.handle(Output("k", b"", b"oo"))
        view.handle(Output("k", b"", b"ps\n"))
    assert "" not in stream.getvalue().splitlines()


def test_it_is_on_by_itself_in_actions(project: Path) -> None:
    assert obeyed(report(project, environment={"GITHUB_ACTIONS": "true"}).out)


def test_it_can_be_left_out_there(project: Path) -> None:
    said = report(project, "--no-github", environment={"GITHUB_ACTIONS": "true"})
    assert "::stop-commands::" not in said.out


def test_elsewhere_it_is_off(project: Path) -> None:
    assert "::stop-commands::" not in report(project).out


def test_the_summary_and_the_comment_are_left_for_the_step(project: Path) -> None:
    report(project, "--github")
    assert "1 of 1 kernel did not pass" in (project.parent / "summary.md").read_text()
    output = (project.parent / "output").read_text()
    comment = Path(output.removeprefix("comment=").strip())
    assert "tests/t.py:7" in comment.read_text()


def test_a_summary_that_cannot_be_written_costs_the_run_nothing(project: Path) -> None:
    said = report(project, "--github", environment={"GITHUB_STEP_SUMMARY": "/proc/none"})
    assert said.status == 1
    assert "GITHUB_STEP_SUMMARY: cannot write" in said.err

"""What the options -q, -v, --color and the environment make of a report."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import typer
from command import Said, vmtest
from many import CAUSES, many
from typer.testing import CliRunner

from vmtest.cli.main import app
from vmtest.cli.reports import Reports
from vmtest.cli.watch import Screen
from vmtest.model.loads import Change, ChangeKind
from vmtest.model.results import KernelResult, Status
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder

COMMANDS = ("run", "exec", "verify", "report", "merge")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run, which has no log but that of 5.10."""
    project = tmp_path_factory.mktemp("project")
    run = project / ".vmtest" / "runs" / many().run
    (run / "5.10").mkdir(parents=True)
    (run / "5.10" / "pytest.log").touch()
    (run / "matrix.json").write_text(matrix_json.dumps(many()), encoding="utf-8")
    (project / "below").mkdir()
    return project


def report(project: Path, *options: str, below: str = ".", **environment: str) -> Said:
    run = str(project / ".vmtest" / "runs" / many().run)
    return vmtest("report", run, *options, cwd=project / below, environment=environment)


@pytest.mark.parametrize("below", [".", "below"])
def test_every_log_that_is_named_is_there(project: Path, below: str) -> None:
    said = report(project, "-v", below=below)
    named = re.findall(r"^  log of .*: (.*)$", said.out, re.MULTILINE)
    assert named
    assert all((project / below / name).is_file() for name in named)


def test_a_run_with_a_page_ends_with_its_path(tmp_path: Path) -> None:
    run = tmp_path / ".vmtest" / "runs" / many().run
    run.mkdir(parents=True)
    (run / "matrix.json").write_text(matrix_json.dumps(many()), encoding="utf-8")
    assert "\npage: " not in vmtest("report", str(run), cwd=tmp_path).out
    (run / "report.html").touch()
    end = f"logs: .vmtest/runs/{run.name}\npage: .vmtest/runs/{run.name}/report.html\n"
    assert vmtest("report", str(run), cwd=tmp_path).out.endswith(end)


def test_the_whole_is_less_than_120_lines(project: Path) -> None:
    assert len(report(project).out.splitlines()) < 120


def test_quiet_prints_the_causes_and_the_summary(project: Path) -> None:
    assert len(report(project, "-q").out.splitlines()) < 2 * CAUSES + 6


def test_verbose_prints_every_failure_in_full(project: Path) -> None:
    assert report(project, "-v").out.count("\nFAIL ") == CAUSES


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the command line, by its words."""
    yield names
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*names, name))


def test_help_names_no_value_for_an_option_that_takes_none() -> None:
    runner = CliRunner()
    found = list(commands(typer.main.get_command(app)))
    assert len(found) > 30
    for words in found:
        said = runner.invoke(app, [*words, "--help"], env={"COLUMNS": "120"}).output
        assert "--help" in said
        assert "<bool>" not in said and "BOOLEAN" not in said, words


def test_a_folder_that_is_made_for_a_report_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "deep" / "x.json"
    reports = Reports(json=file)
    reports.make_room()
    told = f"made the folder {file.parent}, which was not there, for x.json\n"
    assert capsys.readouterr().err == told
    assert file.parent.is_dir()
    reports.make_room()
    assert capsys.readouterr().err == ""


def test_a_watch_says_that_changes_are_since_the_last_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = Change("o", "p", ChangeKind.COST, cost="instructions", old=100, new=150, since="6.12")
    kernel = KernelResult("6.12", Status.PASSED, changes=(change,))
    Screen(bell=False, command=()).ended(pages.of(kernel), RunFolder(tmp_path))
    assert "changes since the last save" in capsys.readouterr().out


def test_quiet_and_verbose_exclude_each_other(project: Path) -> None:
    report(project, "-q", "-v").refuses(2, "-q and -v: give one of them")


def test_a_pipe_has_no_colours(project: Path) -> None:
    assert "\x1b" not in report(project).out


@pytest.mark.parametrize("name", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_the_environment_can_force_colours(project: Path, name: str) -> None:
    assert "\x1b[1;31mFAIL" in report(project, **{name: "1"}).out


def test_colours_can_be_asked_for(project: Path) -> None:
    assert "\x1b[1;31mFAIL" in report(project, "--color", "always", NO_COLOR="1").out


def test_no_color_wins_over_force_color(project: Path) -> None:
    assert "\x1b" not in report(project, NO_COLOR="1", FORCE_COLOR="1").out


def test_colours_can_be_refused(project: Path) -> None:
    assert "\x1b" not in report(project, "--color", "never", FORCE_COLOR="1").out


def test_another_word_for_color_is_refused(project: Path) -> None:
    report(project, "--color", "yes").refuses(2, "--color yes: write auto, always or never")


@pytest.mark.parametrize("command", [*COMMANDS, "runs list", "kernels list", "bisect step"])
def test_h_is_help(command: str, tmp_path: Path) -> None:
    said = vmtest(*command.split(), "-h", cwd=tmp_path)
    assert (said.status, "Usage: " in said.out) == (0, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_with_a_report_takes_the_options(command: str, tmp_path: Path) -> None:
    said = vmtest(command, "-h", cwd=tmp_path, environment={"NO_COLOR": "1"})
    assert all(option in said.out for option in ("--color", "--quiet", "--verbose"))

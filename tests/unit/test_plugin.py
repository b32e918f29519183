"""`pytest --vmtest-kernel`: what pytest collects, and what it says of a guest's end."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.model.versions import KernelVersion
from vmtest.plugin.items import unwanted

TESTS = """
import pytest

def test_plain():
    pass

@pytest.mark.parametrize("n", [1, 2])
def test_n(n):
    pass
"""
# The run itself is a script of events; all around it is pytest's and the plugin's own.
SCRIPTED = """
import sys
from dataclasses import replace
from pathlib import Path
import pytest
from vmtest.api.run import Run
from vmtest.model.events import KernelFinished, TestFinished
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.plugin import guests

def done(test, outcome=Outcome.PASSED, **more):
    return TestResult(f"test_x.py::{test}", "test_x.py", outcome, **more)

def run_suites(settings, request, emit, stop):
    results = {results}
    for result in results:
        for test in result.tests:
            if test.outcome not in (Outcome.LOST, Outcome.NOT_RUN):
                emit(TestFinished(result.kernel, test))
        if stop.requested:
            break
        emit(KernelFinished(result.kernel, result))
    kernels = tuple(results)
    matrix = Matrix(schema=1, run="r", started="", duration=0.0, suites=(), kernels=kernels,
        notes=("e \\x1b[2J f",))
    return Run(matrix, Path("logs"))

guests.run_suites = run_suites
OWN = ["-p", "no:vmtest", "-p", "vmtest.plugin.options", "-rA", "-W", "ignore"]
sys.exit(pytest.main([*OWN, *sys.argv[1:]]))
"""


def run(folder: Path, *options: str, results: str = "[]") -> subprocess.CompletedProcess[str]:
    (folder / "test_x.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "run.py").write_text(textwrap.dedent(SCRIPTED).replace("{results}", results))
    return subprocess.run(
        [sys.executable, "run.py", "-p", "no:randomly", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_each_test_is_an_item_for_each_kernel(tmp_path: Path) -> None:
    kernels = ("--vmtest-kernel", "6.12", "--vmtest-kernel", "5.10")
    told = run(tmp_path, *kernels, "--collect-only", "-q").stdout
    assert told.splitlines()[:6] == [
        "test_x.py::test_plain[5.10]",
        "test_x.py::test_plain[6.12]",
        "test_x.py::test_n[1-5.10]",
        "test_x.py::test_n[1-6.12]",
        "test_x.py::test_n[2-5.10]",
        "test_x.py::test_n[2-6.12]",
    ]
    assert "6 tests collected" in told


def test_pytests_own_options_choose_among_the_items(tmp_path: Path) -> None:
    kernels = ("--vmtest-kernel", "6.12", "--vmtest-kernel", "5.10")
    told = run(tmp_path, *kernels, "--collect-only", "-q", "-k", "test_n and 5.10").stdout
    assert [line for line in told.splitlines() if "::" in line] == [
        "test_x.py::test_n[1-5.10]",
        "test_x.py::test_n[2-5.10]",
    ]


def test_without_a_kernel_the_tests_run_here(tmp_path: Path) -> None:
    assert "3 passed" in run(tmp_path).stdout


def test_results_of_a_guest_are_reported_as_local_ones(tmp_path: Path) -> None:
    results = """[KernelResult("6.12", Status.FAILED, tests=(
        done("test_plain"),
        done("test_n[1]", Outcome.FAILED, message="assert 1 == 2", details=">   assert 1 == 2",
             output="said"),
        done("test_n[2]", Outcome.XFAILED, message="known"),
    ))]"""
    ended = run(tmp_path, "--vmtest-kernel", "6.12", "--junitxml=j.xml", results=results)
    assert ended.returncode == 1
    assert "FAILED test_x.py::test_n[1-6.12] - assert 1 == 2" in ended.stdout
    assert "Captured output in 6.12" in ended.stdout
    assert "1 failed, 1 passed, 1 xfailed" in ended.stdout
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "j.xml").iter("testcase")}
    assert set(cases) == {"test_plain[6.12]", "test_n[1-6.12]", "test_n[2-6.12]"}
    failure = cases["test_n[1-6.12]"].find("failure")
    assert failure is not None and failure.get("message") == "assert 1 == 2"


def test_what_a_guest_says_reaches_no_terminal_as_it_is(tmp_path: Path) -> None:
    results = r"""[KernelResult("6.12", Status.FAILED, tests=(
        done("test_plain", Outcome.FAILED, message="m", details="a \x1b]0;owned\x07\x1b[2Jb",
             output="c \x1b]0;owned\x07\x1b[2Jd"),
    ))]"""
    ended = run(tmp_path, "--vmtest-kernel", "6.12", results=results)
    assert "\x1b]0;" not in ended.stdout and "\x1b[2J" not in ended.stdout
    assert "c d" in ended.stdout and "a b" in ended.stdout
    assert "vmtest: note: e f\n" in ended.stdout


def test_a_kernel_that_does_not_boot_is_an_error_and_no_failure(tmp_path: Path) -> None:
    results = '[KernelResult("6.12", Status.BOOT_FAILED, reason="no SSH session")]'
    ended = run(tmp_path, "--vmtest-kernel", "6.12", results=results)
    assert ended.returncode == 3
    assert "3 errors" in ended.stdout
    assert "6.12: BOOT_FAILED: no SSH session" in ended.stdout


def test_a_kernel_that_failed_counts_more_than_one_that_does_not_boot(tmp_path: Path) -> None:
    results = """[
        KernelResult("5.10", Status.BOOT_FAILED, reason="no SSH session"),
        KernelResult("6.12", Status.FAILED, tests=(
            done("test_plain", Outcome.FAILED), done("test_n[1]"), done("test_n[2]"))),
    ]"""
    kernels = ("--vmtest-kernel", "6.12", "--vmtest-kernel", "5.10")
    assert run(tmp_path, *kernels, results=results).returncode == 1


def test_a_module_that_is_skipped_in_the_guest_skips_its_tests(tmp_path: Path) -> None:
    results = """[KernelResult("6.12", Status.PASSED, tests=(
        TestResult("test_x.py", "test_x.py", Outcome.SKIPPED, message="no such module"),))]"""
    ended = run(tmp_path, "--vmtest-kernel", "6.12", results=results)
    assert ended.returncode == 0
    assert "3 skipped" in ended.stdout


def test_a_module_that_is_broken_in_the_guest_shows_why(tmp_path: Path) -> None:
    results = """[KernelResult("6.12", Status.FAILED, reason="1 with errors", tests=(
        TestResult("test_x.py", "test_x.py", Outcome.ERROR, message="No module named 'm'"),))]"""
    ended = run(tmp_path, "--vmtest-kernel", "6.12", results=results)
    assert ended.returncode == 1
    assert "3 errors" in ended.stdout
    assert "No module named 'm'" in ended.stdout


def test_a_test_outside_of_the_rootdir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "other" / "test_y.py").write_text("def test_a(): pass\n")
    ended = run(tmp_path / "here", "--vmtest-kernel", "6.12", "--rootdir=.", "../other/test_y.py")
    assert ended.returncode == 4
    assert "test_y.py is not below pytest's rootdir" in ended.stdout + ended.stderr


@pytest.mark.parametrize("status", ["SPLAT", "PANICKED", "FAILED", "NO_TESTS", "TIMED_OUT"])
def test_a_kernel_that_is_not_well_fails_though_its_tests_passed(
    tmp_path: Path, status: str
) -> None:
    results = f"""[KernelResult("6.12", Status.{status}, reason="because", tests=(
        done("test_plain"), done("test_n[1]"), done("test_n[2]")))]"""
    ended = run(tmp_path, "--vmtest-kernel", "6.12", results=results)
    assert ended.returncode == 1
    assert f"6.12: {status}: because" in ended.stdout
    assert "3 passed, 1 error" in ended.stdout


def test_what_a_dying_guest_lost_is_reported(tmp_path: Path) -> None:
    results = """[KernelResult("6.12", Status.PANICKED, reason="kernel panicked", tests=(
        done("test_plain"), done("test_n[1]", Outcome.LOST, message="kernel panicked"),
        done("test_n[2]", Outcome.NOT_RUN)))]"""
    ended = run(tmp_path, "--vmtest-kernel", "6.12", results=results)
    assert "1 failed, 1 passed, 1 error" in ended.stdout
    assert "6.12: lost: kernel panicked" in ended.stdout
    assert "6.12: not run: PANICKED: kernel panicked" in ended.stdout


def test_exitfirst_ends_the_run(tmp_path: Path) -> None:
    results = """[
        KernelResult("5.10", Status.FAILED, tests=(done("test_plain", Outcome.FAILED),)),
        KernelResult("6.12", Status.PASSED, tests=(done("test_plain"),)),
    ]"""
    kernels = ("--vmtest-kernel", "6.12", "--vmtest-kernel", "5.10")
    ended = run(tmp_path, "-x", *kernels, results=results)
    assert "stopping after 1 failures" in ended.stdout
    assert "1 failed in" in ended.stdout


@pytest.mark.parametrize(
    "options, said",
    [
        (["--vmtest-kernel", "7.77"], "--vmtest-kernel 7.77"),
        (["--vmtest-kernel", "6.12", "--pdb"], "--pdb needs the test here"),
        (["--vmtest-kernel", "6.12", "--setup-plan"], "--setup-only and --setup-plan show"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    ended = run(tmp_path, *options)
    assert ended.returncode == 4
    assert said in ended.stdout + ended.stderr


def mark(*arguments: object) -> pytest.Mark:
    return pytest.Mark("kernel", arguments, {}, _ispytest=True)


def test_a_mark_says_which_kernels_a_test_is_for() -> None:
    old, new = KernelVersion.parse("5.10.2"), KernelVersion.parse("6.12.1")
    assert unwanted([mark(">=6.1")], old) == "kernel 5.10.2 is not >=6.1"
    assert unwanted([mark(">=6.1")], new) == ""
    assert unwanted([mark(">=6.1"), mark("<6.12")], new) == "kernel 6.12.1 is not <6.12"


def test_a_kernel_of_unknown_version_runs_everything() -> None:
    assert unwanted([mark(">=6.1")], None) == ""


@pytest.mark.parametrize("arguments", [(), (6.1,), (">=6.1", "<7"), ("new",)])
def test_a_mark_without_a_range_is_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(UsageError, match=r"pytest\.mark\.kernel"):
        unwanted([mark(*arguments)], None)

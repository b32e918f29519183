"""``vmtest known``: the entries of kernels.toml, beside what the last run showed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import vmtest

from vmtest.model.results import KernelResult, KnownComplaint, Matrix, Outcome, Status, TestResult
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json

CONFIG = """
schema = 1
[apt.debian]
suites = ["trixie-security"]
[[kernel]]
name = "5.10"
apt = "debian"
version = "5.10.*"
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.117-1"
[[kernel]]
name = "newest"
apt = "debian"
version = "*"
[[suite]]
name = "net"
tests = "tests/test_net.py"
"""

ENTRY = '[[known_failure]]\ntest = "test_net.py::test_a"\nreason = "issue 7"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "kernels.toml").write_text(CONFIG)
    return tmp_path


def know(project: Path, more: str) -> None:
    (project / "kernels.toml").write_text(CONFIG + ENTRY + more)


def remember(project: Path, **outcomes: Outcome) -> None:
    """Leave a last run on kernel ``newest``, which is 6.1, with tests of these names."""
    tests = tuple(TestResult(f"test_net.py::{n}", "net", o) for n, o in outcomes.items())
    leave(project, KernelResult("newest", Status.PASSED, version="6.1.7", tests=tests))


def leave(project: Path, ran: KernelResult) -> None:
    """Leave a last run that came to ``ran``."""
    folder = runs.create(project)
    folder.become_latest()
    matrix = Matrix(1, folder.name, "2026-07-01T00:00:00+00:00", 1.0, ("net",), (ran,))
    folder.write("matrix.json", matrix_json.dumps(matrix))


def listed(project: Path) -> dict[str, object]:
    said = vmtest("known", "--json", cwd=project)
    (entry,) = json.loads(said.out)["known_failures"]
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize(
    ("kernels", "concerns", "perhaps"),
    [
        ("<5.15", ["5.10"], ["newest"]),
        (">=5.10.200", ["6.12"], ["5.10", "newest"]),
        ("==6.12.117", ["6.12"], ["5.10", "newest"]),
        (">=4", ["5.10", "6.12"], ["newest"]),
    ],
)
def test_without_a_run_kernels_toml_tells_the_kernels_as_far_as_it_can(
    kernels: str, concerns: list[str], perhaps: list[str], project: Path
) -> None:
    know(project, f'kernels = "{kernels}"\n')
    entry = listed(project)
    assert (entry["concerns"], entry["perhaps"]) == (concerns, perhaps)


def test_without_a_range_all_kernels_are_concerned(project: Path) -> None:
    know(project, "")
    assert listed(project)["concerns"] == ["5.10", "6.12", "newest"]


def test_the_last_run_tells_what_a_kernel_is(project: Path) -> None:
    remember(project, test_a=Outcome.XFAILED)
    know(project, 'kernels = ">=6.1,<6.2"\n')
    entry = listed(project)
    assert (entry["concerns"], entry["perhaps"]) == (["newest"], [])


def test_the_table_says_what_the_last_run_showed(project: Path) -> None:
    remember(project, test_a=Outcome.XPASSED, test_b=Outcome.PASSED)
    know(project, 'kernels = ">=6.1,<6.2"\n')
    said = vmtest("known", cwd=project)
    assert "newest: 1 xpassed" in said.out
    assert "issue 7" in said.out


def test_an_entry_that_meant_no_test_is_told(project: Path) -> None:
    remember(project, test_b=Outcome.PASSED)
    know(project, "")
    assert "newest: no such test" in vmtest("known", cwd=project).out


@pytest.mark.parametrize(
    ("until", "status", "word"), [("2020-02-02", 1, "EXPIRED"), ("2999-02-02", 0, "2999-02-02")]
)
def test_an_expired_entry_is_the_exit_status(
    until: str, status: int, word: str, project: Path
) -> None:
    know(project, f"until = {until}\n")
    said = vmtest("known", cwd=project)
    assert (said.status, word in said.out) == (status, True)


SPLAT = '[[known_splat]]\npattern = "WARNING in f"\nreason = "issue 8"\n'


@pytest.mark.parametrize(
    ("until", "status", "word"), [("2020-02-02", 1, "EXPIRED"), ("2999-02-02", 0, "2999-02-02")]
)
def test_a_known_splat_is_listed_and_expires(
    until: str, status: int, word: str, project: Path
) -> None:
    (project / "kernels.toml").write_text(f"{CONFIG}{SPLAT}until = {until}\n")
    said = vmtest("known", cwd=project)
    assert (said.status, word in said.out, "WARNING in f" in said.out) == (status, True, True)


def test_a_known_splat_shows_how_often_the_last_run_had_it(project: Path) -> None:
    (project / "kernels.toml").write_text(CONFIG + SPLAT)
    known = KnownComplaint("WARNING: CPU: 0", "WARNING in f", "issue 8")
    splats = (known, known)
    leave(project, KernelResult("newest", Status.PASSED, version="6.1.7", known_splats=splats))
    said = vmtest("known", "--json", cwd=project)
    (entry,) = json.loads(said.out)["known_splats"]
    assert (entry["pattern"], entry["seen"]) == ("WARNING in f", {"newest": {"seen": 2}})


FLAKY = '[[flaky]]\ntest = "test_net.py::test_a"\nreason = "issue 9"\n'


@pytest.mark.parametrize(
    ("until", "status", "word"), [("2020-02-02", 1, "EXPIRED"), ("2999-02-02", 0, "2999-02-02")]
)
def test_a_flaky_test_is_listed_and_expires(
    until: str, status: int, word: str, project: Path
) -> None:
    (project / "kernels.toml").write_text(f"{CONFIG}{FLAKY}until = {until}\n")
    said = vmtest("known", cwd=project)
    assert (said.status, word in said.out, "flaky test" in said.out) == (status, True, True)


def test_a_flaky_test_shows_what_the_last_run_made_of_it(project: Path) -> None:
    (project / "kernels.toml").write_text(CONFIG + FLAKY)
    test = TestResult("test_net.py::test_a", "net", Outcome.PASSED, flaky=True)
    leave(project, KernelResult("newest", Status.PASSED, version="6.1.7", tests=(test,)))
    (entry,) = json.loads(vmtest("known", "--json", cwd=project).out)["flaky"]
    assert (entry["test"], entry["seen"]) == ("test_net.py::test_a", {"newest": {"flaky": 1}})


def test_nothing_to_list_is_said(project: Path) -> None:
    said = vmtest("known", cwd=project)
    assert (said.status, "there is no [[known_failure]]" in said.out) == (0, True)


def test_control_characters_of_a_pattern_do_not_reach_the_terminal(project: Path) -> None:
    text = '[[known_failure]]\ntest = "test_\\u001b[31mred.py::*"\nreason = "a\\u0007b"\n'
    (project / "kernels.toml").write_text(CONFIG + text)
    said = vmtest("known", cwd=project)
    assert "\x1b" not in said.out and "\x07" not in said.out
    assert "a\\x07b" in said.out

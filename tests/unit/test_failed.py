"""--last-failed and --failed-first: what did not pass, and the plugin that chooses it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pages
import pytest
from command import vmtest
from watched import Watched

from vmtest.errors import UsageError
from vmtest.model.project import Suite
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.runs import matrix_json
from vmtest.suites.failed import Failed, failed

Watch = Callable[[str], Watched]


def kernel(name: str = "6.12", status: Status = Status.FAILED, **tests: Outcome) -> KernelResult:
    results = tuple(TestResult(f"t.py::{test}", "s", out) for test, out in tests.items())
    return KernelResult(name, status, tests=results)


def left(*matrices: Matrix) -> dict[str, list[str] | None]:
    found = failed(matrices, only=True).tests
    return {
        name: None if tests is None else sorted(test.split("::")[1] for _, test in tests)
        for name, tests in found.items()
    }


def test_what_did_not_pass_is_left_whatever_kept_it() -> None:
    outcomes = {outcome.name.lower(): outcome for outcome in Outcome}
    assert left(pages.of(kernel("6.12", Status.FAILED, **outcomes))) == {
        "6.12": ["error", "failed", "lost", "not_run", "xpassed"]
    }


def test_each_kernel_has_its_own() -> None:
    run = pages.of(
        kernel("5.10", a=Outcome.FAILED, b=Outcome.PASSED),
        kernel("6.1", a=Outcome.PASSED, b=Outcome.FAILED),
        kernel("6.12", Status.PASSED, a=Outcome.PASSED, b=Outcome.PASSED),
    )
    assert left(run) == {"5.10": ["a"], "6.1": ["b"]}


def test_a_test_that_a_narrowed_run_left_out_has_its_last_result() -> None:
    narrowed = pages.of(kernel(a=Outcome.PASSED))
    assert left(narrowed, pages.of(kernel(a=Outcome.FAILED, b=Outcome.FAILED))) == {"6.12": ["b"]}


def test_a_kernel_that_did_not_boot_runs_everything() -> None:
    dead = pages.of(kernel(status=Status.BOOT_FAILED))
    assert left(dead, pages.of(kernel(a=Outcome.PASSED))) == {"6.12": None}


@pytest.mark.parametrize(
    "other",
    [
        replace(pages.of(kernel(a=Outcome.PASSED)), command=("true",)),
        pages.of(kernel(a=Outcome.PASSED), suites=()),
        pages.of(kernel(status=Status.COLLECTED, a=Outcome.COLLECTED)),
    ],
)
def test_a_run_of_another_kind_says_nothing(other: Matrix) -> None:
    assert left(other, pages.of(kernel(a=Outcome.FAILED))) == {"6.12": ["a"]}


def test_suites_without_a_failure_do_not_go_along() -> None:
    suites = tuple(Suite(name, Path(name)) for name in ("s", "z"))
    found = failed([pages.of(kernel(a=Outcome.FAILED))], only=True)
    assert [suite.name for suite in found.suites(suites)] == ["s"]
    assert replace(found, only=False).suites(suites) == suites


def test_where_nothing_failed_there_is_nothing_to_run_again() -> None:
    with pytest.raises(UsageError, match="nothing that was chosen failed in the last runs"):
        Failed({}, only=True).suites((Suite("s", Path("s")),))


TEXT = """
import pytest
def test_a(): pass
@pytest.mark.parametrize("x", ["1", "2::3", "[4]"])
def test_many(x): pass
def test_z(): pass
"""


@pytest.mark.parametrize(
    ("tests", "only", "run"),
    [
        (["test_z", "test_many[2::3]"], True, ["test_many[2::3]", "test_z"]),
        (
            ["test_z", "test_many[[4]]"],
            False,
            ["test_many[[4]]", "test_z", "test_a", "test_many[1]", "test_many[2::3]"],
        ),
    ],
)
def test_the_guest_runs_what_failed(
    watch: Watch, tests: list[str], only: bool, run: list[str]
) -> None:
    watched = watch(TEXT)
    known = frozenset(("it", f"test_it.py::{test}") for test in tests)
    watched.install()
    (watched.guest / "failed.json").write_bytes(Failed({"k": known}, only).for_guest("k"))
    watched.execute_installed()
    assert list(watched.run.tests) == [f"test_it.py::{test}" for test in run]
    assert watched.run.exit_status == 0


def test_a_module_that_could_not_be_imported_means_all_its_tests(watch: Watch) -> None:
    watched = watch(TEXT)
    watched.install()
    found = json.dumps({"tests": ["test_it.py"], "only": True})
    (watched.guest / "failed.json").write_text(found)
    watched.execute_installed()
    assert len(watched.run.tests) == 5


def test_nothing_failed_ends_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "kernels.toml").write_text(
        'schema = 1\n[apt.debian]\nsuites = ["bookworm"]\n[[kernel]]\nname = "6.1"\n'
        'apt = "debian"\nversion = "6.1.*"\ntags = ["default"]\n'
        '[build]\ncommand = ["touch", "built"]\n[[suite]]\nname = "s"\ntests = "tests"\n'
    )
    run = tmp_path / ".vmtest" / "runs" / "20261101T000000Z-000001"
    run.mkdir(parents=True)
    good = pages.of(kernel("6.1", Status.PASSED, a=Outcome.PASSED))
    (run / "matrix.json").write_text(matrix_json.dumps(good))
    vmtest("run", "--last-failed", cwd=tmp_path).refuses(2, "leave --last-failed out")
    assert not (tmp_path / "built").exists()

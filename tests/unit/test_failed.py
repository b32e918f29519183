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
from vmtest.suites.failed import Earlier, Failed, failed

Watch = Callable[[str], Watched]


BAD = (Outcome.FAILED, Outcome.ERROR)


def kernel(name: str = "6.12", status: Status | None = None, **tests: Outcome) -> KernelResult:
    status = status or (Status.FAILED if {*BAD} & {*tests.values()} else Status.PASSED)
    results = tuple(TestResult(f"t.py::{test}", "s", out) for test, out in tests.items())
    return KernelResult(name, status, tests=results)


def left(*runs: Matrix | Earlier) -> dict[str, list[str] | None]:
    earlier = [Earlier(run) if isinstance(run, Matrix) else run for run in runs]
    found = failed(earlier, only=True).tests
    return {
        name: None if tests is None else sorted(test.split("::")[-1] for _, test in tests)
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


BADLY = [Status.SPLAT, Status.FAILED, Status.LOST, Status.PANICKED, Status.NO_TESTS]


@pytest.mark.parametrize("status", BADLY)
def test_a_kernel_that_failed_without_a_failed_test_runs_everything(status: Status) -> None:
    assert left(pages.of(kernel(status=status, a=Outcome.PASSED))) == {"6.12": None}


def test_a_newer_run_of_all_its_tests_clears_a_kernel_that_failed_without_a_failed_test() -> None:
    splat = pages.of(kernel(status=Status.SPLAT, a=Outcome.PASSED, b=Outcome.PASSED))
    good = kernel(status=Status.PASSED, a=Outcome.PASSED, b=Outcome.PASSED)
    assert left(pages.of(good), splat) == {}
    part = pages.of(replace(good, tests=good.tests[:1]))
    assert left(part, splat) == {"6.12": None}
    assert left(Earlier(part, whole=True), splat) == {}


def of_rows(**rows: Outcome) -> Matrix:
    """A run with a result for each node id, in which ``__`` stands for ``::``."""
    tests = tuple(
        TestResult(name.replace("__", "::").replace("t_py", "t.py"), "s", outcome)
        for name, outcome in rows.items()
    )
    status = Status.FAILED if {*BAD} & {*rows.values()} else Status.PASSED
    return pages.of(KernelResult("6.12", status, tests=tests))


@pytest.mark.parametrize("unread", ["t_py", "t_py__C"])
@pytest.mark.parametrize("now", [Outcome.PASSED, Outcome.FAILED])
def test_a_module_or_class_that_can_be_read_again_is_no_longer_failed(
    unread: str, now: Outcome
) -> None:
    newer = of_rows(t_py__C__a=now)
    older = of_rows(**{unread: Outcome.ERROR})
    assert left(newer, older) == ({"6.12": ["a"]} if now is Outcome.FAILED else {})


def test_a_module_that_newer_runs_did_not_read_stays_failed() -> None:
    assert left(of_rows(u__a=Outcome.PASSED), of_rows(t_py=Outcome.ERROR)) == {"6.12": ["t.py"]}


def test_a_test_that_a_newer_whole_run_did_not_have_is_gone() -> None:
    newer, older = pages.of(kernel(a=Outcome.PASSED)), pages.of(kernel(b=Outcome.FAILED))
    assert left(Earlier(newer, whole=True), older) == {}
    assert left(Earlier(newer, whole=False), older) == {"6.12": ["b"]}


@pytest.mark.parametrize("module", [Outcome.ERROR, Outcome.SKIPPED])
def test_a_test_whose_module_a_newer_whole_run_could_not_read_is_not_gone(module: Outcome) -> None:
    newer = of_rows(u__a=Outcome.PASSED, t_py=module)
    assert "b" in (left(Earlier(newer, whole=True), of_rows(t_py__b=Outcome.FAILED))["6.12"] or ())


def test_a_kernel_whose_failures_are_in_other_suites_does_not_run() -> None:
    tests = {"A": frozenset({("b", "b.py::x")}), "B": frozenset({("a", "a.py::x")}), "C": None}
    chosen = Failed(tests, only=True).of((Suite("a", Path("a")),))
    assert chosen.tests == {"B": tests["B"], "C": None}


def test_suites_without_a_failure_do_not_go_along() -> None:
    suites = tuple(Suite(name, Path(name)) for name in ("s", "z"))
    found = failed([Earlier(pages.of(kernel(a=Outcome.FAILED)))], only=True)
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


def test_a_class_that_could_not_be_read_means_all_its_tests(watch: Watch) -> None:
    watched = watch("class TestC:\n    def test_a(self): pass\ndef test_b(): pass\n")
    watched.install()
    found = json.dumps({"tests": ["test_it.py::TestC"], "only": True})
    (watched.guest / "failed.json").write_text(found)
    watched.execute_installed()
    assert watched.run.tests == ("test_it.py::TestC::test_a",)


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


TWO = """
schema = 1
[apt.debian]
suites = ["bookworm"]
[[kernel]]
name = "A"
apt = "debian"
version = "6.1.*"
[[kernel]]
name = "B"
apt = "debian"
version = "6.1.*"
[[suite]]
name = "a"
tests = "tests"
[[suite]]
name = "b"
tests = "more"
"""


def test_a_kernel_without_a_failure_in_the_chosen_suites_is_not_asked(tmp_path: Path) -> None:
    for folder in ("tests", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"test_{folder}.py").write_text("def test_it(): pass\n")
    (tmp_path / "kernels.toml").write_text(TWO)
    run = tmp_path / ".vmtest" / "runs" / "20261101T000000Z-000001"
    run.mkdir(parents=True)
    failures = {"A": "b", "B": "a"}
    matrix = pages.of(
        *(
            KernelResult(name, Status.FAILED, tests=(TestResult("t.py::x", suite, Outcome.FAILED),))
            for name, suite in failures.items()
        ),
        suites=("a", "b"),
    )
    (run / "matrix.json").write_text(matrix_json.dumps(matrix))
    said = vmtest("run", "--last-failed", "--suite", "a", "--kernel", "A", cwd=tmp_path)
    said.refuses(2, "on A nothing failed in the last runs")

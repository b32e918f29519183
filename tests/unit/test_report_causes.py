"""Failures that have one cause are told once."""

import shlex
from typing import Any

import pytest

from vmtest.model.loads import LoadResult, Reason, Verdict
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import github, markdown, terminal
from vmtest.report.again import command_of
from vmtest.report.causes import causes, mask

PLACE: dict[str, Any] = {"file": "tests/test_s.py", "line": 7}


def failed(name: str = "test_x", **more: Any) -> TestResult:
    facts = {"message": "assert 1 == 2", **PLACE, **more}
    return TestResult(f"test_s.py::{name}", "s", Outcome.FAILED, **facts)


def passed(name: str = "test_x") -> TestResult:
    return TestResult(f"test_s.py::{name}", "s", Outcome.PASSED)


def kernel(name: str, *tests: TestResult, **more: Any) -> KernelResult:
    facts = {"status": Status.FAILED if any(t.outcome.bad for t in tests) else Status.PASSED}
    return KernelResult(name, tests=tests, **{**facts, **more})


def matrix(*kernels: KernelResult, command: tuple[str, ...] = ()) -> Matrix:
    return Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, ("s",), kernels, command=command)


def names(of: Matrix) -> list[tuple[str, ...]]:
    return [tuple(kernel.kernel for kernel in cause.kernels) for cause in causes(of)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("object at 0x7f8bd2f0acf0", "object at 0x7f1122334455"),
        ("took 1.52 s", "took 12.9 s"),
        ("took over 60 seconds", "took over 61 seconds"),
        ("[   14.220001] oops", "[    3.100000] oops"),
        ("at 07:35:25.123", "at 8:35:25"),
        ("WARNING: CPU: 0 PID: 211 at x.c:12", "WARNING: CPU: 1 PID: 7 at x.c:12"),
    ],
)
def test_what_differs_from_run_to_run_is_masked(one: str, other: str) -> None:
    assert mask(one) == mask(other) != one


@pytest.mark.parametrize(
    ("one", "other"),
    [("assert 1 == 2", "assert 1 == 3"), ("x.c:12", "x.c:13"), ("6 skbs", "7 skbs")],
)
def test_what_the_message_is_about_is_not_masked(one: str, other: str) -> None:
    assert mask(one) != mask(other)


def test_the_same_failure_of_two_kernels_is_one_cause() -> None:
    assert names(matrix(kernel("a", failed()), kernel("b", failed()))) == [("a", "b")]


def test_the_kernels_own_release_does_not_tell_two_causes_apart() -> None:
    of = matrix(
        kernel("a", failed(message="6.1.0-57-amd64 says no"), release="6.1.0-57-amd64"),
        kernel("b", failed(message="6.12.9+deb13 says no"), release="6.12.9+deb13"),
    )
    assert names(of) == [("a", "b")]


def test_parameters_of_a_test_do_not_tell_two_causes_apart() -> None:
    ipv4 = failed("test_x[ipv4]", message="no ipv4 here")
    ipv6 = failed("test_x[ipv6]", message="no ipv6 here")
    (cause,) = causes(matrix(kernel("a", ipv4, ipv6)))
    assert (cause.labels, cause.count) == (("test_x[ipv4]", "test_x[ipv6]"), 2)


@pytest.mark.parametrize(
    "other",
    [
        failed(line=8),
        failed(file="tests/test_t.py"),
        failed(message="assert 1 == 3"),
        TestResult("test_s.py::test_x", "s", Outcome.ERROR, message="assert 1 == 2", **PLACE),
    ],
    ids=["line", "file", "message", "outcome"],
)
def test_another_place_message_or_outcome_is_another_cause(other: TestResult) -> None:
    assert names(matrix(kernel("a", failed()), kernel("b", other))) == [("a",), ("b",)]


def test_a_helper_that_two_tests_fail_in_is_one_cause() -> None:
    assert len(causes(matrix(kernel("a", failed("test_x"), failed("test_y"))))) == 1


def test_without_a_place_two_tests_are_two_causes() -> None:
    tests = (failed("test_x", file="", line=0), failed("test_y", file="", line=0))
    assert len(causes(matrix(kernel("a", *tests)))) == 2


def test_a_run_of_an_older_vmtest_has_its_places_in_the_tracebacks() -> None:
    old = failed(file="", line=0, details="E  assert 1 == 2\n\ntests/test_s.py:7: AssertionError")
    (cause,) = causes(matrix(kernel("a", old)))
    assert cause.place == "tests/test_s.py:7"


def test_causes_of_some_kernels_stand_before_those_of_all() -> None:
    of = matrix(
        kernel("a", failed("test_y"), passed()),
        kernel("b", failed("test_y"), failed("test_x", line=9)),
    )
    assert names(of) == [("b",), ("a", "b")]


def test_a_test_that_a_panic_lost_is_told_with_the_panic() -> None:
    lost = TestResult("test_s.py::test_x", "s", Outcome.LOST)
    of = matrix(kernel("a", lost, status=Status.PANICKED, reason="kernel panicked; while x ran"))
    (cause,) = causes(of)
    assert (cause.mark.text, cause.message) == ("PANICKED", "kernel panicked; while x ran")
    assert command_of(cause, of) == "vmtest run --kernel a --suite s -k test_x"


def test_a_kernel_that_failed_without_a_failing_test_is_a_cause() -> None:
    (cause,) = causes(matrix(kernel("a", status=Status.FAILED, reason="pytest stopped early")))
    assert cause.message == "pytest stopped early"


def test_a_complaint_of_the_kernel_beside_a_failing_test_is_a_cause_of_its_own() -> None:
    of = matrix(kernel("a", failed(), splats=("WARNING: CPU: 0\nCall Trace:",)))
    assert [cause.message for cause in causes(of)] == ["WARNING: CPU: 0", "assert 1 == 2"]


def test_complaints_with_one_fingerprint_are_one_cause() -> None:
    old, new = "WARNING: CPU: 1 PID: 7 at net/a.c:12 f+0x1/0x2", "WARNING: net/a.c:99 at f+0x7/0x9"
    splat = {"status": Status.SPLAT, "reason": "the kernel complained"}
    of = matrix(kernel("a", splats=(old,), **splat), kernel("b", splats=(new,), **splat))
    assert names(of) == [("a", "b")]


def test_a_complaint_has_the_test_that_ran_as_its_label_and_in_its_command() -> None:
    given = {"splats": ("BUG: a",), "fingerprints": ("BUG: a",), "splat_tests": (passed().test,)}
    of = matrix(kernel("a", passed(), passed("test_y"), status=Status.SPLAT, **given))
    (cause,) = causes(of)
    assert cause.labels == ("test_x",)
    assert command_of(cause, of) == "vmtest run --kernel a --suite s -k test_x"


def test_complaints_of_two_functions_are_two_causes() -> None:
    splats, fingerprints = ("BUG: a", "BUG: a"), ("oops in f", "oops in g")
    of = matrix(kernel("a", splats=splats, fingerprints=fingerprints, status=Status.SPLAT))
    assert len(causes(of)) == 2


def test_what_passes_has_no_cause() -> None:
    assert causes(matrix(kernel("a", passed()))) == ()


def test_programs_that_miss_the_same_thing_are_one_cause() -> None:
    reason = Reason("helper-missing", "bpf_ringbuf_output came with 5.8")
    loads = tuple(
        LoadResult("x.o", name, Verdict.UNSUPPORTED, reason=reason, line=f"last of {name}")
        for name in ("one", "two")
    )
    of = matrix(kernel("5.4", loads=loads, status=Status.FAILED, reason="2 unsupported"))
    (cause,) = causes(of)
    assert (cause.place, cause.labels) == ("x.o", ("x.o: one", "x.o: two"))
    assert command_of(cause, of) == "vmtest verify x.o --kernel 5.4 --program one --program two"


def test_a_kernel_that_could_not_be_had_in_a_verify_is_verified_again() -> None:
    loads = (LoadResult("x.o", "p", Verdict.ACCEPTED), LoadResult("y.o", "p", Verdict.ACCEPTED))
    of = matrix(kernel("a", loads=loads), kernel("b", status=Status.INFRA_ERROR, reason="gone"))
    assert command_of(causes(of)[0], of) == "vmtest verify x.o y.o --kernel b"


def test_objects_of_kernels_toml_need_no_name_where_a_kernel_is_verified_again() -> None:
    loads = (LoadResult("x", "p", Verdict.ACCEPTED),)
    of = matrix(kernel("a", loads=loads, status=Status.FAILED, reason="1 cost over 20% more"))
    assert command_of(causes(of)[0], of) == "vmtest verify --kernel a"


def test_a_load_that_is_not_required_is_no_cause() -> None:
    loads = (LoadResult("x.o", "p", Verdict.REJECTED, required=False),)
    assert causes(matrix(kernel("5.4", loads=loads))) == ()


def test_the_command_chooses_one_parameter_where_there_is_one() -> None:
    of = matrix(kernel("a", failed("test_x[ipv6]")))
    assert shlex.split(command_of(causes(of)[0], of))[-2:] == ["-k", "test_x[ipv6]"]


@pytest.mark.parametrize("name", ["x; rm -rf ~", "x[$(id)]", "x['\n']", "\x1b[2J", "-x and not y"])
def test_no_name_of_a_guests_is_anything_but_a_word_in_the_command(name: str) -> None:
    of = matrix(kernel("a", failed(name)))
    words = shlex.split(command_of(causes(of)[0], of))
    assert words[:6] == ["vmtest", "run", "--kernel", "a", "--suite", "s"]
    assert words[6:] in ([], ["-k", "x"])


def test_a_command_of_exec_cannot_be_told_from_its_results() -> None:
    of = matrix(kernel("a", failed()), command=("./x.test",))
    assert command_of(causes(of)[0], of) == ""


def test_the_terminal_prints_the_same_traceback_once() -> None:
    details = "def test():\n>  assert 1 == 2\nE  assert 1 == 2"
    tests = [failed(f"test_x[{n}]", details=details) for n in range(30)]
    drawn = terminal.render(matrix(kernel("a", *tests), kernel("b", *tests)))
    assert drawn.count(">  assert 1 == 2") == 1


def test_the_terminal_ends_with_causes_places_and_commands() -> None:
    of = matrix(kernel("a", failed()), kernel("b", passed()))
    *_, head, cause, command, blank, total, _end = terminal.render(of).split("\n")
    assert head.startswith("summary 1 cause, 1 failing result in 1 test on 1 kernel ")
    assert cause == "  FAIL a: tests/test_s.py:7: assert 1 == 2"
    assert command == "      vmtest run --kernel a --suite s -k test_x"
    assert (blank, total.split(":")[0]) == ("", "2 kernels")


VARIANTS = [  # results of test_x[a], test_x[b], test_x[c], and what the line says of them
    ("FPP", " (1 of 3 variants)"),
    ("FFP", " (2 of 3 variants)"),
    ("FFF", " (all 3 variants)"),
    ("F", ""),
]


@pytest.mark.parametrize(("letters", "told"), VARIANTS)
def test_a_line_says_how_many_variants_of_the_test_failed(letters: str, told: str) -> None:
    of = {"F": failed, "P": passed}
    tests = [of[one](f"test_x[{name}]") for name, one in zip("abc", letters, strict=False)]
    run = matrix(kernel("a", *tests), kernel("b", passed()))
    assert f"  FAIL a: tests/test_s.py:7: assert 1 == 2{told}\n" in terminal.render(run)
    line = f"- **FAIL** on a: `tests/test_s.py:7`: `assert 1 == 2`{told}<br>"
    assert line in markdown.render(run)
    assert line in github.comment(run, github.deciding(run))


def test_a_line_of_several_tests_counts_these_and_not_their_variants() -> None:
    tests = [failed("test_x[a]"), failed("test_y[a]"), passed("test_x[b]")]
    assert "assert 1 == 2 (2 tests)\n" in terminal.render(matrix(kernel("a", *tests)))


PANIC = "kernel panicked"


def panicked(*elsewhere: TestResult) -> Matrix:
    lost = TestResult("test_s.py::test_x", "s", Outcome.LOST, message=PANIC)
    dead = kernel("a", lost, status=Status.PANICKED, reason=PANIC)
    return matrix(dead, kernel("b", *elsewhere))


def test_a_panic_is_at_the_test_that_ran_where_another_kernel_tells_its_place() -> None:
    run = panicked(TestResult("test_s.py::test_x", "s", Outcome.PASSED, **PLACE))
    assert [cause.place for cause in causes(run)] == ["tests/test_s.py:7"]
    assert f"  PANICKED a: tests/test_s.py:7: {PANIC}\n" in terminal.render(run)
    assert f"- **PANICKED** on a: `tests/test_s.py:7`: `{PANIC}`" in markdown.render(run)


def test_a_panic_is_nowhere_where_no_kernel_tells_its_place() -> None:
    other = TestResult("test_s.py::test_y", "s", Outcome.PASSED, **PLACE)
    assert [cause.place for cause in causes(panicked(other))] == [""]


def test_a_complaint_has_the_name_and_the_place_of_its_test() -> None:
    ran = TestResult("test_s.py::test_x", "s", Outcome.PASSED, **PLACE)
    told = {"splats": ("WARNING: at x",), "fingerprints": ("f",), "splat_tests": (ran.test,)}
    run = matrix(kernel("a", ran, status=Status.SPLAT, **told))
    line = "  SPLAT a: test_x (tests/test_s.py:7): WARNING: at x\n"
    assert line in terminal.render(run)


def test_kernels_are_not_compared_result_by_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 kernels of 2,000 tests each took half a minute."""
    matrix = Matrix(
        schema=SCHEMA,
        run="r",
        started="2026-01-01T00:00:00+00:00",
        duration=1.0,
        suites=("s",),
        kernels=tuple(
            KernelResult(
                name,
                status=Status.FAILED,
                tests=(TestResult("a.py::test_a", "s", Outcome.FAILED, message="assert 1"),),
            )
            for name in ("6.1", "6.12")
        ),
    )
    monkeypatch.setattr(KernelResult, "__eq__", lambda one, other: pytest.fail("compared"))
    (cause,) = causes(matrix)
    assert [kernel.kernel for kernel in cause.kernels] == ["6.1", "6.12"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ab is ab", "… is …"),
        ("abc ab.c ab_ .ab xab", "abc ab.c ab_ .ab xab"),
        ("(ab) ab,ab-ab", "(…) …,…-…"),
        ("abab ab", "abab …"),
        ("éab ab", "éab …"),
    ],
)
def test_a_word_is_masked_where_it_stands_for_itself(text: str, masked: str) -> None:
    assert mask(text, ("ab",)) == masked

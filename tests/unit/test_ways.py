"""How a kernel failed, to a bisect: which two failures are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmtest.bisect.observe import Observation, combined, of_tests, verdict_of
from vmtest.bisect.search import Verdict
from vmtest.bisect.ways import kind, told
from vmtest.command.question import of_command
from vmtest.model.loads import LoadResult, Reason
from vmtest.model.loads import Verdict as Load
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.verify.question import of_load

GOOD, BAD, SKIP, OTHER = Verdict.GOOD, Verdict.BAD, Verdict.SKIP, Verdict.OTHER
WARNING = "WARNING: CPU: 0 PID: 9 at kernel/bpf/verifier.c:4067 check_it+0x12/0x40"
OOPS = "BUG: kernel NULL pointer dereference, address: 0000000000000010"
PANIC = 'kernel panicked: "Kernel panic - not syncing: {}"; while t.py::test_x ran'


def failed(message: str, test: str = "t.py::test_x", line: int = 7) -> TestResult:
    return TestResult(test, "t", Outcome.FAILED, message=message, file="t.py", line=line)


def suites(*tests: TestResult, status: Status = Status.FAILED, **more: object) -> Observation:
    result = KernelResult("6.1", status, release="6.1.0-30-amd64", tests=tests)
    return of_tests(replace(result, **more), "")  # type: ignore[arg-type]  # any field of a result


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("assert 22 == 0", "assert 1 == 0"),
        ("assert -2200 == 0", "assert -134 == 0"),
        ("of kernel v6.1.3", "of kernel v6.12.5"),
        (r"b'\x01\x02' != b'\x03'", r"b'\x11' != b'\xff\x00'"),
        ("1.2e-05 is too long", "3.1 is too long"),
        ("map at 0x7f3a2b10 is gone", "map at 0xffff8880041c is gone"),
        ("cannot open /tmp/pytest-1/x.o", "cannot open /var/tmp/y.o"),
        ("took 1.52s of 10:00", "took 3s of 9:30"),
        ("id 9fceb02d0ae5 has no peer", "id 03cfd743661f has no peer"),
    ],
)
def test_numbers_addresses_and_paths_make_no_other_failure(one: str, other: str) -> None:
    assert kind(one) == kind(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[Errno 22] Invalid argument", "[Errno 1] Operation not permitted"),
        ("assert -22 == 0", "assert -1 == 0"),
        ("load: ret=-22", "load: ret=-1"),
        ("no ipv4 address", "no ipv6 address"),
        ("v4 is gone", "v6 is gone"),
        ("u32 is short", "u64 is short"),
    ],
)
def test_other_words_and_numbers_in_names_make_another_failure(one: str, other: str) -> None:
    assert kind(one) != kind(other)


def test_the_kernels_own_release_is_no_part_of_a_failure() -> None:
    def said(release: str) -> tuple[str, ...]:
        return suites(failed(f"no module in /lib/modules: {release}"), release=release).way

    assert said("6.12.117+deb13-amd64") == said("5.10.0-46-amd64")


def test_a_failed_test_is_told_with_its_place_and_its_message() -> None:
    one = suites(failed("assert 3 == 4"))
    assert one.way == ("t.py::test_x at t.py:7: failed: assert … == …",)


def test_another_line_of_a_test_is_another_assertion() -> None:
    one, other = suites(failed("assert 3 == 4")), suites(failed("assert 3 == 4", line=9))
    assert (verdict_of(other, one.way), verdict_of(one, one.way)) == (OTHER, BAD)


def test_one_of_several_failures_in_common_is_the_same() -> None:
    both = suites(failed("a"), failed("b", "t.py::test_y"))
    assert verdict_of(suites(failed("b", "t.py::test_y")), both.way) is BAD
    assert verdict_of(suites(failed("b", "t.py::test_z")), both.way) is OTHER


def test_a_complaint_beside_failed_tests_does_not_say_how_it_failed() -> None:
    bad = suites(failed("a"), splats=(WARNING,))
    assert verdict_of(suites(failed("other"), splats=(WARNING,)), bad.way) is OTHER
    complained = suites(replace(failed(""), outcome=Outcome.PASSED), status=Status.SPLAT)
    assert verdict_of(replace(complained, way=("WARNING in check_it",)), bad.way) is OTHER


def test_the_complaint_that_is_looked_for_counts_beside_other_failures() -> None:
    passed = replace(failed(""), outcome=Outcome.PASSED)
    bad = suites(passed, status=Status.SPLAT, splats=(WARNING,))
    assert bad.way == ("WARNING in check_it",)
    assert verdict_of(suites(failed("a"), splats=(WARNING,)), bad.way) is BAD


def test_a_panic_is_the_complaint_that_the_kernel_died_of() -> None:
    lost = replace(failed("the kernel died"), outcome=Outcome.LOST)
    why = PANIC.format("Fatal exception in interrupt")
    one = suites(lost, status=Status.PANICKED, reason=why, splats=(WARNING, OOPS))
    assert one.way == ("NULL pointer dereference",)


def test_a_panic_without_a_complaint_of_its_own_is_its_text() -> None:
    lost = replace(failed("the kernel died"), outcome=Outcome.LOST)
    why = PANIC.format("sysrq triggered crash")
    one = suites(lost, status=Status.PANICKED, reason=why, splats=(WARNING,))
    assert one.way == ("panic: sysrq triggered crash",)


def test_a_test_that_hangs_is_told_with_the_end_it_came_to() -> None:
    hung = replace(failed("no answer"), outcome=Outcome.LOST)
    assert suites(hung, status=Status.TIMED_OUT).way == ("t.py::test_x: TIMED_OUT",)


def command(exit_status: int, last_line: str) -> Observation:
    row = TestResult("./check", "check", Outcome.FAILED, message=last_line)
    result = KernelResult("k", Status.FAILED, tests=(row,), exit_status=exit_status)
    return of_command(result, "k")


def test_a_commands_failure_is_its_exit_status_and_not_its_last_line() -> None:
    one = command(3, "exit status 3: refused")
    assert one.way == ("exit status 3",)
    assert verdict_of(command(3, "exit status 3: something else"), one.way) is BAD
    assert verdict_of(command(4, "exit status 4: refused"), one.way) is OTHER


def test_a_commands_failed_rows_are_how_it_failed() -> None:
    row = TestResult("TestIt/ipv6", "go", Outcome.FAILED, message="it_test.go:12: got 3")
    result = KernelResult("k", Status.FAILED, tests=(row,), exit_status=1)
    assert of_command(result, "k").way == ("TestIt/ipv6: failed: it_test.go:…: got …",)


def load(verdict: Load, code: str, name: str, line: str = "") -> Observation:
    one = LoadResult("x.o", "p", verdict, line=line, reason=Reason(code, "words", name=name))
    return of_load(KernelResult("k", Status.FAILED, loads=(one,)), "", "x.o", "p")


def test_a_refusal_is_its_reason_code_and_what_was_refused() -> None:
    one = load(Load.REJECTED, "helper", "bpf_loop", "unknown func bpf_loop#181")
    assert one.way == ("x.o: p: helper bpf_loop",)
    assert verdict_of(load(Load.UNSUPPORTED, "helper", "bpf_loop"), one.way) is BAD
    assert verdict_of(load(Load.REJECTED, "helper", "bpf_kptr_xchg"), one.way) is OTHER
    assert verdict_of(load(Load.REJECTED, "stack", ""), one.way) is OTHER


def test_a_refusal_without_a_known_reason_is_the_logs_last_line() -> None:
    one = load(Load.REJECTED, "unknown", "", "R3 min value is -1")
    assert one.way == ("x.o: p: rejected: R3 min value is …",)


def test_what_passed_or_cannot_tell_has_no_way() -> None:
    passed = suites(replace(failed(""), outcome=Outcome.PASSED), status=Status.PASSED)
    assert (passed.verdict, passed.way) == (GOOD, ())
    assert suites(status=Status.BOOT_FAILED).way == ()


ONE, ANOTHER = Observation(BAD, "", way=("a",)), Observation(BAD, "", way=("b",))


def test_without_a_way_any_failure_is_bad() -> None:
    assert verdict_of(ANOTHER) is BAD
    assert verdict_of(Observation(BAD, "of an older journal"), ("a",)) is BAD


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ((ANOTHER, ANOTHER), OTHER),
        ((ANOTHER, ONE), BAD),
        ((ANOTHER, Observation(GOOD, "")), GOOD),
        ((Observation(SKIP, ""), ANOTHER), OTHER),
        ((ONE, ANOTHER, Observation(GOOD, "")), Verdict.FLAKY),
    ],
)
def test_another_failure_counts_for_neither_side(
    seen: tuple[Observation, ...], verdict: Verdict
) -> None:
    assert combined(seen, ("a",)) is verdict


def test_many_ways_are_shown_as_the_first_and_a_number() -> None:
    assert told(["a", "b", "c", "d", "e"]) == "a; or b; or c; or 2 more"

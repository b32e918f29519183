"""Whether a kernel's result means good, bad or neither to a bisect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmtest.bisect.observe import Observation, combined, of_tests
from vmtest.bisect.search import Verdict
from vmtest.command.question import of_command
from vmtest.model.loads import Cost, LoadResult, Reason
from vmtest.model.loads import Verdict as Load
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.verify.question import of_load

GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.SKIP
PASSED = TestResult("test_a.py::test_it", "a", Outcome.PASSED)


def suites(status: Status, *outcomes: Outcome, reason: str = "") -> Observation:
    tests = tuple(TestResult(f"t.py::test_{n}", "t", o) for n, o in enumerate(outcomes))
    return of_tests(KernelResult("6.12", status, tests=tests, reason=reason), "6.12")


@pytest.mark.parametrize(
    ("status", "outcomes", "verdict"),
    [
        (Status.PASSED, (Outcome.PASSED, Outcome.SKIPPED), GOOD),
        (Status.PASSED, (Outcome.SKIPPED,), SKIP),
        (Status.PASSED, (Outcome.NOT_APPLICABLE,), SKIP),
        (Status.NO_TESTS, (), SKIP),
        (Status.FAILED, (Outcome.PASSED, Outcome.FAILED), BAD),
        (Status.FAILED, (Outcome.ERROR,), BAD),
        (Status.FAILED, (), SKIP),  # pytest could not run
        (Status.PANICKED, (Outcome.LOST, Outcome.NOT_RUN), BAD),
        (Status.PANICKED, (Outcome.NOT_RUN,), SKIP),
        (Status.TIMED_OUT, (Outcome.LOST,), BAD),
        (Status.LOST, (Outcome.PASSED, Outcome.LOST), BAD),
        (Status.SPLAT, (Outcome.PASSED,), BAD),
        (Status.BOOT_FAILED, (), SKIP),
        (Status.INFRA_ERROR, (), SKIP),
        (Status.INFRA_ERROR, (Outcome.FAILED,), SKIP),
    ],
)
def test_what_ran_under_a_test_tells_and_nothing_else_does(
    status: Status, outcomes: tuple[Outcome, ...], verdict: Verdict
) -> None:
    assert suites(status, *outcomes).verdict is verdict


@pytest.mark.parametrize(
    ("status", "faulty"), [(Status.INFRA_ERROR, True), (Status.BOOT_FAILED, False)]
)
def test_only_the_machines_fault_is_worth_asking_again(status: Status, faulty: bool) -> None:
    assert suites(status).faulty is faulty


def test_a_failure_is_named_with_its_message() -> None:
    failed = TestResult("t.py::test_x", "t", Outcome.FAILED, message="assert 1\n == 2")
    one = of_tests(KernelResult("k", Status.FAILED, tests=(PASSED, failed), reason="1 failed"), "")
    assert one.why == "FAILED: 1 failed; t.py::test_x: failed: assert 1 == 2"


def command(status: Status, exit_status: int, message: str, outcome: Outcome) -> Observation:
    row = TestResult("./check -v", "check", outcome, message=message)
    reason = "" if status is Status.PASSED else message
    result = KernelResult("k", status, tests=(row,), reason=reason, exit_status=exit_status)
    return of_command(result, "k")


def test_a_command_is_good_when_it_ends_with_zero_and_says_its_last_line() -> None:
    one = command(Status.PASSED, 0, "exit status 0: all taken", Outcome.PASSED)
    assert (one.verdict, one.why) == (GOOD, "exit status 0: all taken")


def test_a_commands_failure_is_said_once() -> None:
    one = command(Status.FAILED, 3, "exit status 3: refused", Outcome.FAILED)
    assert (one.verdict, one.why) == (BAD, "FAILED: exit status 3: refused")


def test_what_a_command_came_to_can_stand_side_by_side() -> None:
    one = command(Status.FAILED, 3, "exit status 3: refused", Outcome.FAILED)
    assert one.facts == (("./check -v", "failed: exit status 3: refused"),)


def test_a_command_that_ends_with_125_cannot_tell() -> None:
    assert command(Status.FAILED, 125, "exit status 125: x", Outcome.FAILED).verdict is SKIP


def test_a_panic_under_a_command_is_bad_whatever_its_status_was() -> None:
    assert command(Status.PANICKED, 125, "panic", Outcome.LOST).verdict is BAD


def loaded(verdict: Load, program: str = "p") -> KernelResult:
    reason = (
        Reason("helper", "no such helper", evidence="log: unknown func") if verdict.bad else None
    )
    cost = Cost(instructions=812, total_states=40)
    loads = (
        LoadResult("x.o", "", Load.ACCEPTED),
        LoadResult("x.o", program, verdict, cost=cost, reason=reason),
    )
    return KernelResult("k", Status.FAILED, loads=loads)


@pytest.mark.parametrize(
    ("code", "name", "word"),
    [
        ("attach-target", "do_renameat2", "do_renameat2"),
        ("attach-target", "__x64_sys_renameat2", "sys_renameat2"),
        ("attach-target", "__ia32_compat_sys_open", "sys_open"),
        ("attach-target", "sys_enter_renameat2", "sys_renameat2"),
        ("attach-target", "finish_task_switch.isra.0", "finish_task_switch"),
        ("attach-target", "vfs_unlink+0x40", "vfs_unlink"),
        ("attach-target", "vfs_*link", ""),
        ("kfunc", "bpf_obj_new_impl___2", "bpf_obj_new_impl"),
        ("core-relocation", "__state", "__state"),
        ("helper", "bpf_loop", "BPF_FUNC_loop"),
        ("helper", "#218", ""),
        ("map-type", "BPF_MAP_TYPE_ARENA", "BPF_MAP_TYPE_ARENA"),
        ("module-not-loaded", "nf_ct_netns_get", "nf_ct_netns_get"),
        ("kconfig", "CONFIG_FPROBE", "CONFIG_FPROBE"),
        ("type-not-told", "auth", ""),
        ("possible-null", "", ""),
    ],
)
def test_what_a_refused_load_lacked_is_told_as_the_source_writes_it(
    code: str, name: str, word: str
) -> None:
    result = loaded(Load.UNSUPPORTED)
    lacking = replace(result.loads[1], reason=Reason(code, "it is not there", name=name))
    result = replace(result, loads=(result.loads[0], lacking))
    assert of_load(result, "", "x.o", "p").gone == word


def test_an_accepted_load_lacked_nothing() -> None:
    assert of_load(loaded(Load.ACCEPTED), "", "x.o", "p").gone == ""


@pytest.mark.parametrize("verdict", Load)
def test_a_load_is_good_when_it_was_accepted_and_tells_unless_it_was_left_out(
    verdict: Load,
) -> None:
    silent = dict.fromkeys((Load.NOT_LOADED, Load.TIMED_OUT), SKIP)
    wanted = {Load.ACCEPTED: GOOD, **silent}.get(verdict, BAD)
    assert of_load(loaded(verdict), "", "x.o", "p").verdict is wanted


def test_a_verifier_that_did_not_answer_in_time_is_worth_asking_again() -> None:
    assert of_load(loaded(Load.TIMED_OUT), "", "x.o", "p").faulty


def test_without_a_program_the_object_as_a_whole_tells() -> None:
    assert of_load(loaded(Load.REJECTED), "", "x.o", "").verdict is GOOD


def test_a_program_that_was_not_loaded_tells_nothing() -> None:
    assert of_load(loaded(Load.REJECTED), "", "x.o", "q").verdict is SKIP


def test_a_load_says_its_reason_its_evidence_and_its_instructions() -> None:
    one = of_load(loaded(Load.REJECTED), "", "x.o", "p")
    said = "rejected (helper): no such helper; log: unknown func; after 812 instructions"
    assert dict(one.facts)["x.o: p"] == one.why == said


def test_where_no_reason_is_known_the_logs_last_line_stands_for_it() -> None:
    nothing = Reason("unknown", "the log and the probes show no cause")
    load = LoadResult("x.o", "p", Load.REJECTED, line="cannot use this", reason=nothing)
    one = of_load(KernelResult("k", Status.FAILED, loads=(load,)), "", "x.o", "p")
    assert one.why == "rejected: cannot use this"


def test_a_kernel_that_complained_under_a_load_is_quoted() -> None:
    load = LoadResult("x.o", "p", Load.REJECTED, line="BUG regs 1")
    splat = "WARNING: CPU: 0 PID: 9 at kernel/bpf/verifier.c:4067"
    result = KernelResult("k", Status.SPLAT, loads=(load,), splats=(splat,))
    one = of_load(result, "", "x.o", "p")
    assert one.why == f'rejected: BUG regs 1; the kernel complained: "{splat}"'
    assert one.facts[-1] == ("the kernel's complaint", splat)


def test_an_accepted_load_says_its_instructions_and_states() -> None:
    assert of_load(loaded(Load.ACCEPTED), "", "x.o", "p").why == (
        "accepted, 812 instructions, 40 states"
    )


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ((GOOD, GOOD), GOOD),
        ((GOOD, SKIP), GOOD),
        ((SKIP, SKIP), SKIP),
        ((GOOD, SKIP, BAD), Verdict.FLAKY),
    ],
)
def test_several_attempts_make_one_verdict(seen: tuple[Verdict, ...], verdict: Verdict) -> None:
    assert combined([Observation(one, "") for one in seen]) is verdict

"""What a kernel's result tells a bisect: good, bad, or nothing; and the words for it.  Pure.

A test or a program that is bad is never told apart from an infrastructure fault by guessing: what
did not run under the test is SKIP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vmtest.bisect.search import Verdict
from vmtest.errors import BuildFailed
from vmtest.model.loads import LoadResult, Reason
from vmtest.model.loads import Verdict as LoadVerdict
from vmtest.model.results import KernelResult, Outcome, Status, TestResult

_NOTHING_RAN = (Outcome.SKIPPED, Outcome.NOT_APPLICABLE, Outcome.NOT_RUN)
_BAD = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED, Outcome.LOST)
_ENDED_BADLY = (
    Status.FAILED,
    Status.PANICKED,
    Status.TIMED_OUT,
    Status.LOST,
    Status.SPLAT,
)
_MACHINES_FAULT = (Status.INFRA_ERROR, Status.CANCELLED)
_CANNOT_TELL = 125
_UNKNOWN = "unknown"  # docs/verify.md: no evidence for any reason; the log's last line says more
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Observation:
    """One kernel, asked once.

    ``why`` is one line, ``facts`` pairs of a test or load and what became of it, ``release`` is
    "" when it did not come up, ``folder`` is where its logs are, relative to the run's folder.
    ``faulty`` says that the machine (a network, a disk) kept it from telling: asked again it may.
    ``gone`` is what a refused load lacked, as the kernel's source writes it ("" where nothing that
    has a name there), or a symbol of its config.
    """

    verdict: Verdict
    why: str
    facts: tuple[tuple[str, str], ...] = ()
    release: str = ""
    folder: str = ""
    faulty: bool = False
    gone: str = ""


def unbuilt(error: BuildFailed) -> Observation:
    """SKIP: what does not build tells nothing."""
    why = str(error).partition(": ")[2]  # without the name, which stands before it already
    return Observation(Verdict.SKIP, _line(f"does not build: {why}"))


def combined(seen: Sequence[Observation]) -> Verdict:
    """The verdict of a point that was asked several times: FLAKY when it told both."""
    told = {one.verdict for one in seen if one.verdict.tells}
    if len(told) == 2:
        return Verdict.FLAKY
    return told.pop() if told else Verdict.SKIP


def of_suites(result: KernelResult, folder: str) -> Observation:
    """GOOD when the tests passed, BAD when one did not or the kernel did not survive them."""
    facts = tuple((test.test, _test(test)) for test in result.tests)
    ran = [test for test in result.tests if test.outcome not in _NOTHING_RAN]
    passed = sum(test.outcome is Outcome.PASSED for test in ran)
    why = result.reason or f"{passed} passed"
    if result.status is Status.PASSED and ran:
        verdict = Verdict.GOOD
    elif result.status in _ENDED_BADLY and ran:
        verdict = Verdict.BAD
        failed = [
            f"{t.test}: {_test(t)}"
            for t in ran
            if t.outcome in _BAD and not (t.message and t.message in why)
        ]
        why = "; ".join([f"{result.status}: {why}", *failed[:1]])
    else:
        verdict = Verdict.SKIP
        if result.status is Status.PASSED:
            why = "every test was skipped"
        why = f"{result.status}: {why}"
    return _observation(result, folder, verdict, why, facts)


def of_command(result: KernelResult, folder: str) -> Observation:
    """As of suites; a command that ends with 125 tells nothing, as under ``git bisect run``."""
    one = of_suites(result, folder)
    if result.status is Status.FAILED and result.exit_status == _CANNOT_TELL:
        return replace(one, verdict=Verdict.SKIP)
    if one.verdict is Verdict.GOOD and len(result.tests) == 1:
        return replace(one, why=_line(result.tests[0].message or one.why))
    return one


def of_load(result: KernelResult, folder: str, object_: str, program: str) -> Observation:
    """GOOD when the load of ``program`` ("": of ``object_`` as a whole) was accepted."""
    facts = tuple((load.label, _load(load)) for load in result.loads)
    found = [one for one in result.loads if (one.object, one.program) == (object_, program)]
    if not found or found[0].verdict is LoadVerdict.NOT_LOADED:
        why = f"{result.status}: {result.reason or 'it was not loaded'}"
        return _observation(result, folder, Verdict.SKIP, why, facts)
    if found[0].verdict is LoadVerdict.TIMED_OUT:
        # The verifier did not answer: a busy machine does that to any program.
        one = _observation(result, folder, Verdict.SKIP, _load(found[0]), facts)
        return replace(one, faulty=True)
    verdict = Verdict.BAD if found[0].verdict.bad else Verdict.GOOD
    why = _load(found[0])
    if result.splats:
        why = f'{why}; the kernel complained: "{result.splats[0]}"'
        facts = (*facts, ("the kernel's complaint", result.splats[0]))
    one = _observation(result, folder, verdict, why, facts)
    return replace(one, gone=gone(found[0].reason))


# The codes whose reason names something that stands in the kernel's source.
_OF_THE_KERNEL = {
    "attach-target",
    "attach-type",
    "core-relocation",
    "core-type",
    "helper",
    "kconfig",
    "kfunc",
    "kfunc-prototype",
    "ksym",
    "ksym-type",
    "map-flag",
    "map-type",
    "module-not-loaded",
    "program-type",
    "sleepable",
    "struct-ops-type",
}
# What macros make of a name of the source: __x64_sys_openat, and the event sys_enter_openat.
_SYSCALL = re.compile(r"^(?:__[a-z0-9]+_(?:compat_)?sys_|sys_(?:enter|exit)_)")
_FLAVOUR = re.compile(r"(?<=\w)___\w+$")


def gone(reason: Reason | None) -> str:
    """What ``reason`` says that a kernel lacks, as its source writes it; "" for nothing.

    Without what a compiler appends (``.isra.0``), an offset, and the flavour that a program
    declares (``___2``).  A helper is there as the name by which the kernel gives it to programs.
    """
    if reason is None or reason.code not in _OF_THE_KERNEL:
        return ""
    name = reason.name.partition("+")[0].partition(".")[0]
    name = _FLAVOUR.sub("", _SYSCALL.sub("sys_", name))
    if not re.fullmatch(r"\w+", name):
        return ""  # a pattern, or a number
    if reason.code in ("helper", "sleepable") and name.startswith("bpf_"):
        return f"BPF_FUNC_{name.removeprefix('bpf_')}"
    return name


def _observation(
    result: KernelResult,
    folder: str,
    verdict: Verdict,
    why: str,
    facts: tuple[tuple[str, str], ...],
) -> Observation:
    faulty = verdict is Verdict.SKIP and result.status in _MACHINES_FAULT
    return Observation(verdict, _line(why), facts, result.release, folder, faulty)


def _test(test: TestResult) -> str:
    return _line(f"{test.outcome}: {test.message}" if test.message else test.outcome.value)


def _load(load: LoadResult) -> str:
    cost = load.cost
    if load.verdict is LoadVerdict.ACCEPTED:
        counts = ((cost.instructions, "instructions"), (cost.total_states, "states"))
        return ", ".join([load.verdict.value, *(f"{n} {word}" for n, word in counts if n)])
    words = load.verdict.value
    if load.reason is not None and not (load.reason.code == _UNKNOWN and load.line):
        words += f" ({load.reason.code}): {load.reason.text}"
        if load.reason.evidence:
            words += f"; {load.reason.evidence}"
    elif load.line:
        words += f": {load.line}"
    if cost.instructions:
        words += f"; after {cost.instructions} instructions"
    return _line(words)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"

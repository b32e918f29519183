"""Matrices for tests of the page: what a guest may call its things, and a big one."""

from __future__ import annotations

from dataclasses import replace

from vmtest.model.loads import (
    Change,
    ChangeKind,
    Cost,
    LoadResult,
    Reason,
    SourceLine,
    Verdict,
    Visits,
)
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult

HOSTILE = (
    "<script>window.owned=1</script>",
    '"><img src=x onerror="window.owned=1">',
    "</script><script>window.owned=1</script>",
    "<!--<script>",
    "javascript:window.owned=1",
    "'-window.owned=1-'",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200f",
    "\x1b[2J\x00\x07\x9b1m",
    "\udc80\u2028\u2029",
)
"""What must be shown and must do nothing."""


def of(*kernels: KernelResult, suites: tuple[str, ...] = ("s",)) -> Matrix:
    return Matrix(SCHEMA, "run", "2026-05-09T07:35:25Z", 1.0, suites, kernels)


def hostile(text: str) -> Matrix:
    """A matrix in which everything that a guest or a file may name is ``text``."""
    test = TestResult(
        f"t.py::test_{text}",
        "s",
        Outcome.FAILED,
        message=text,
        details=f"E {text}",
        output=text,
        stderr=text,
        kernel_log=text,
        file=text,
        line=1,
    )
    skipped = replace(test, test=f"t.py::skip_{text}", outcome=Outcome.SKIPPED)
    reason = Reason("helper", text, text, text, text)
    load = LoadResult(text, text, Verdict.REJECTED, errno=text, line=text, log=text, reason=reason)
    load = replace(load, visits=Visits(2, (SourceLine(text, text, 2, 1),)))
    change = Change(
        text, text, ChangeKind.REGRESSED, Verdict.ACCEPTED, Verdict.REJECTED, since=text
    )
    kernel = KernelResult(
        text,
        Status.PANICKED,
        version=text,
        release=text,
        tests=(test, skipped),
        reason=text,
        note=text,
        splats=(text,),
        console_tail=(text,),
        directory=text,
        digest=text,
        objects=((text, text),),
        loads=(load,),
        changes=(change,),
        libbpf=text,
    )
    other = KernelResult("6.12", Status.PASSED, tests=(replace(test, outcome=Outcome.PASSED),))
    matrix = of(kernel, other)
    return replace(matrix, run=text, suites=(text, "s"), notes=(text,))


def three() -> Matrix:
    """Three kernels: one test differs, one fails everywhere, ten pass; two programs."""

    def kernel(name: str, n: int) -> KernelResult:
        first = Outcome.FAILED if n == 1 else Outcome.PASSED
        tests = [
            *(TestResult(f"t.py::test_fine[{i}]", "s", Outcome.PASSED, 0.1) for i in range(10)),
            TestResult("t.py::test_some", "s", first, 0.2, "no event" if n == 1 else ""),
            TestResult("t.py::test_all", "s", Outcome.ERROR, 0.3, "no fixture", "E  no fixture"),
        ]
        loads = (
            LoadResult("x.o", "", Verdict.ACCEPTED),
            LoadResult("x.o", "cheap", Verdict.ACCEPTED, cost=Cost(instructions=100)),
            LoadResult("x.o", "dear", Verdict.ACCEPTED, cost=Cost(instructions=1000 * (n + 1))),
        )
        grown = Change("x.o", "dear", ChangeKind.COST, cost="instructions", old=800, new=1000)
        return KernelResult(
            name,
            Status.FAILED,
            release=f"{name}.9-amd64",
            tests=tuple(tests),
            loads=loads,
            changes=(grown,) if n == 0 else (),
            reason="2 failed",
            directory=name,
        )

    return of(*(kernel(name, n) for n, name in enumerate(("5.10", "6.1", "6.12"))))


def big() -> Matrix:
    """50 kernels x 2,000 tests, of which one in 40 fails with half a kilobyte of text."""

    def test(kernel: int, i: int) -> TestResult:
        name = f"tests/suite_{i % 7}/test_module.py::test_number_{i}_does_what_it_should[ipv4-{i}]"
        if i % 40 != kernel % 40:
            return TestResult(name, f"suite_{i % 7}", Outcome.PASSED, 0.01 * (i % 90))
        return TestResult(
            name,
            f"suite_{i % 7}",
            Outcome.FAILED,
            0.5,
            f"assert {i} == {kernel}",
            f"def test():\n>   assert {i} == {kernel}\n{'x' * 400}",
            "said\n" * 20,
            file=f"tests/suite_{i % 7}.py",
            line=i % 50 + 1,
        )

    kernels = (
        KernelResult(f"6.{n}", Status.FAILED, tests=tuple(test(n, i) for i in range(2000)))
        for n in range(50)
    )
    return of(*kernels, suites=tuple(f"suite_{n}" for n in range(7)))

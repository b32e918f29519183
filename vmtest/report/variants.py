"""How many variants of a test with parameters have a cause, and which others passed.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vmtest.model.results import Matrix, Outcome
from vmtest.report.causes import Cause

_Of = dict[str, dict[int, Outcome]]  # by node id, then by the identity of a kernel


@dataclass(frozen=True, slots=True)
class Variants:
    """A test with parameters: the node ids of it that a cause has, among all."""

    suite: str
    function: str
    bad: frozenset[str]
    every: tuple[str, ...]

    @property
    def many(self) -> str:
        """``1 of 3``, ``all 3``."""
        number = len(self.every)
        return f"all {number}" if len(self.bad) == number else f"{len(self.bad)} of {number}"


@dataclass(slots=True)
class Parametrized:
    """Every test of a matrix with parameters: its variants, by suite and function."""

    matrix: Matrix
    found: dict[tuple[str, str], _Of] = field(init=False)

    def __post_init__(self) -> None:
        self.found = {}
        for kernel in self.matrix.kernels:
            for test in kernel.tests:
                function, bracket, _ = test.test.partition("[")
                if bracket:
                    of = self.found.setdefault((test.suite, function), {})
                    of.setdefault(test.test, {})[id(kernel)] = test.outcome

    def of(self, cause: Cause) -> Iterator[Variants]:
        """The tests with parameters that ``cause`` has."""
        failed: dict[tuple[str, str], set[str]] = {}
        for _, test in cause.tests:
            function, bracket, _ = test.test.partition("[")
            if bracket:
                failed.setdefault((test.suite, function), set()).add(test.test)
        for (suite, function), bad in failed.items():
            every = self.found.get((suite, function), sorted(bad))
            yield Variants(suite, function, frozenset(bad), tuple(every))

    def passed(self, one: Variants, cause: Cause) -> Iterator[str]:
        """The other variants that passed on each kernel of ``cause`` that has them."""
        kernels = [id(kernel) for kernel in cause.kernels]
        of = self.found[one.suite, one.function]
        for name in one.every:
            if name not in one.bad:
                outcomes = {of[name][kernel] for kernel in kernels if kernel in of[name]}
                if outcomes == {Outcome.PASSED}:
                    yield name

    def told(self, cause: Cause) -> str:
        """``(1 of 3 variants)``, ``(5 tests)``: of how many a line tells; "" for the only one."""
        of = list(self.of(cause))
        if len(of) == 1 and len(of[0].bad) == len(cause.labels) and len(of[0].every) > 1:
            return f"({of[0].many} variants)"
        what = "programs" if cause.loads else "tests"
        return f"({len(cause.labels)} {what})" if len(cause.labels) > 1 else ""

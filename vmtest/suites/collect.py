"""``vmtest run --collect-only``: which kernels are asked, and what their answer is.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vmtest.model.kernels import Kernel
from vmtest.model.project import ObjectFile
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.model.versions import KernelVersion
from vmtest.objects.builds import choose


@dataclass(frozen=True, slots=True)
class StandIn:
    """One kernel that is asked, for itself and for ``others``, which get the same objects."""

    kernel: Kernel
    others: tuple[str, ...]

    @property
    def note(self) -> str:
        """What the user should know of it, "" where it stands for itself only."""
        if not self.others:
            return ""
        return (
            f"collected on {self.kernel.name} alone: {', '.join(self.others)} would get "
            "the same suites and objects"
        )


def only_collects(options: Iterable[str]) -> bool:
    """Whether pytest with ``options`` runs no test."""
    return not {"--collect-only", "--co"}.isdisjoint(options)


def stand_ins(
    kernels: Sequence[Kernel],
    builds: Sequence[ObjectFile],
    needed: Iterable[str],
    versions: Mapping[str, KernelVersion],
) -> tuple[StandIn, ...]:
    """One of all ``kernels`` that get the same builds of the ``needed`` objects, a gated first.

    ``versions`` has the kernels' versions; it may be empty where no build has a range.
    A kernel whose version nobody knows stands for itself.
    """
    wanted = [build for build in builds if build.name in set(needed)]
    groups: dict[object, list[Kernel]] = {}
    for kernel in kernels:
        version = versions.get(kernel.name)
        same: object = kernel.name
        if not any(build.kernels for build in wanted):
            same = ()
        elif version is not None:
            same = tuple(choose(wanted, version).items())
        groups.setdefault(same, []).append(kernel)
    found = []
    for group in groups.values():
        chosen = next((kernel for kernel in group if kernel.gate), group[0])
        others = tuple(kernel.name for kernel in group if kernel is not chosen)
        found.append(StandIn(chosen, others))
    return tuple(found)


def to_run(tests: Iterable[TestResult]) -> Iterable[TestResult]:
    """``tests`` that were listed, as they are before they run."""
    for test in tests:
        listed = test.outcome is Outcome.COLLECTED
        yield replace(test, outcome=Outcome.NOT_RUN) if listed else test


def collected(result: KernelResult) -> KernelResult:
    """``result`` of a pytest that ran nothing: COLLECTED, where all went well."""
    if result.status is not Status.PASSED or any(t.outcome.ran for t in result.tests):
        return result
    tests = tuple(
        replace(test, outcome=Outcome.COLLECTED) if test.outcome is Outcome.NOT_RUN else test
        for test in result.tests
    )
    return replace(result, status=Status.COLLECTED, tests=tests)

"""What one kernel of a matrix says of another one's refusals: pure.

A kernel that refuses a program whose very bytes a newer kernel of the same run accepts lacks
something: the program has no mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vmtest.model.loads import LoadResult, Reason, Verdict
from vmtest.model.results import KernelResult, Matrix, counted
from vmtest.model.versions import KernelVersion
from vmtest.verify.baseline import Rules, judge, refused

_NOT_THE_KERNELS = frozenset({"configuration", "libbpf-too-old", "memlock", "module-not-loaded"})
"""Codes of refusals that say nothing of what the kernel can do."""

_Key = tuple[str, str, str]


def compared(matrix: Matrix, rules: Rules) -> Matrix:
    """``matrix`` in which a load is `unsupported` if a newer kernel accepts the same bytes.

    Each kernel whose loads that changes is judged again by ``rules``.
    """
    kernels = tuple(
        replaced if replaced is kernel else judge(replaced, rules)
        for kernel in matrix.kernels
        for replaced in (_compared(kernel, _accepting(kernel, matrix.kernels)),)
    )
    return replace(matrix, kernels=kernels)


def of_shards(matrix: Matrix) -> Matrix:
    """The same for runs that were judged one by one: no status changes, the counts follow."""
    kernels = []
    for kernel in matrix.kernels:
        replaced = _compared(kernel, _accepting(kernel, matrix.kernels))
        kernels.append(_recounted(replaced))
    return replace(matrix, kernels=tuple(kernels))


_VERDICTS = frozenset(verdict.value for verdict in Verdict)


def _recounted(kernel: KernelResult) -> KernelResult:
    """``kernel`` with the verdicts of its loads counted anew, where they decided."""
    others = [(what, number) for what, number in kernel.counts if what not in _VERDICTS]
    if len(others) == len(kernel.counts):
        return kernel
    counts = (*refused(kernel.loads), *others)
    words = kernel.reason.removeprefix(counted(kernel.counts))
    return replace(kernel, reason=counted(counts) + words, counts=counts)


def _accepting(kernel: KernelResult, others: Sequence[KernelResult]) -> dict[_Key, str]:
    """The oldest kernel, by name, that is newer than ``kernel`` and accepts a load."""
    version = _version(kernel)
    if version is None:
        return {}
    newer = [(v, other) for other in others if (v := _version(other)) and v > version]
    found: dict[_Key, str] = {}
    for _, other in sorted(newer, key=lambda pair: pair[0]):
        digests = dict(other.objects)
        for load in other.loads:
            if load.verdict is Verdict.ACCEPTED:
                key = (load.object, load.program, digests.get(load.object, ""))
                found.setdefault(key, other.kernel)
    return found


def _version(kernel: KernelResult) -> KernelVersion | None:
    return KernelVersion.parse(kernel.version) if kernel.version else None


def _compared(kernel: KernelResult, accepting: dict[_Key, str]) -> KernelResult:
    digests = dict(kernel.objects)
    loads = []
    for load in kernel.loads:
        by = accepting.get((load.object, load.program, digests.get(load.object, "")))
        loads.append(load if by is None else _unsupported(load, by))
    return replace(kernel, loads=tuple(loads)) if tuple(loads) != kernel.loads else kernel


def _unsupported(load: LoadResult, by: str) -> LoadResult:
    code = load.reason.code if load.reason else ""
    if load.verdict not in (Verdict.REJECTED, Verdict.REFUSED) or code in _NOT_THE_KERNELS:
        return load
    reason = load.reason or Reason("unknown", "the kernel refused it")
    newer = f"the newer kernel {by} of this run accepts the same object"
    evidence = "; ".join(filter(None, (reason.evidence, newer)))
    return replace(load, verdict=Verdict.UNSUPPORTED, reason=replace(reason, evidence=evidence))

"""Shards of one run become one matrix, equal to that of the run in one piece.

Equal but for what a shard cannot know: the run's name, when it began, and the
durations.  Shards may divide the kernels, or the suites of a kernel, or both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from vmtest.errors import UsageError
from vmtest.model.loads import LoadResult, Verdict, row_of
from vmtest.model.results import (
    SCHEMA,
    KernelResult,
    Matrix,
    Outcome,
    Status,
    TestResult,
    counted,
    with_complaints,
)
from vmtest.model.versions import unique

_SEVERITY = (
    Status.CANCELLED,
    Status.PANICKED,
    Status.LOST,
    Status.TIMED_OUT,
    Status.FAILED,
    Status.SPLAT,
    Status.BOOT_FAILED,
    Status.INFRA_ERROR,
    Status.COLLECTED,
    Status.PASSED,
    Status.NO_TESTS,  # a kernel that had no tests of one shard passes by those of another
)


def merge(
    matrices: Sequence[Matrix],
    *,
    kernels: Sequence[str] = (),
    suites: Sequence[str] = (),
) -> Matrix:
    """One matrix of ``matrices``, the shards of one run.

    Kernels and suites that ``kernels`` and ``suites`` name come in that order
    (give that of kernels.toml), the others after them as they first appear.
    A kernel in several shards gets the gravest status, all reasons, and the
    logs and console of the shard that had that status; its boot is the slowest
    and its duration the sum, because every shard spent its own.  The matrix
    lasts as long as the longest shard, and began with the first.  Where the shards
    loaded objects by different versions of libbpf, each version has its own rows.

    Raises UsageError when there is nothing to merge, when only some of the shards ran
    their tests (the others listed them), and when shards disagree about a kernel's exact
    version, its digest, an object or a test.
    """
    shards = list(dict.fromkeys(matrices))
    if not shards:
        raise UsageError("nothing to merge: give the runs of the shards, or their matrix.json")
    if len(shards) == 1:
        return shards[0]
    _check_collected(shards)
    shards = _by_loader(shards)
    suite_order = _ordered((s for shard in shards for s in shard.suites), suites)
    names = _ordered((k.kernel for shard in shards for k in shard.kernels), kernels)
    commands = list(dict.fromkeys(shard.command for shard in shards))
    of = {
        name: [(s.run, k) for s in shards for k in s.kernels if k.kernel == name] for name in names
    }
    return Matrix(
        schema=SCHEMA,
        run="+".join(unique(shard.run for shard in shards)),
        started=min(shard.started for shard in shards),
        duration=max(shard.duration for shard in shards),
        suites=suite_order,
        kernels=tuple(_kernel(of[name], suite_order) for name in names),
        interrupted=any(shard.interrupted for shard in shards),
        notes=unique(note for shard in shards for note in shard.notes),
        command=commands[0] if len(commands) == 1 else (),
        # An exec without its command: it is not told how to run that again.
        again=_shared(shards) if len(commands) == 1 else (("exec",),),
    )


def _shared(shards: Sequence[Matrix]) -> tuple[tuple[str, ...], ...]:
    """What the command lines of all shards have; nothing where they are of several commands."""
    if len({shard.again[:1] for shard in shards}) > 1:
        return ()
    first, *others = (shard.again for shard in shards)
    return tuple(group for group in first if all(group in other for other in others))


def _check_collected(shards: Sequence[Matrix]) -> None:
    listed = [s for s in shards if any(k.status is Status.COLLECTED for k in s.kernels)]
    ran = [s for s in shards if any(t.outcome.ran for k in s.kernels for t in k.tests)]
    if listed and ran:
        raise UsageError(
            f"run {listed[0].run} only listed its tests (--collect-only) and other shards ran "
            "theirs: leave it out, or run it"
        )


def _by_loader(shards: Sequence[Matrix]) -> list[Matrix]:
    """``shards`` whose objects say which libbpf loaded them, where it was not always the same."""
    loads = [load for shard in shards for kernel in shard.kernels for load in kernel.loads]
    if len({load.libbpf for load in loads if load.libbpf}) < 2:
        return list(shards)
    return [
        replace(shard, kernels=tuple(_rows_by_loader(kernel) for kernel in shard.kernels))
        for shard in shards
    ]


def _rows_by_loader(kernel: KernelResult) -> KernelResult:
    rows = {load.object: _row(load.object, load.by) for load in kernel.loads if load.libbpf}
    return replace(
        kernel,
        objects=tuple((rows.get(name, name), digest) for name, digest in kernel.objects),
        loads=tuple(replace(one, object=rows.get(one.object, one.object)) for one in kernel.loads),
        changes=tuple(
            replace(one, object=rows.get(one.object, one.object)) for one in kernel.changes
        ),
    )


def _row(name: str, by: str) -> str:
    return name if name.endswith(row_of("", by)) else row_of(name, by)


def _loaders(results: Sequence[KernelResult]) -> str:
    """Every libbpf of the shards of one kernel."""
    return ", ".join(unique(v for result in results for v in result.libbpf.split(", ") if v))


def _ordered(found: Iterable[str], wanted: Sequence[str]) -> tuple[str, ...]:
    present = unique(found)
    first = [name for name in unique(wanted) if name in present]
    return unique([*first, *present])


def _kernel(parts: Sequence[tuple[str, KernelResult]], suites: Sequence[str]) -> KernelResult:
    if len(parts) == 1:
        return parts[0][1]
    results = [result for _, result in parts]
    gravest = min(results, key=lambda result: _SEVERITY.index(result.status))
    counts = _counts(results)
    others = (result.reason for result in results if not result.counts)
    together = replace(
        gravest,
        version=_agreed(parts, "version"),
        release=_agreed(parts, "release"),
        digest=_agreed(parts, "digest"),
        accelerator="+".join(sorted({r.accelerator for r in results} - {""})),
        libbpf=_loaders(results),
        tests=_tests(parts, suites),
        repeated=tuple(one for r in results for one in r.repeated),
        reason="; ".join(unique(filter(None, (counted(counts), *others)))),
        counts=counts,
        note="; ".join(unique(r.note for r in results if r.note)),
        start="+".join(sorted({word for r in results for word in r.start.split("+")} - {""})),
        boot_seconds=max(r.boot_seconds for r in results),
        duration=sum(r.duration for r in results),
        factor=max(r.factor for r in results),
        gate=any(r.gate for r in results),
        objects=_objects(parts),
        loads=_loads(parts),
        changes=tuple(dict.fromkeys(change for r in results for change in r.changes)),
    )
    return with_complaints(together, results)


def _counts(results: Sequence[KernelResult]) -> tuple[tuple[str, int], ...]:
    """What the shards of one kernel were failed for, added up."""
    numbers: dict[str, int] = {}
    for result in results:
        for what, number in result.counts:
            numbers[what] = numbers.get(what, 0) + number
    return tuple(numbers.items())


def _agreed(parts: Sequence[tuple[str, KernelResult]], field: str) -> str:
    """The one value of ``field`` among the shards that know it."""
    known: dict[str, str] = {}
    for run, result in parts:
        value: str = getattr(result, field)
        if value:
            known.setdefault(value, run)
    if len(known) > 1:
        raise _conflict(parts[0][1].kernel, field, known)
    return next(iter(known), "")


def _objects(parts: Sequence[tuple[str, KernelResult]]) -> tuple[tuple[str, str], ...]:
    known: dict[str, dict[str, str]] = {}
    for run, result in parts:
        for name, digest in result.objects:
            known.setdefault(name, {}).setdefault(digest, run)
    for name, digests in known.items():
        if len(digests) > 1:
            raise _conflict(parts[0][1].kernel, f'object "{name}"', digests)
    return tuple((name, next(iter(digests))) for name, digests in sorted(known.items()))


def _conflict(kernel: str, what: str, known: dict[str, str]) -> UsageError:
    said = ", ".join(f"{value} in run {run}" for value, run in list(known.items())[:3])
    return UsageError(
        f"kernel {kernel}: {what} differs between shards: {said}; "
        "these are different runs: give shards that ran the same kernels and objects "
        "(pin the version in kernels.toml, build the objects once)"
    )


def _loads(parts: Sequence[tuple[str, KernelResult]]) -> tuple[LoadResult, ...]:
    """All loads; one that a shard did not come to, another may have."""
    found: dict[tuple[str, str], tuple[str, LoadResult]] = {}
    for run, result in parts:
        for load in result.loads:
            before = found.setdefault((load.object, load.program), (run, load))
            if before[1].verdict is Verdict.NOT_LOADED:
                found[load.object, load.program] = (run, load)
            elif load.verdict not in (before[1].verdict, Verdict.NOT_LOADED):
                raise UsageError(
                    f"kernel {result.kernel}: {load.label}: {before[1].verdict} in run "
                    f"{before[0]}, {load.verdict} in run {run}; shards of one run do not repeat "
                    "a load: leave one of these runs out"
                )
    return tuple(load for _, load in found.values())


def _tests(
    parts: Sequence[tuple[str, KernelResult]], suites: Sequence[str]
) -> tuple[TestResult, ...]:
    """All tests, suites in their order; a test that one shard did not reach, another may have."""
    found: dict[tuple[str, str], tuple[str, TestResult]] = {}
    for run, result in parts:
        for test in result.tests:
            key = (test.suite, test.test)
            before = found.setdefault(key, (run, test))
            if before[1].outcome is Outcome.NOT_RUN:
                found[key] = (run, test)
            elif test.outcome not in (before[1].outcome, Outcome.NOT_RUN):
                raise UsageError(
                    f"kernel {result.kernel}: {test.test}: {before[1].outcome} in run {before[0]}, "
                    f"{test.outcome} in run {run}; shards of one run do not repeat a test: "
                    "leave one of these runs out"
                )
    place = {suite: n for n, suite in enumerate(suites)}
    tests = [test for _, test in found.values()]
    return tuple(sorted(tests, key=lambda test: place.get(test.suite, len(place))))

"""Verdicts of ``vmtest verify`` against a baseline, and what decides: pure but for the file.

A baseline is kept by exact kernel release and has each object's sha256, because a
verdict can change for two reasons: the object did, or the kernel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vmtest.errors import UsageError
from vmtest.model.loads import Change, ChangeKind, Cost, LoadResult, Verdict, near_limit
from vmtest.model.results import KernelResult, Matrix, Status, counted

BASELINE_SCHEMA = 1
"""Version of the schema of a baseline; raised when a reader would misread it."""

COSTS = (
    "instructions",
    "total_states",
    "peak_states",
    "stack_depth",
    "translated_size",
    "jited_size",
)
"""What is compared: all that the same kernel says again of the same program.

Verification time is not among them: it is the machine's as much as the program's.
"""


@dataclass(frozen=True, slots=True)
class SavedLoad:
    """One program's verdict and costs; ``costs`` has the names of COSTS."""

    verdict: Verdict
    reason: str = ""
    costs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SavedObject:
    """One object's sha256, and its programs by name ("" is the object as a whole)."""

    sha256: str
    programs: Mapping[str, SavedLoad]


@dataclass(frozen=True, slots=True)
class SavedKernel:
    """What one exact release said; ``kernel`` is its name in kernels.toml."""

    kernel: str
    objects: Mapping[str, SavedObject]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Verdicts to compare with, by exact kernel release."""

    schema: int
    kernels: Mapping[str, SavedKernel]


@dataclass(frozen=True, slots=True)
class FailOn:
    """What decides the exit status (``--fail-on``); ``percent`` is a cost's growth."""

    rejected: bool = False
    regressed: bool = False
    drift: bool = False
    limit: bool = False
    attach: bool = False
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> FailOn:
        """Read ``rejected,regressed,drift,limit,attach,+20%``, or ``nothing``.

        Raises UsageError.
        """
        found = cls()
        for word in (part.strip() for part in text.split(",")):
            growth = re.fullmatch(r"\+(\d+(?:\.\d+)?)%", word)
            if growth:
                found = replace(found, percent=float(growth.group(1)))
            elif word in ("rejected", "regressed", "drift", "limit", "attach"):
                found = replace(found, **{word: True})
            elif word != "nothing":
                raise UsageError(
                    f"`fail_on` {text}: {word!r} is not one of rejected, regressed, drift, limit, "
                    "attach, nothing, nor a growth such as +20%"
                )
        return found

    @property
    def compares(self) -> bool:
        """Whether it asks for something to compare with."""
        return self.regressed or self.drift or self.percent is not None


@dataclass(frozen=True, slots=True)
class Rules:
    """How a kernel's loads are judged."""

    fail_on: FailOn
    baseline: Baseline | None = None


_ADAPTER = TypeAdapter(Baseline)


def costs_of(cost: Cost) -> dict[str, int]:
    """The numbers of COSTS that are known; the stack is the sum over the subprograms."""
    values = {name: getattr(cost, name) for name in COSTS if name != "stack_depth"}
    values["stack_depth"] = sum(cost.stack_depth)
    return {name: values[name] for name in COSTS if values[name]}


def saved(
    objects: Iterable[tuple[str, str]], loads: Iterable[LoadResult]
) -> dict[str, SavedObject]:
    """``loads`` as a baseline keeps them; ``objects`` has names and sha256."""
    digests = dict(objects)
    programs: dict[str, dict[str, SavedLoad]] = {}
    for load in loads:
        programs.setdefault(load.object, {})[load.program] = SavedLoad(
            load.verdict,
            load.reason.code if load.reason else "",
            costs_of(load.cost) if load.verdict is Verdict.ACCEPTED else {},
        )
    return {name: SavedObject(digests.get(name, ""), found) for name, found in programs.items()}


def baseline_of(
    matrix: Matrix, before: Baseline | None = None, *, partial: bool = False
) -> Baseline:
    """The baseline of ``matrix``; of ``before`` it keeps the kernels that ``matrix`` has not.

    A kernel that did not run to its end is left as it was.  Where ``matrix`` is of some
    objects only (``partial``) or of some programs, what it left out stays as it was, too.
    """
    old = before.kernels if before is not None else {}
    ran = {
        kernel.release: kernel
        for kernel in matrix.kernels
        if kernel.loads and kernel.status in (Status.PASSED, Status.FAILED, Status.SPLAT)
    }
    new = {release: _kept(kernel, old.get(release), partial) for release, kernel in ran.items()}
    replaced = {k.kernel for k in ran.values() if not (partial or k.programs)}
    kept = {release: kernel for release, kernel in old.items() if kernel.kernel not in replaced}
    return Baseline(BASELINE_SCHEMA, {**kept, **new})


def _kept(kernel: KernelResult, old: SavedKernel | None, partial: bool) -> SavedKernel:
    """``kernel`` as it is saved, with what it left out of ``old``, the same release before."""
    found = saved(kernel.objects, kernel.loads)
    if old is None or not (partial or kernel.programs):
        return SavedKernel(kernel.kernel, found)
    for name, was in old.objects.items():
        now = found.get(name)
        if now is None:
            found[name] = was
        elif now.sha256 == was.sha256:  # what is known of another build is not known of this one
            left = {p: load for p, load in was.programs.items() if not asked(kernel, p)}
            found[name] = SavedObject(now.sha256, {**left, **now.programs})
    return SavedKernel(kernel.kernel, found)


def asked(kernel: KernelResult, program: str) -> bool:
    """Whether ``program`` ("" for an object as a whole) was asked of ``kernel``."""
    if not kernel.programs:
        return True
    return program != "" and any(fnmatchcase(program, glob) for glob in kernel.programs)


def narrowed(kernel: KernelResult, programs: tuple[str, ...]) -> KernelResult:
    """``kernel`` as if only ``programs`` (patterns) had been asked of it.

    An object that could not even be opened answers for its programs.
    """
    of_these = replace(kernel, programs=programs)

    def chosen(loads: Iterable[LoadResult]) -> tuple[LoadResult, ...]:
        return tuple(
            load
            for load in loads
            if asked(of_these, load.program) or load.verdict is Verdict.OPEN_FAILED
        )

    loads, against = chosen(kernel.loads), kernel.against
    if against is not None:
        against = replace(against, loads=chosen(against.loads))
    result = replace(of_these, loads=loads, against=against)
    if loads or kernel.status not in (Status.PASSED, Status.FAILED):
        return result
    return replace(result, status=Status.NO_TESTS, reason="it has no load that --program matches")


def dumps(baseline: Baseline) -> str:
    """``baseline`` as JSON with sorted keys, so that two of them can be read as a diff."""
    value = _ADAPTER.dump_python(baseline, mode="json")
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def load(file: Path) -> Baseline:
    """Read the baseline ``file``; raises UsageError with what is wrong and the cure."""
    cure = "write a new one with --save FILE"
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist; {cure}") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not JSON: {error}; {cure}") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is not int or "kernels" not in value or not isinstance(value["kernels"], dict):
        raise UsageError(f"{file}: is not a baseline of vmtest verify; {cure}")
    if schema != BASELINE_SCHEMA:
        newer = schema > BASELINE_SCHEMA
        raise UsageError(
            f"{file}: schema {schema}, but this vmtest reads {BASELINE_SCHEMA}; "
            f"{'upgrade vmtest, or ' if newer else ''}{cure}"
        )
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{file}: {place}: {first['msg'].lower()}; {cure}") from error


def changes(kernel: KernelResult, baseline: Baseline | None) -> tuple[Change, ...]:
    """How ``kernel`` differs from the other builds of the same boot, or from ``baseline``.

    Verdicts come first, costs after them by how much they grew.  A kernel that
    ``baseline`` knows neither by its release nor by its name has no changes.
    """
    if kernel.against is not None:
        other = kernel.against
        return _compared(saved(other.objects, other.loads), kernel, moved="", since=other.name)
    if baseline is None:
        return ()
    exact = baseline.kernels.get(kernel.release)
    if exact is not None:
        return _compared(exact.objects, kernel, moved="", since=kernel.release)
    for release, old in baseline.kernels.items():
        if old.kernel == kernel.kernel:
            return _compared(old.objects, kernel, moved=release, since=release)
    return ()


def unknown_to(baseline: Baseline, kernel: KernelResult) -> bool:
    """Whether ``baseline`` has nothing to compare ``kernel`` with."""
    known = (old.kernel == kernel.kernel for old in baseline.kernels.values())
    return kernel.release not in baseline.kernels and not any(known)


_ORDER = (
    ChangeKind.REGRESSED,
    ChangeKind.DRIFT,
    ChangeKind.CHANGED,
    ChangeKind.FIXED,
    ChangeKind.COST,
    ChangeKind.NEW,
    ChangeKind.GONE,
)


def _compared(
    before: Mapping[str, SavedObject], kernel: KernelResult, moved: str, since: str
) -> tuple[Change, ...]:
    digests = dict(kernel.objects)
    found: list[Change] = []
    now = {(load.object, load.program): load for load in kernel.loads}
    for (name, program), after in now.items():
        old_object = before.get(name)
        old = old_object.programs.get(program) if old_object is not None else None
        # Only the kernel moved: whatever differs is not the object's doing.
        drift = bool(moved) and old_object is not None and old_object.sha256 == digests.get(name)
        found += _program_changes(name, program, old, after, drift, since)
    for name, old_object in before.items():
        if name not in {load.object for load in kernel.loads}:
            continue  # not asked for in this run
        for program, old in old_object.programs.items():
            if (name, program) not in now and asked(kernel, program):
                found.append(Change(name, program, ChangeKind.GONE, old.verdict, since=since))
    return tuple(sorted(found, key=_rank))


def _rank(change: Change) -> tuple[int, bool, int, float]:
    order = _ORDER.index(change.kind)
    cost = change.kind in (ChangeKind.COST, ChangeKind.DRIFT) and change.cost != ""
    # A drift of a cost stands with the costs, whatever caused it.
    return (_ORDER.index(ChangeKind.COST) if cost else order, cost, order, -change.percent)


# Which of these a refusal is hangs on the kernels beside it in the run (vmtest.verify.columns): a
# step from one to another with the same reason is not a change.
_BY_THE_RUN = {Verdict.REJECTED, Verdict.REFUSED, Verdict.UNSUPPORTED}


def _program_changes(
    name: str, program: str, old: SavedLoad | None, after: LoadResult, drift: bool, since: str
) -> Iterable[Change]:
    def change(kind: ChangeKind, cost: str = "", was: int = 0, now: int = 0) -> Change:
        before = old.verdict if old is not None else None
        return Change(
            name, program, kind, before, after.verdict, cost, was, now, since, after.required
        )

    reason = after.reason.code if after.reason else ""
    if old is None:
        yield change(ChangeKind.NEW)
    elif {old.verdict, after.verdict} <= _BY_THE_RUN and old.reason == reason:
        return
    elif old.verdict is not after.verdict:
        if Verdict.NOT_LOADED in (old.verdict, after.verdict):
            yield change(ChangeKind.CHANGED)
        elif drift:
            yield change(ChangeKind.DRIFT)
        elif old.verdict is Verdict.ACCEPTED:
            yield change(ChangeKind.REGRESSED)
        elif after.verdict is Verdict.ACCEPTED:
            yield change(ChangeKind.FIXED)
        else:
            yield change(ChangeKind.CHANGED)
    elif after.verdict is Verdict.ACCEPTED:
        costs = costs_of(after.cost)
        for cost, value in old.costs.items():
            if cost in costs and costs[cost] != value and value:
                kind = ChangeKind.DRIFT if drift else ChangeKind.COST
                yield change(kind, cost, value, costs[cost])


def judge(kernel: KernelResult, rules: Rules) -> KernelResult:
    """``kernel`` with its changes, and by ``rules`` its status and its reason.

    Only a kernel that did its work gets another status: one that did not boot,
    crashed or was interrupted keeps its own.
    """
    if not kernel.loads:
        return kernel
    kernel = replace(kernel, changes=changes(kernel, rules.baseline))
    if rules.baseline is not None and unknown_to(rules.baseline, kernel):
        missing = f"the baseline knows nothing of {kernel.release}: add it with --save"
        if missing not in kernel.note:
            kernel = replace(kernel, note="; ".join(filter(None, (kernel.note, missing))))
    if kernel.status not in (Status.PASSED, Status.FAILED):
        return kernel
    counts = tuple((what, number) for what, number in _against_it(kernel, rules) if number)
    status = Status.FAILED if counts else Status.PASSED
    return replace(kernel, status=status, reason=counted(counts), counts=counts)


def refused(loads: Sequence[LoadResult]) -> list[tuple[str, int]]:
    """The verdicts against the required ones of ``loads``, each with its number."""
    bad = [load.verdict for load in loads if load.required and load.verdict.bad]
    return [(verdict.value, bad.count(verdict)) for verdict in Verdict if verdict in bad]


def _against_it(kernel: KernelResult, rules: Rules) -> list[tuple[str, int]]:
    fail_on = rules.fail_on
    reasons = []
    if fail_on.rejected:
        reasons += refused(kernel.loads)
    deciding = [change for change in kernel.changes if change.required]
    verdicts = [change for change in deciding if not change.cost]
    if fail_on.regressed:
        reasons.append(_number(verdicts, ChangeKind.REGRESSED))
    if fail_on.drift:
        reasons.append(_number(deciding, ChangeKind.DRIFT))
    if fail_on.percent is not None:
        grown = {
            (change.object, change.program)
            for change in deciding
            if change.kind is ChangeKind.COST and change.percent > fail_on.percent
        }
        reasons.append((f"cost over {fail_on.percent:g}% more", len(grown)))
    if fail_on.limit:
        near = sum(near_limit(load) for load in kernel.loads if load.required)
        reasons.append(("near the instruction limit", near))
    if fail_on.attach:
        tried = [load.attachment for load in kernel.loads if load.required and load.attachment]
        failed = sum(not one.attached for one in tried)
        idle = sum(one.attached and not one.works for one in tried)
        reasons += [("not attached", failed), ("attached and never called", idle)]
    return reasons


def _number(changes: Sequence[Change], kind: ChangeKind) -> tuple[str, int]:
    return kind.value, sum(change.kind is kind for change in changes)

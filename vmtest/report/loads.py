"""What ``vmtest verify`` found, before anyone decides how it looks: rows, findings, words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from vmtest.model.loads import (
    INSTRUCTION_LIMIT,
    Attachment,
    Change,
    ChangeKind,
    LoadResult,
    Reason,
    Verdict,
    near_limit,
    row_of,
)
from vmtest.model.results import KernelResult, Matrix
from vmtest.model.text import one_line, printable
from vmtest.model.versions import unique
from vmtest.report.table import Cell, Line, Row, SuiteRows, Table, Tone
from vmtest.report.text import counted

_MARKS = {
    Verdict.ACCEPTED: Line("ok", Tone.GOOD),
    Verdict.REJECTED: Line("REJECTED", Tone.BAD),
    Verdict.UNSUPPORTED: Line("UNSUPPORTED", Tone.BAD),
    Verdict.OPEN_FAILED: Line("OPEN FAILED", Tone.BAD),
    Verdict.REFUSED: Line("REFUSED", Tone.BAD),
    Verdict.TIMED_OUT: Line("TIMED OUT", Tone.BAD),
    Verdict.LOADER_CRASHED: Line("LOADER DIED", Tone.BAD),
    Verdict.KERNEL_CRASHED: Line("KERNEL DIED", Tone.BAD),
    Verdict.NOT_LOADED: Line("not loaded", Tone.WARN),
}
LEGEND = {
    "ok": "accepted; the number is the instructions that the verifier processed",
    "!": f"within a tenth of the limit of {INSTRUCTION_LIMIT:,} instructions",
    "REFUSED": "the object as a whole, beside the verifier",
}
"""What the marks mean that do not speak for themselves."""
_TONES = {
    ChangeKind.REGRESSED: Tone.BAD,
    ChangeKind.DRIFT: Tone.WARN,
    ChangeKind.CHANGED: Tone.WARN,
    ChangeKind.FIXED: Tone.GOOD,
}
WHOLE = "(as a whole)"
"""The label of an object's row for its load as a whole."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A load or an attachment that came to nothing in the same way on one kernel or on several.

    ``mark`` says how, ``about`` what else is known in a word ("" for nothing), ``lines`` why.
    """

    label: str
    mark: Line
    about: str
    lines: tuple[str, ...]
    loads: tuple[tuple[KernelResult, LoadResult], ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """Where."""
        return tuple(printable(kernel.kernel) for kernel, _ in self.loads)

    @property
    def logs(self) -> tuple[str, ...]:
        """The whole logs, relative to the run's folder."""
        return tuple(
            f"{printable(kernel.directory).rstrip('/')}/{load.log}"
            for kernel, load in self.loads
            if load.log
        )


@dataclass(frozen=True, slots=True)
class Changed:
    """A difference from a baseline that several kernels share, in words."""

    mark: str
    text: str
    tone: Tone
    kernels: tuple[str, ...]


def objects_of(matrix: Matrix) -> tuple[str, ...]:
    """The objects of any kernel, in their order."""
    return unique(load.object for kernel in matrix.kernels for load in kernel.loads)


def mark_of_verdict(verdict: Verdict) -> Line:
    """``REJECTED``: the verdict alone."""
    return _MARKS[verdict]


def mark_of(load: LoadResult) -> Line:
    """``ok 812``, ``REJECTED 1523``: verdict, and instructions where they are known."""
    mark = _MARKS[load.verdict]
    number = load.cost.instructions
    if load.verdict is Verdict.NOT_LOADED or not number:
        return mark
    if near_limit(load):
        return Line(f"{mark.text} {number} !", Tone.WARN)
    return Line(f"{mark.text} {number}", mark.tone)


def with_loads(table: Table, matrix: Matrix) -> Table:
    """``table`` with the loads: counts by kernel, then objects and their programs down."""
    if not objects_of(matrix):
        return table
    counts = Row("loads", tuple(_counts(kernel.loads) for kernel in matrix.kernels))
    return replace(
        table,
        facts=(*table.facts, counts),
        suites=(*table.suites, *_groups(matrix)),
    )


def _groups(matrix: Matrix) -> Iterable[SuiteRows]:
    """One group an object: its counts by kernel, its load as a whole, its programs."""
    of = [{(load.object, load.program): load for load in k.loads} for k in matrix.kernels]
    loads = [load for kernel in matrix.kernels for load in kernel.loads]
    for name in objects_of(matrix):
        programs = unique(program for found in of for owner, program in found if owner == name)
        rows = tuple(
            Row(
                printable(program) if program else WHOLE,
                tuple(_cell(found.get((name, program))) for found in of),
            )
            for program in sorted(programs, key=bool)
        )
        counts = tuple(
            _counts([load for load in kernel.loads if load.object == name])
            for kernel in matrix.kernels
        )
        base, loader = _loader(name, loads)
        yield SuiteRows(Row(printable(base), counts), rows, loader)


def _loader(name: str, loads: Sequence[LoadResult]) -> tuple[str, str]:
    """The object's own name, and what loaded it where not the same did all ``loads``.

    Of several versions of libbpf it is the version.
    """
    first = next((load for load in loads if load.object == name and load.by), None)
    if first is None:
        return name, ""
    base = name.removesuffix(row_of("", first.by))
    if any(load.loader for load in loads):
        return base, first.by
    return (base, first.libbpf) if base != name else (name, "")


def _cell(load: LoadResult | None) -> Cell:
    if load is None:
        return (Line("-", Tone.QUIET),)
    lines = [mark_of(load)]
    if load.attachment is not None:
        mark = attachment_mark(load.attachment)
        lines.append(replace(mark, text=f"{mark.text} {load.attachment.errno}".rstrip()))
    if not load.required and load.verdict.bad:
        lines.append(Line("not required", Tone.QUIET))
    return tuple(lines)


def _counts(loads: Sequence[LoadResult]) -> Cell:
    """``3 ok`` and ``1 REJECTED``: the programs; ``1 REJECTED as a whole``: the objects."""
    lines = []
    for verdict, mark in _MARKS.items():
        of = [bool(load.program) for load in loads if load.verdict is verdict]
        if any(of):
            lines.append(Line(f"{sum(of)} {mark.text}", mark.tone))
        if verdict.bad and not all(of):
            lines.append(Line(f"{len(of) - sum(of)} {mark.text} as a whole", mark.tone))
    return (*lines, *_failed_attachments(loads)) or (Line("-", Tone.QUIET),)


def _failed_attachments(loads: Sequence[LoadResult]) -> Cell:
    """``2 not attached``, ``1 attached, never called``."""
    marks = [attachment_mark(load.attachment) for load in loads if load.attachment is not None]
    failed = dict.fromkeys(mark for mark in marks if mark.tone is not Tone.GOOD)
    return tuple(replace(mark, text=f"{marks.count(mark)} {mark.text}") for mark in failed)


def legend(matrix: Matrix) -> tuple[str, ...]:
    """What the marks of the table mean, those in use."""
    used = {word for k in matrix.kernels for load in k.loads for word in mark_of(load).text.split()}
    return tuple(f"{mark}: {words}" for mark, words in LEGEND.items() if mark in used)


def rejections(matrix: Matrix) -> tuple[Rejection, ...]:
    """What was not accepted, in the order of the rows; kernels that agree are one."""

    def same(load: LoadResult) -> tuple[object, ...] | None:
        known = (load.object, load.program, load.verdict, load.errno, load.line, load.reason)
        return known if load.verdict.bad else None

    return tuple(
        Rejection(printable(load.label), mark_of(load), title(load), why(load), some)
        for load, some in _alike(matrix, same)
    )


def taken(
    found: list[Rejection], of: Iterable[tuple[KernelResult, LoadResult]]
) -> tuple[Rejection, ...]:
    """Those of ``found`` that are about the loads ``of`` a cause; they are taken out of it."""
    known = {id(load) for _, load in of}
    some = tuple(r for r in found if any(id(load) in known for _, load in r.loads))
    gone = set(map(id, some))
    found[:] = [rejection for rejection in found if id(rejection) not in gone]
    return some


def unattached(matrix: Matrix) -> tuple[Rejection, ...]:
    """Accepted programs that could not be attached, or never run where they were; likewise."""

    def same(load: LoadResult) -> tuple[object, ...] | None:
        attachment = load.attachment
        if attachment is None or attachment.works:
            return None
        return load.object, load.program, attachment

    return tuple(
        Rejection(
            printable(load.label),
            attachment_mark(load.attachment),
            _where(load, load.attachment),
            _reason_lines(load.attachment.reason),
            some,
        )
        for load, some in _alike(matrix, same)
        if load.attachment is not None
    )


def _alike(
    matrix: Matrix, same: Callable[[LoadResult], tuple[object, ...] | None]
) -> list[tuple[LoadResult, tuple[tuple[KernelResult, LoadResult], ...]]]:
    """The loads for which ``same`` gives the same, the first of each and all with its kernel."""
    place = {name: n for n, name in enumerate(objects_of(matrix))}
    found: dict[tuple[object, ...], list[tuple[KernelResult, LoadResult]]] = {}
    for kernel in matrix.kernels:
        for load in kernel.loads:
            if (key := same(load)) is not None:
                found.setdefault(key, []).append((kernel, load))
    ordered = sorted(found.values(), key=lambda some: place[some[0][1].object])
    return [(some[0][1], tuple(some)) for some in ordered]


def attachment_mark(attachment: Attachment) -> Line:
    """``attached``, ``not attached``, ``attached, never called``."""
    if attachment.works:
        return Line("attached", Tone.GOOD)
    return Line("attached, never called" if attachment.attached else "not attached", Tone.WARN)


def _where(load: LoadResult, attachment: Attachment) -> str:
    """``ENOENT, where its section says: kprobe/do_unlinkat``."""
    place = ": ".join(part for part in (attachment.place, load.section) if part)
    return printable(", ".join(part for part in (attachment.errno, place) if part))


def _reason_lines(reason: Reason | None) -> tuple[str, ...]:
    if reason is None:
        return ()
    lines = [f"{reason.code}: {one_line(reason.text, 500)}"]
    if reason.evidence:
        lines.append(f"evidence: {one_line(reason.evidence, 500)}")
    if reason.remedy:
        lines.append(f"remedy: {one_line(reason.remedy, 500)}")
    return tuple(lines)


def why(load: LoadResult) -> tuple[str, ...]:
    """The lines below a rejection: reason, remedy, evidence, the verifier's own words."""
    reason = load.reason
    lines = [*_reason_lines(reason)]
    if load.line and (reason is None or load.line not in (reason.text, reason.evidence)):
        lines.append(f"last line: {one_line(load.line, 500)}")
    if load.log_cut:
        lines.append("the log was cut: raise --log-limit")
    return tuple(lines)


def title(load: LoadResult) -> str:
    """``EACCES, xdp`` or the like: what else is known in a word."""
    return ", ".join(part for part in (load.errno, load.type or load.section) if part)


def changed(matrix: Matrix) -> tuple[Changed, ...]:
    """All changes, verdicts first; kernels that agree word for word are one."""
    found: dict[tuple[str, str, Tone], list[str]] = {}
    rank: dict[tuple[str, str, Tone], tuple[bool, int]] = {}
    for kernel in matrix.kernels:
        for n, change in enumerate(kernel.changes):
            key = (
                _mark(change),
                _words(change, kernel.release),
                _TONES.get(change.kind, Tone.QUIET),
            )
            found.setdefault(key, []).append(printable(kernel.kernel))
            rank.setdefault(key, (change.cost != "", n))
    return tuple(
        Changed(mark, text, tone, tuple(found[mark, text, tone]))
        for mark, text, tone in sorted(found, key=lambda key: rank[key])
    )


def _mark(change: Change) -> str:
    if change.cost and change.kind is ChangeKind.COST:
        return "cost"
    return change.kind.value.upper() if change.kind is ChangeKind.REGRESSED else change.kind.value


def _words(change: Change, release: str) -> str:
    label = printable(change.label)
    if change.cost:
        what = f"{change.cost.replace('_', ' ')} {change.old} -> {change.new}"
        words = f"{label}: {what} ({change.percent:+.1f}%)"
    elif change.kind is ChangeKind.NEW:
        words = f"{label}: {change.after}"
    elif change.kind is ChangeKind.GONE:
        words = f"{label}: was {change.before}"
    else:
        words = f"{label}: {change.before} -> {change.after}"
    aside = "" if change.required else ", not required"
    # Of one kernel's release another build, or another libbpf, is what changed.
    verb = "compared with" if change.since == release else "since"
    return f"{words} ({verb} {printable(change.since)}{aside})"


def near(matrix: Matrix) -> tuple[str, ...]:
    """A line for every program that is close to the instruction limit."""
    found: dict[str, list[str]] = {}
    for kernel in matrix.kernels:
        for load in kernel.loads:
            if near_limit(load):
                part = 100 * load.cost.instructions / INSTRUCTION_LIMIT
                text = (
                    f"{printable(load.label)}: {load.cost.instructions} instructions, "
                    f"{part:.0f}% of the limit"
                )
                found.setdefault(text, []).append(printable(kernel.kernel))
    return tuple(f"{text} on {', '.join(kernels)}" for text, kernels in found.items())


def summary(matrix: Matrix) -> str:
    """``3 objects, 12 programs: 46 accepted, 2 rejected``; "" without any load.

    Objects that do not load as a whole are counted for themselves: they are no programs.
    """
    loads = [load for kernel in matrix.kernels for load in kernel.loads]
    if not loads:
        return ""
    programs = {(load.object, load.program) for load in loads if load.program}
    counts = []
    for verdict in Verdict:
        of = [load for load in loads if load.verdict is verdict and load.program]
        if of:
            counts.append(f"{len(of)} {verdict}")
    counts += [line.text for line in _failed_attachments(loads)]
    objects = counted(len(objects_of(matrix)), "object")
    head = f"{objects}, {counted(len(programs), 'program')}"
    told = f"{head}: {', '.join(counts)}" if counts else head
    refused = {load.object for load in loads if not load.program and load.verdict.bad}
    verb = "does" if len(refused) == 1 else "do"
    return told + (f"; {len(refused)} of {objects} {verb} not load as a whole" if refused else "")

"""The page: a matrix, and what its run remembers besides, as one file of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from vmtest.model.results import KernelResult, Matrix, Outcome, exit_status
from vmtest.model.text import one_line
from vmtest.model.versions import unique
from vmtest.report import console as consoles
from vmtest.report import loads, visited
from vmtest.report import table as tables
from vmtest.report.again import command_of, fill_in
from vmtest.report.causes import Cause, causes
from vmtest.report.cures import cure_of
from vmtest.report.html import features, grid, safe, timeline
from vmtest.report.html.badge import words
from vmtest.report.html.bisection import Bisection, line
from vmtest.report.html.chart import Chart, by_kernel, by_slot
from vmtest.report.html.history import History, history
from vmtest.report.table import WELL
from vmtest.report.text import counted, last_lines, seconds
from vmtest.report.tracebacks import last_of_traceback
from vmtest.report.written import KERNEL, written
from vmtest.runs.events import Stamped
from vmtest.runs.past import Past

_CARDS = 200
_CHIPS = 12  # kernels of a card one by one
_LABELS = 12
_DETAILS, _OUTPUT, _CONSOLE, _TAIL, _SPLAT = 60, 30, 14, 40, 80
_COLUMNS = 400
_FEATURES = 1500
_EXCUSES = 1000
_STEPS = (2, 5, 10, 20, 40)  # percent from which on a line is drawn stronger


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run's folder remembers beside its matrix; all of it may be missing.

    ``facts`` are run.json's, ``events`` those of events.jsonl, ``probes`` the text of each
    kernel's feature probe.  ``beside`` says that the page lies in that folder: then it links to
    the logs.  ``runs`` are those of the project's history, this one last, and ``pages`` the links
    to the pages of those that have one.  ``listed`` are the runs of a published site, the newest
    first, for its front page; ``home`` is the link to that.  ``bisected`` is what the run found
    if it is a bisect's.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Stamped, ...] = ()
    probes: Mapping[str, str] = field(default_factory=dict)
    beside: bool = False
    runs: tuple[Past, ...] = ()
    pages: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[Past, ...] = ()
    home: str = ""
    bisected: Bisection | None = None


@dataclass(frozen=True, slots=True)
class Chip:
    """A kernel in a card: how it fared."""

    name: str
    tone: str
    sign: str


@dataclass(frozen=True, slots=True)
class Card:
    """A cause as the page shows it."""

    cause: Cause
    chips: tuple[Chip, ...]
    others: str
    labels: tuple[str, ...]
    more: int
    details: str
    written: tuple[tuple[str, str], ...]
    command: str
    cure: str
    logs: tuple[tuple[str, str], ...]


def render(matrix: Matrix, memory: Memory | None = None) -> str:
    """The page of ``matrix``; raises nothing that a guest's text is to blame for."""
    memory = memory or Memory()
    found = causes(matrix)
    style, script = safe.own("page.css"), safe.own("page.js")
    template = safe.environment().from_string(safe.own("page.html"))
    names = [kernel.kernel for kernel in matrix.kernels]
    outcomes = _outcomes(matrix)
    told = features.rows(memory.probes, names)
    past = history(memory.runs, memory.pages)
    lines = visited.programs(matrix)
    return template.render(
        matrix=matrix,
        policy=safe.policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=safe.data(_data(matrix, past)),
        verdict=_verdict(matrix, found),
        good=exit_status(matrix) == 0,
        about=_about(matrix, memory.facts),
        summary=tables.summary(matrix, loads.summary(matrix)),
        kernels=[(kernel, _kernel(kernel), _link(memory, kernel)) for kernel in matrix.kernels],
        cards=[_card(cause, matrix, memory, outcomes) for cause in found[:_CARDS]],
        left_out=max(0, len(found) - _CARDS),
        has_tests=any(kernel.tests for kernel in matrix.kernels),
        has_loads=any(kernel.loads for kernel in matrix.kernels),
        changes=loads.changed(matrix),
        near=loads.near(matrix),
        visited=visited.shown(lines),
        not_visited=len(lines) - len(visited.shown(lines)),
        heat=_heat,
        charts=_charts(memory.events, matrix),
        phases=timeline.PHASES,
        features=told[:_FEATURES],
        fill_in=fill_in,
        differing=sum(row.differs for row in told),
        past=past,
        listed=[(run, words(run), memory.pages.get(run.run, "")) for run in memory.listed],
        home=memory.home,
        bisected=memory.bisected,
        line=memory.bisected and line(memory.bisected),
        excuses=tables.excuses(matrix)[:_EXCUSES],
        never=tables.never_ran(matrix),
        known=_known(memory.facts),
        provenance=_provenance(matrix, memory.facts),
        seconds=seconds,
        counted=counted,
        link=lambda kernel, name: _href(kernel, name) if memory.beside else "",
    )


def _data(matrix: Matrix, past: History | None) -> dict[str, Any]:
    """What the script draws: the heat maps, and the squares of the history in their order."""
    drawn = grid.grid(matrix)
    keys = [(drawn["suites"][row[0]], row[2]) for row in drawn["tests"]]
    return {**drawn, "past": past and past.squares(keys)}


def _verdict(matrix: Matrix, found: Sequence[Cause]) -> str:
    """``2 of 4 kernels failed: 17 causes in 65 results``."""
    kernels, well = matrix.kernels, [k for k in matrix.kernels if k.status in WELL]
    if not kernels:
        return "No kernel ran"
    if len(well) == len(kernels):
        word = "passed" if exit_status(matrix) == 0 else "ended well, and nothing ran"
        refused = sum(cause.count for cause in found)
        aside = f", not counting {counted(refused, 'failure')}" if refused else ""
        return f"{len(well)} of {counted(len(kernels), 'kernel')} {word}{aside}"
    if exit_status(matrix) == 0:
        others = len(kernels) - len(well)
        head = f"{len(well)} of {counted(len(kernels), 'kernel')} passed"
        return f"{head}, not counting {others} without a gate"
    head = f"{len(kernels) - len(well)} of {counted(len(kernels), 'kernel')} did not pass"
    results = counted(sum(cause.count for cause in found), "result")
    return f"{head}: {counted(len(found), 'cause')} in {results}" if found else head


def _about(matrix: Matrix, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, a label and a value each."""
    arguments = facts.get("arguments")
    project = facts.get("project")
    words = ["vmtest", *map(str, arguments)] if isinstance(arguments, list) and arguments else []
    revision = ""
    if isinstance(project, dict):
        dirty = " and files that differ from it" if project.get("dirty") else ""
        revision = f"{project.get('commit', '')}{dirty}"
    factors = sorted({kernel.factor for kernel in matrix.kernels if kernel.factor != 1.0})
    pairs = [
        ("run", matrix.run),
        ("started", matrix.started),
        ("took", seconds(matrix.duration)),
        ("exit status", str(exit_status(matrix))),
        ("command", " ".join(words or matrix.command)),
        ("project", revision),
        ("accelerator", tables.accelerators(matrix.kernels)),
        ("time limits", f"x{factors[-1]:.1f}" if factors else ""),
    ]
    return [(label, value) for label, value in pairs if value]


def _kernel(kernel: KernelResult) -> dict[str, str]:
    counts = {o: kernel.count(o) for o in Outcome}
    words = [f"{number} {outcome.value}" for outcome, number in counts.items() if number]
    programs = sum(bool(load.program) for load in kernel.loads)
    if programs:
        bad = sum(load.verdict.bad for load in kernel.loads if load.program)
        words.append(counted(programs, "program") + (f", {bad} not accepted" if bad else ""))
    end = consoles.tail(kernel.console_tail, _TAIL)
    return {
        "tone": tables.tone_of(kernel.status).value,
        "counts": ", ".join(words),
        "boot": seconds(kernel.boot_seconds) if kernel.boot_seconds else "",
        "took": seconds(kernel.duration) if kernel.duration else "",
        "tail": "\n".join(end.lines),
        "tail_title": end.title,
    }


def _href(kernel: KernelResult, name: str) -> str:
    """A relative link to a file of the kernel, whatever its folder calls itself."""
    if not kernel.directory:
        return ""
    folder, file = (quote(part, errors="replace") for part in (kernel.directory, name))
    return f"./{folder}/{file}"


def _link(memory: Memory, kernel: KernelResult) -> str:
    return _href(kernel, kernel.console_log) if memory.beside and kernel.has_console else ""


def _card(cause: Cause, matrix: Matrix, memory: Memory, of: Outcomes) -> Card:
    kernel = cause.kernels[0]
    details = log = ""
    parts: tuple[tuple[str, str], ...] = ()
    of_console = False
    if cause.tests:
        result = cause.tests[0][1]
        details = _said(*last_of_traceback(result.details or result.message, _DETAILS, _COLUMNS))
        parts = tuple((title, _quoted(text, _OUTPUT)) for title, text in written(result))
        log = tables.log_of_tests(matrix)
    elif cause.loads:
        details = "\n".join(loads.why(cause.loads[0][1]))
        log = cause.loads[0][1].log
    else:
        details, parts = _of_the_kernel(cause, kernel)
        of_console = kernel.has_console
    named = [(k, k.console_log if of_console else log) for k in cause.kernels[:4]]
    logs = [(f"{k.directory}/{name}", _href(k, name)) for k, name in named if name]
    chips, others = _chips(cause, matrix, of)
    return Card(
        cause=cause,
        chips=chips,
        others=others,
        labels=cause.labels[:_LABELS],
        more=max(0, len(cause.labels) - _LABELS),
        details=details,
        written=parts,
        command=command_of(cause, matrix),
        cure=cure_of(cause.message, matrix.notes) if cause.tests else "",
        logs=tuple(logs) if memory.beside else (),
    )


def _of_the_kernel(cause: Cause, kernel: KernelResult) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A complaint, and what else the kernel said while that test ran; else the console's end."""
    for one in kernel.complaints:
        if one_line(one.text).startswith(cause.message[:150]):
            logs = (test.kernel_log for test in kernel.tests if test.test == one.test)
            log = next(filter(None, logs), "")
            parts = ((KERNEL, _quoted(log, _SPLAT)),) if log else ()
            return _quoted(one.told, _CONSOLE), parts
    tail = "\n".join(consoles.tail(kernel.console_tail, _CONSOLE).lines)
    return _quoted(tail, _CONSOLE), ()


def _quoted(text: str, most: int) -> str:
    return _said(*last_lines(text, most, _COLUMNS))


def _said(lines: Sequence[str], left_out: int) -> str:
    head = [f"... {counted(left_out, 'line')} before these left out"] if left_out else []
    return "\n".join([*head, *lines])


Outcomes = Mapping[str, Mapping[tuple[str, str], Outcome]]
"""What became of each test (suite, node id), by kernel."""


def _outcomes(matrix: Matrix) -> Outcomes:
    return {k.kernel: {(t.suite, t.test): t.outcome for t in k.tests} for k in matrix.kernels}


def _chips(cause: Cause, matrix: Matrix, of: Outcomes) -> tuple[tuple[Chip, ...], str]:
    """The kernels it holds on and those where the same passed; the others in a word."""
    held = {kernel.kernel for kernel in cause.kernels}
    keys = {(test.suite, test.test) for _, test in cause.tests}
    chips = []
    for kernel in matrix.kernels:
        if kernel.kernel in held:
            chips.append(Chip(kernel.kernel, "bad", "✗"))
        elif keys:
            there = {of[kernel.kernel].get(key) for key in keys} - {None}
            passed = there == {Outcome.PASSED}
            chips.append(Chip(kernel.kernel, "good" if passed else "quiet", "✓" if passed else "·"))
        else:
            well = kernel.status in WELL
            chips.append(Chip(kernel.kernel, "good" if well else "quiet", "✓" if well else "·"))
    if len(chips) <= _CHIPS:
        return tuple(chips), ""
    bad = [chip for chip in chips if chip.tone == "bad"]
    rest = len(chips) - min(len(bad), _CHIPS)
    return tuple(bad[:_CHIPS]), f"and {counted(rest, 'other kernel')}"


def _charts(events: Sequence[Stamped], matrix: Matrix) -> list[tuple[str, Chart]]:
    """The time line of the slots, and that of the kernels; none without events."""
    bars = timeline.bars(events)
    if not bars:
        return []
    wrong = timeline.marks(events, [outcome.value for outcome in tables.WRONG])
    names = unique(kernel.kernel for kernel in matrix.kernels)
    return [
        ("What each VM slot did", by_slot(bars, wrong)),
        ("Where each kernel's time went", by_kernel(bars, wrong, names)),
    ]


def _heat(share: float) -> str:
    """The class of a cell with this share, in percent."""
    return f"h{sum(share >= step for step in _STEPS)}"


def _known(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    entries = facts.get("known failures")
    if not isinstance(entries, list):
        return []
    return [
        {key: str(entry.get(key) or "") for key in ("test", "kernels", "reason", "until")}
        for entry in entries
        if isinstance(entry, dict)
    ]


def _provenance(matrix: Matrix, facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What went in: a group, a name and a digest or version each."""
    found = []
    for group in ("versions", "host"):
        part = facts.get(group)
        if isinstance(part, dict):
            found += [(group, str(name), str(value)) for name, value in sorted(part.items())]
    for kernel in matrix.kernels:
        parts = (
            ("kernel", kernel.digest),
            ("guest image", kernel.guest),
            ("libbpf", kernel.libbpf),
        )
        found += [(kernel.kernel, name, value) for name, value in parts if value]
    objects = {pair for kernel in matrix.kernels for pair in kernel.objects}
    found += [("objects", name, digest) for name, digest in sorted(objects)]
    inputs = facts.get("inputs")
    if isinstance(inputs, dict):
        for group, files in sorted(inputs.items()):
            if isinstance(files, dict):
                found += [(str(group), str(name), str(value)) for name, value in files.items()]
    return found

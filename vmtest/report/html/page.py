"""The page: a matrix, and what its run remembers besides, as one file of HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from vmtest.model.results import KernelResult, Matrix, Outcome, exit_status
from vmtest.model.versions import unique
from vmtest.report import console as consoles
from vmtest.report import loads, visited
from vmtest.report import table as tables
from vmtest.report.again import aside, command_of_run, fill_in
from vmtest.report.causes import Cause, causes
from vmtest.report.html import features, grid, safe, timeline
from vmtest.report.html.badge import words
from vmtest.report.html.bisection import Bisection, line
from vmtest.report.html.cards import Results, card_of, runs_of_lines
from vmtest.report.html.chart import Chart, by_kernel, by_slot
from vmtest.report.html.commands import patterns
from vmtest.report.html.history import History, history
from vmtest.report.html.since import Earlier
from vmtest.report.html.unrun import unrun
from vmtest.report.table import WELL
from vmtest.report.text import counted, seconds
from vmtest.runs.events import Stamped
from vmtest.runs.past import Past

_CARDS = 200
_TAIL = 40  # lines of a console
_FEATURES = 1500
_EXCUSES = 1000
_STEPS = (2, 5, 10, 20, 40)  # percent from which on a line is drawn stronger


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run's folder remembers beside its matrix; all of it may be missing.

    ``facts`` are run.json's, ``events`` those of events.jsonl, ``probes`` the text of each
    kernel's feature probe.  ``beside`` says that the page lies in that folder: then it links to
    the logs.  So it does with ``logs``, the link from elsewhere to that folder.  ``within`` is the
    name of the folder that the page is written into, by which it sees that it was moved.
    ``runs`` are those of the project's history, this one last, and ``pages`` the links
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
    logs: str = ""
    within: str = ""

    def href(self, kernel: KernelResult, name: str) -> str:
        """A relative link to a file of the kernel, whatever its folder calls itself; or ""."""
        to = "./" if self.beside else self.logs
        if not (to and name and kernel.directory):
            return ""
        folder, file = (quote(part, errors="replace") for part in (kernel.directory, name))
        return f"{to}{folder}/{file}"


def render(matrix: Matrix, memory: Memory | None = None) -> str:
    """The page of ``matrix``; raises nothing that a guest's text is to blame for."""
    memory = memory or Memory()
    found = causes(matrix)
    style, script = safe.own("page.css"), safe.own("page.js")
    template = safe.environment().from_string(safe.own("page.html"))
    names = [kernel.kernel for kernel in matrix.kernels]
    # The runs before a bisect asked other kernels; what it found is its answer.
    earlier = Earlier(() if memory.bisected else memory.runs, memory.pages)
    results = Results(matrix)
    told = features.rows(memory.probes, names)
    past = history(memory.runs, memory.pages)
    lines = visited.programs(matrix)
    return template.render(
        matrix=matrix,
        policy=safe.policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=safe.data(_data(matrix, memory, past)),
        verdict=_verdict(matrix, found),
        good=exit_status(matrix) == 0,
        about=_about(matrix, memory.facts),
        again=_again(matrix, memory.facts),
        fill_in=fill_in,
        since=_since(memory, earlier, found),
        changed=earlier.changes(),
        summary=tables.summary(matrix, loads.summary(matrix)),
        kernels=[(kernel, _kernel(kernel), _console(memory, kernel)) for kernel in matrix.kernels],
        cards=[card_of(cause, results, earlier) for cause in found[:_CARDS]],
        href=memory.href,
        has_logs=memory.beside or bool(memory.logs),
        lines_of=runs_of_lines,
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
        aside=aside,
        differing=sum(row.differs for row in told),
        past=past,
        listed=[(run, words(run), memory.pages.get(run.run, "")) for run in memory.listed],
        home=memory.home,
        bisected=memory.bisected,
        line=memory.bisected and line(memory.bisected),
        excuses=tables.excuses(matrix)[:_EXCUSES],
        never=tables.never_ran(matrix),
        unrun=unrun(matrix),
        known=_known(memory.facts),
        provenance=_provenance(matrix, memory.facts),
        seconds=seconds,
        counted=counted,
    )


def _data(matrix: Matrix, memory: Memory, past: History | None) -> dict[str, Any]:
    """What the script draws: the heat maps, and the squares of the history in their order."""
    drawn = grid.grid(matrix)
    keys = [(drawn["suites"][row[0]], row[2]) for row in drawn["tests"]]
    ran = [kernel if kernel.tests else replace(kernel, directory="") for kernel in matrix.kernels]
    return {
        **drawn,
        "past": past and past.squares(keys),
        "again": patterns(matrix),
        "logs": [memory.href(kernel, tables.log_of_tests(matrix, kernel)) for kernel in ran],
        "folders": [memory.href(kernel, "x")[:-1] for kernel in matrix.kernels],
        "within": memory.within if memory.beside or memory.logs else "",
    }


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


def _since(memory: Memory, earlier: Earlier, found: Sequence[Cause]) -> Sequence[tuple[str, str]]:
    if memory.bisected:
        return ((f"Bisect: {memory.bisected.words}.", ""),)
    return earlier.head([cause for cause in found if cause.decides])


def _typed(facts: Mapping[str, Any]) -> list[str]:
    """The words of the command line."""
    arguments = facts.get("arguments")
    return list(map(str, arguments)) if isinstance(arguments, list) else []


def _again(matrix: Matrix, facts: Mapping[str, Any]) -> str:
    """The command that repeats the run; "" where it is not known, as of a bisect."""
    typed = _typed(facts)[:1]
    return command_of_run(matrix) if not typed or matrix.again[:1] == (tuple(typed),) else ""


def _about(matrix: Matrix, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, a label and a value each; its command only if it cannot be repeated."""
    typed = _typed(facts)
    project = facts.get("project")
    words = ["vmtest", *typed] if typed else matrix.command
    revision = ""
    if isinstance(project, dict):
        dirty = " and files that differ from it" if project.get("dirty") else ""
        revision = f"{str(project.get('commit', ''))[:12]}{dirty}"
    factors = sorted({kernel.factor for kernel in matrix.kernels if kernel.factor != 1.0})
    pairs = [
        ("run", matrix.run),
        ("started", matrix.started),
        ("took", seconds(matrix.duration)),
        ("exit status", str(exit_status(matrix))),
        ("command", "" if _again(matrix, facts) else " ".join(words)),
        ("project", revision),
        ("accelerator", tables.accelerators(matrix.kernels)),
        ("time limits", f"x{factors[-1]:.1f}" if factors else ""),
    ]
    return [(label, value) for label, value in pairs if value]


def _kernel(kernel: KernelResult) -> dict[str, str]:
    counts = Counter(test.outcome for test in kernel.tests)
    words = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
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


def _console(memory: Memory, kernel: KernelResult) -> str:
    return memory.href(kernel, kernel.console_log) if kernel.has_console else ""


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
    project = facts.get("project")
    if isinstance(project, dict) and project.get("commit"):
        found.append(("project", "commit", str(project["commit"])))
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

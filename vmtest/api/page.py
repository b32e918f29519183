"""The page of a run: from its folder, and into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from posixpath import normpath
from urllib.parse import quote

from vmtest.bisect.journal import read as read_journal
from vmtest.errors import bug_words, os_words
from vmtest.host.write import write_file
from vmtest.model.events import Event, Note
from vmtest.model.results import Matrix
from vmtest.report.html.bisection import Bisection, Stop
from vmtest.report.html.page import Memory, render
from vmtest.runs import past
from vmtest.runs.events import read_events
from vmtest.runs.folder import RunFolder
from vmtest.runs.past import HISTORY, Past
from vmtest.runs.read import read_facts, read_probes

PAGE = "report.html"
"""The file in a run's folder that shows it in a browser."""


def page_of(matrix: Matrix, folder: Path, *, beside: bool = False, file: Path | None = None) -> str:
    """The page of ``matrix``, with what its run's ``folder`` remembers besides.

    ``beside`` has it link to the logs: it lies in that folder.  So does a ``file`` that it is
    written to, as long as the logs are there to be linked to.
    """
    facts, events = read_facts(folder), read_events(folder)
    now = past.past_of(matrix, facts)
    runs = (*past.earlier(RunFolder(folder), now), now)
    logs = "" if beside or file is None else _link_to_logs(matrix, folder, file)
    pages = _pages(folder, runs[:-1], logs) if beside or logs else {}
    # A run that is taken in gets its page in another folder than its own.
    within = matrix.run if beside or file is None else file.parent.resolve().name
    memory = Memory(
        facts,
        events,
        read_probes(folder, matrix),
        beside,
        runs,
        pages,
        bisected=bisection_of(folder),
        logs=logs,
        within=within,
    )
    return render(matrix, memory)


def _link_to_logs(matrix: Matrix, folder: Path, file: Path) -> str:
    """The link from ``file`` to the run's ``folder``; "" where no kernel's logs are there."""
    named = (kernel.directory for kernel in matrix.kernels if kernel.directory)
    if not any((folder / name).is_dir() for name in named):
        return ""
    way = os.path.relpath(folder.resolve(), file.parent.resolve())
    return f"{quote(os.fsencode(way))}/"


def bisection_of(folder: Path) -> Bisection | None:
    """What the journal in ``folder`` holds; None where the run was not a bisect's."""
    recorded = read_journal(folder)
    if recorded is None:
        return None
    stops = []
    for n, point in enumerate(recorded.question.points):
        seen = recorded.seen.get(n, ())
        verdict = recorded.verdict(n).value if seen else ""
        why = seen[-1].why if seen else ""
        stops.append(Stop(point.name, verdict, recorded.asked.get(n, 0), why, point.subject))
    return Bisection(tuple(stops), recorded.first, recorded.last, recorded.question.find_fixed)


def _pages(folder: Path, runs: Iterable[Past], logs: str) -> dict[str, str]:
    """Links from a page to those of ``runs`` that lie in folders beside the run's ``folder``.

    ``logs`` leads from the page to that folder, "" for one that lies in it.
    """
    there = (run.run for run in runs if (folder.parent / run.run / PAGE).is_file())
    return {run: normpath(f"{logs}../{quote(os.fsencode(run))}/{PAGE}") for run in there}


def leave_page(matrix: Matrix, folder: Path, emit: Callable[[Event], None]) -> None:
    """Write the page into its run's folder; a note says why that failed, and nothing is raised.

    Beside it goes what later pages show of this run.  A run is never lost over how it looks.
    """
    try:
        write_file(folder / PAGE, page_of(matrix, folder, beside=True))
        write_file(folder / HISTORY, past.render(past.past_of(matrix, read_facts(folder))))
    except OSError as error:
        emit(Note(f"cannot write {os_words(error)}; the run is complete without it"))
    except Exception as error:
        emit(Note(f"{PAGE} could not be made: {bug_words(error)}"))

"""A folder to be published: the runs' pages, the newest as index.html, a badge."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from vmtest.api.page import bisection_of
from vmtest.bisect.journal import JOURNAL
from vmtest.errors import InfrastructureError, UsageError, os_words
from vmtest.host.write import write_file
from vmtest.report.html.badge import badge
from vmtest.report.html.page import Memory, render
from vmtest.runs import matrix_json, past
from vmtest.runs.events import read_events
from vmtest.runs.folder import RunFolder
from vmtest.runs.past import SHOWN, Past
from vmtest.runs.read import read_facts, read_matrix, read_probes

INDEX, BADGE, MATRIX, PAGES = "index.html", "badge.svg", "matrix.json", "runs"
"""What the folder holds; ``runs`` has a page a run."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was written: how many pages of runs, the newest run, the runs that were left out."""

    pages: int
    newest: str
    left_out: tuple[str, ...]


def write_site(folders: Sequence[RunFolder], into: Path, *, strict: bool) -> Published:
    """Write the pages of ``folders`` into ``into``; files of other names there stay.

    The history on a page is that of these runs only.  A run that cannot be read is left out, or
    raises UsageError with ``strict``.  Raises UsageError as well when none can be read or two
    have the same name, InfrastructureError when a file cannot be written.
    """
    runs, left_out = _read(folders, strict)
    if not runs:
        why = f": {left_out[0]}" if left_out else ""
        raise UsageError(f"there is no run to be published{why}; start one with: vmtest run")
    every = tuple(run for run, _ in runs)
    newest = _front(runs)
    try:
        into.mkdir(parents=True, exist_ok=True)
        (into / PAGES).mkdir(exist_ok=True)
        for n, (_, folder) in enumerate(runs):
            _write(into, folder, every, n, index=n == newest)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{error.filename}: is not a folder; name another for the site") from error
    except OSError as error:
        raise InfrastructureError(f"cannot write {os_words(error)}") from error
    return Published(len(runs), every[newest].run, tuple(left_out))


def _front(runs: Sequence[tuple[Past, RunFolder]]) -> int:
    """The place of the newest run that ran something; a bisect only where there is no other."""
    ran = [n for n, (run, _) in enumerate(runs) if run.ran]
    others = [n for n in ran if not (runs[n][1].path / JOURNAL).exists()]
    return (others or ran or [len(runs) - 1])[-1]


def _read(
    folders: Sequence[RunFolder], strict: bool
) -> tuple[list[tuple[Past, RunFolder]], list[str]]:
    """The runs in short, the oldest first, and why others are left out."""
    found, left_out = [], []
    for folder in {folder.path.resolve(): folder for folder in folders}.values():
        try:
            found.append((replace(past.read_past(folder), run=folder.name), folder))
        except UsageError as error:
            if strict:
                raise
            left_out.append(str(error).splitlines()[0])
    names = [run.run for run, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two runs are called {twice[0]}; rename the folder of one of them")
    return sorted(found, key=lambda one: (one[0].started, one[0].run)), left_out


def _write(
    into: Path, folder: RunFolder, every: Sequence[Past], place: int, *, index: bool
) -> None:
    """Write the page of the run at ``place``, and what shows the newest if it is that one."""
    matrix, now = read_matrix(folder), every[place]
    before = [run for run in every[:place] if past.comparable(run, now)][1 - SHOWN :]
    facts, events = read_facts(folder.path), read_events(folder.path)
    memory = Memory(
        facts,
        events,
        read_probes(folder.path, matrix),
        runs=(*before, now),
        pages=_links(every, ""),
        home=f"../{INDEX}",
        bisected=bisection_of(folder.path),
    )
    write_file(into / PAGES / f"{now.run}.html", render(matrix, memory))
    if index:
        write_file(into / MATRIX, matrix_json.pieces(matrix))
        write_file(into / BADGE, badge(now))
        listed = tuple(reversed(every))
        front = replace(memory, pages=_links(every, f"{PAGES}/"), listed=listed, home="")
        write_file(into / INDEX, render(matrix, front))


def _links(runs: Sequence[Past], where: str) -> dict[str, str]:
    return {run.run: f"./{where}{quote(os.fsencode(run.run))}.html" for run in runs}

"""``vmtest runs``: the runs that a project has kept, and how one differs from another."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtest.api.history import since, superfluous, take_in
from vmtest.cli import common, complete, options
from vmtest.cli.common import dump
from vmtest.cli.kernels.prune import parse_age
from vmtest.cli.report import find_project, find_run, read_any
from vmtest.errors import UsageError
from vmtest.model.results import Matrix, exit_status
from vmtest.model.text import printable
from vmtest.report import loads, table
from vmtest.report.diff import compare
from vmtest.report.text import counted, seconds
from vmtest.runs import folder as runs
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_facts, read_matrix

app = typer.Typer(
    help="List the project's runs, and compare two of them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

LIST = """List the runs that are kept, the latest last.

Example: [bold]vmtest runs list --last 20[/bold]
"""
SHOW = """Show a run: command, commit, kernels, results, and where its files are.

Example: [bold]vmtest runs show 20260101T[/bold]
"""
PRUNE = """Delete old runs.

It always keeps the latest run, the last passed run of every branch, and runs that are active
or changed in the last hour.  Without an option it keeps the last 50.

Example: [bold]vmtest runs prune --keep 20 --older-than 30d --dry-run[/bold]
"""
IMPORT = """Take in runs from another machine: folders, or the .zip files of CI artifacts.

It copies every run that it finds below PATH into .vmtest/runs.  `vmtest merge` joins runs into
one table.

Example: [bold]vmtest runs import vmtest-logs.zip[/bold]
"""
DIFF = """Compare the run B with the run A: what fails now, what is fixed, what still fails.

A and B are names of runs, folders, or matrix.json files; without B it is the latest run.
The exit status is 1 if something fails that passed before.

Example: [bold]vmtest runs diff 20260101T 20260102T[/bold]
"""
WORSE = 1
_KEPT = 50


@app.command("list", help=LIST)
def list_runs(
    last: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: options.ConfigOption = None,
) -> None:
    """Print a line a run; one that cannot be read is named with the reason."""
    with common.reported():
        project = find_project(config)
        rows = [_row(folder) for folder in runs.kept(project)[-last:]]
        if as_json:
            print(dump({"runs": rows}))
        elif not rows:
            common.say(f"there is no run in {project / runs.STATE} yet; start one: vmtest run")
        else:
            _print_table(rows)


@app.command("show", help=SHOW)
def show(
    run: Annotated[
        str | None,
        typer.Argument(help="The run; default: the latest.", autocompletion=complete.run_names),
    ] = None,
    config: options.ConfigOption = None,
) -> None:
    """Print what the run's folder says, a fact a line."""
    with common.reported():
        folder = find_run(run, config)
        row, facts = _row(folder), read_facts(folder.path)
        project = facts.get("project")
        branch = project.get("branch", "") if isinstance(project, dict) else ""
        for name, value in row.items():
            common.say(f"{name:12} {value}")
        if branch:
            common.say(f"{'branch':12} {branch}")
        if "problem" not in row:
            matrix = read_matrix(folder)
            for kernel in matrix.kernels:
                exact = " ".join(filter(None, (kernel.version, kernel.release)))
                common.say(f"{'kernel':12} {kernel.kernel}: {kernel.status.value} {exact}".rstrip())
            if found := since(folder, matrix):
                common.say(f"{'compared':12} {found}")
        for path in sorted(folder.path.iterdir()):
            common.say(f"{'file':12} {os.path.relpath(path)}{'/' if path.is_dir() else ''}")


@app.command("prune", help=PRUNE)
def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep the last N runs.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Delete what is older than this: 12h, 30d, 8w."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted.")
    ] = False,
    config: options.ConfigOption = None,
) -> None:
    """Choose, remove, say what went and what is left."""
    with common.reported():
        if keep is None and older_than is None:
            keep = _KEPT
        age = None if older_than is None else parse_age(older_than)
        project = find_project(config)
        chosen = superfluous(project, time.time(), keep, age)
        for folder in chosen:
            if not dry_run:
                shutil.rmtree(folder.path)
            common.say(f"{'would remove' if dry_run else 'removed'} {folder.name}")
        left = len(runs.kept(project)) - (len(chosen) if dry_run else 0)
        common.say(f"{counted(left, 'run')} {'would be ' if dry_run else ''}left")


@app.command("import", help=IMPORT)
def import_(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Folders or .zip files with runs.")
    ],
    config: options.ConfigOption = None,
) -> None:
    """Copy each run that is found and not there yet."""
    with common.reported():
        project = find_project(config)
        for path in paths:
            for name, is_new in take_in(path, project):
                common.say(f"{'imported' if is_new else 'already there:'} {name}")


@app.command("diff", help=DIFF)
def diff(
    before: Annotated[
        str,
        typer.Argument(metavar="A", help="The earlier run.", autocompletion=complete.run_names),
    ],
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="B",
            help="The later run; default: the latest.",
            autocompletion=complete.run_names,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: options.ConfigOption = None,
) -> None:
    """Compare; exits with 1 if something fails that passed before."""
    with common.reported():
        old = read_any(before, config)
        new = read_matrix(runs.find(find_project(config), None)) if after is None else None
        new = new or read_any(str(after), config)
        found = compare(old, new)
        if as_json:
            rows = [
                {"kind": d.kind, "what": d.label, "why": d.words, "kernels": list(d.kernels)}
                for d in found
            ]
            print(dump({"before": old.run, "after": new.run, "differences": rows}))
        else:
            common.say(_told(old, new))
            for d in found:
                why = f": {d.words}" if d.words else ""
                common.say(f"  {d.kind:16} {d.label} on {', '.join(d.kernels)}{why}")
            kinds = list(dict.fromkeys(d.kind for d in found))
            counts = (f"{sum(d.kind == kind for d in found)} {kind}" for kind in kinds)
            common.say(", ".join(counts) or "nothing differs")
        raise typer.Exit(WORSE if any(d.worse for d in found) else 0)


def _told(old: Matrix, new: Matrix) -> str:
    both = {k.kernel for k in old.kernels} & {k.kernel for k in new.kernels}
    if not both:
        raise UsageError(
            f"{old.run} and {new.run} have no kernel in common, so nothing can be compared"
        )
    return f"{new.run} compared with {old.run}, {counted(len(both), 'kernel')} of both"


def _row(folder: RunFolder) -> dict[str, object]:
    facts = read_facts(folder.path)
    project = facts.get("project")
    arguments = facts.get("arguments")
    row: dict[str, object] = {
        "run": folder.name,
        "command": " ".join(map(str, arguments)) if isinstance(arguments, list) else "",
        "commit": str(project.get("commit", ""))[:12] if isinstance(project, dict) else "",
    }
    try:
        matrix = read_matrix(folder)
    except UsageError as error:
        return {**row, "problem": str(error).splitlines()[0]}
    return {
        **row,
        "started": matrix.started,
        "seconds": matrix.duration,
        "exit status": exit_status(matrix),
        "kernels": table.summary_of_kernels(matrix),
        "results": loads.summary(matrix) or table.summary_of_tests(matrix),
    }


def _print_table(rows: list[dict[str, object]]) -> None:
    drawn = Table(box=None, pad_edge=False)
    for heading in ("run", "took", "kernels", "results", "command"):
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        took = row.get("seconds")
        cells = (
            row["run"],
            seconds(took) if isinstance(took, float) else "-",
            row.get("kernels") or row["problem"],
            row.get("results", ""),
            row["command"],
        )
        drawn.add_row(*(Text(printable(str(cell))) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 140).print(drawn)

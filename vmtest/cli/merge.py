"""``vmtest merge``: runs of shards become one matrix."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api.page import leave_page
from vmtest.api.project import load_config
from vmtest.cli import common, complete, options
from vmtest.cli.look import Look, show
from vmtest.cli.report import find_run, read_any
from vmtest.cli.reports import Reports
from vmtest.errors import VmtestError
from vmtest.matrix.shard import absent
from vmtest.report.merge import merge as merge_matrices
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.read import read_facts
from vmtest.verify.columns import of_shards

_SHOWN = 10

EXAMPLE = """Join runs into one table: runs of different kernels, or of different suites.

Example: [bold]vmtest merge shard-1/matrix.json shard-2/matrix.json --junit all.xml[/bold]
"""


def merge(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Names of runs, folders, or matrix.json files.",
            autocompletion=complete.run_names,
        ),
    ],
    junit: options.JunitOption = None,
    markdown: options.MarkdownOption = None,
    json_file: options.JsonOption = None,
    html: options.HtmlOption = None,
    config: options.ConfigOption = None,
    color: options.ColorOption = "auto",
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    github: options.GithubOption = None,
) -> None:
    """Merge; exits with the status of the whole."""
    with common.reported():
        look = Look.asked(color, quiet, verbose, github)
        kernels, suites, project = _order(config)
        matrices = [read_any(name, config) for name in run]
        merged = of_shards(merge_matrices(matrices, kernels=kernels, suites=suites))
        missing = _missing(run, config)
        if missing:
            merged = replace(merged, notes=(*merged.notes, missing))
        folder = runs.create(project)
        folder.write("matrix.json", matrix_json.pieces(merged))
        folder.describe({"merged": run, "started": runs.utc_now()})
        folder.become_latest()
        leave_page(merged, folder.path, look.view(sys.stdout).handle)
        show(merged, folder, sys.stdout, look)
        reports = Reports(junit, markdown, json_file, html)
        reports.render(merged, folder)
        reports.end(merged, missing)


def _missing(run: list[str], config: Path | None) -> str:
    """What to say of shards that left no run here; "" where the runs' commands name them all."""
    folders = [
        Path(name).parent if Path(name).is_file() else find_run(name, config).path for name in run
    ]
    told = [read_facts(folder).get("arguments") for folder in folders]
    commands = [list(map(str, words)) for words in told if isinstance(words, list)]
    if len(commands) < len(told):
        return ""  # one that was merged before, say: what is in it nobody knows
    parts = absent(commands)
    if not parts:
        return ""
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    shown = ", ".join(parts[:_SHOWN]) + more
    return f"no run of shard {shown}: its kernels are missing here; run it, and merge all of them"


def _order(config: Path | None) -> tuple[list[str], list[str], Path]:
    """The order of kernels.toml where there is one: shards need not be given in it."""
    try:
        settings = load_config(config)
    except VmtestError:
        if config is not None:
            raise
        return [], [], Path.cwd()
    kernels = [kernel.name for kernel in settings.kernels]
    return kernels, [suite.name for suite in settings.suites], settings.directory

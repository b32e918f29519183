"""``vmtest report``: an old run, rendered again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api.project import load_config
from vmtest.cli import common, options
from vmtest.cli.look import Look, show
from vmtest.cli.reports import Reports
from vmtest.errors import UsageError
from vmtest.model.results import Matrix
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix

EXAMPLE = """Show a run again: the latest, or one by its name or folder.

The beginning of a name is enough.

Example: [bold]vmtest report 20260101T --markdown summary.md[/bold]
"""


def report(
    run: Annotated[str | None, typer.Argument(help="The run to show; default: the latest.")] = None,
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
    """Render; exits with the status that the run had."""
    with common.reported():
        look = Look.asked(color, quiet, verbose, github)
        folder = find_run(run, config)
        matrix = read_matrix(folder)
        show(matrix, folder, sys.stdout, look)
        reports = Reports(junit, markdown, json_file, html)
        reports.render(matrix, folder)
        reports.end(matrix)


def find_run(run: str | None, config: Path | None) -> RunFolder:
    """The run folder that ``run`` means: a path by itself, or a name in the project's folder."""
    if run is not None and Path(run).is_dir():
        return RunFolder(Path(run).resolve())
    try:
        project = load_config(config).directory
    except UsageError:
        if config is not None:
            raise
        project = Path.cwd()  # an old run renders whatever kernels.toml has become
    return runs.find(project, run)


def read_any(path: str, config: Path | None) -> Matrix:
    """The matrix of a run (as for ``report``) or of a matrix.json by its path."""
    if Path(path).is_file():
        return matrix_json.read(Path(path))
    return read_matrix(find_run(path, config))

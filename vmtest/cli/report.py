"""``vmtest report``: an old run, rendered again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api.project import load_config
from vmtest.api.site import INDEX, write_site
from vmtest.cli import common, complete, options
from vmtest.cli.look import Look, show
from vmtest.cli.reports import Reports
from vmtest.errors import UsageError
from vmtest.model.results import Matrix
from vmtest.report.text import counted
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.past import SHOWN
from vmtest.runs.read import read_matrix

EXAMPLE = """Show a run again: the latest, or one by its name or folder.

The beginning of a name is enough.

With --site it writes the pages of several runs into a folder that you can publish.
Without RUN it takes the last 20 runs.

Example: [bold]vmtest report 20260101T --markdown summary.md[/bold]
"""


def report(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="The run to show; default: the latest.",
            autocompletion=complete.run_names,
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a site of the runs: index.html, badge.svg, ..."),
    ] = None,
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
    """Render; exits with the status that the run had, and for a site with 0."""
    with common.reported():
        look = Look.asked(color, quiet, verbose, github)
        if site is not None:
            if any((junit, markdown, json_file, html)):
                raise UsageError("--site writes pages only; leave the other files out")
            _publish(run or [], site, config)
            return
        if run and len(run) > 1:
            raise UsageError(f"{len(run)} runs: give one of them, or --site DIR for a page of each")
        folder = find_run(run[0] if run else None, config)
        matrix = read_matrix(folder)
        show(matrix, folder, sys.stdout, look)
        reports = Reports(junit, markdown, json_file, html)
        reports.render(matrix, folder)
        reports.end(matrix)


def _publish(names: list[str], into: Path, config: Path | None) -> None:
    """Write the site of the runs ``names``, else of the last that are kept; say what was done."""
    if names:
        folders = [find_run(name, config) for name in names]
    else:
        folders = runs.kept(find_project(config))[-SHOWN:]
    done = write_site(folders, into, strict=bool(names))
    for problem in done.left_out:
        common.say(f"left out: {problem}", sys.stderr)
    common.say(f"{into / INDEX}: {counted(done.pages, 'run')}, the newest {done.newest}")


def find_run(run: str | None, config: Path | None) -> RunFolder:
    """The run folder that ``run`` means: a path by itself, or a name in the project's folder."""
    if run is not None and Path(run).is_dir():
        return RunFolder(Path(run).resolve())
    return runs.find(find_project(config), run)


def find_project(config: Path | None) -> Path:
    """The folder of kernels.toml; the working folder where none can be read and none was named."""
    try:
        return load_config(config).directory
    except UsageError:
        if config is not None:
            raise
        return Path.cwd()  # an old run renders whatever kernels.toml has become


def read_any(path: str, config: Path | None) -> Matrix:
    """The matrix of a run (as for ``report``) or of a matrix.json by its path."""
    if Path(path).is_file():
        return matrix_json.read(Path(path))
    return read_matrix(find_run(path, config))

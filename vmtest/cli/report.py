"""``vmtest report``: an old run, rendered again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.cli.reports import Reports
from vmtest.cli.run import show
from vmtest.errors import UsageError
from vmtest.model.results import Matrix, Status
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.rows import kept

EXAMPLE = """Render a run again: the latest, or one by its name, its beginning or its folder.

Example: [bold]vmtest report 20260101T --markdown summary.md[/bold]
"""


def report(
    run: Annotated[str | None, typer.Argument(help="Which run; default the latest.")] = None,
    junit: common.JunitOption = None,
    markdown: common.MarkdownOption = None,
    json_file: common.JsonOption = None,
    config: common.ConfigOption = None,
) -> None:
    """Render; exits with the status that the run had."""
    with common.reported():
        folder = find_run(run, config)
        matrix = read_matrix(folder)
        show(matrix, folder, sys.stdout)
        reports = Reports()
        reports.render(matrix, junit, markdown, json_file)
        reports.end(matrix)


def find_run(run: str | None, config: Path | None) -> RunFolder:
    """The run folder that ``run`` means: a path by itself, or a name in the project's folder."""
    if run is not None and Path(run).is_dir():
        return RunFolder(Path(run).resolve())
    try:
        project = common.load_config(config).directory
    except UsageError:
        if config is not None:
            raise
        project = Path.cwd()  # an old run renders whatever kernels.toml has become
    return runs.find(project, run)


def read_matrix(folder: RunFolder) -> Matrix:
    """The matrix of a run; what a killed runner left unsaid is read from its results files."""
    file = folder.path / "matrix.json"
    if not file.exists():
        raise UsageError(f"{folder.path} has no matrix.json: it is no run's folder")
    matrix = matrix_json.loads(file.read_text(encoding="utf-8"), str(file))
    kernels = []
    for result in matrix.kernels:
        if result.status is Status.CANCELLED and not (result.tests or result.loads):
            found = kept(folder.path / result.kernel, result)
            if found != result:
                result = replace(found, reason="the runner ended before this kernel did")
        kernels.append(result)
    return replace(matrix, kernels=tuple(kernels))


def read_any(path: str, config: Path | None) -> Matrix:
    """The matrix of a run (as for ``report``) or of a matrix.json by its path."""
    if Path(path).is_file():
        return matrix_json.loads(Path(path).read_text(encoding="utf-8"), path)
    return read_matrix(find_run(path, config))


def dump(value: object) -> str:
    """``value`` as the indented JSON that ``--json`` prints."""
    return json.dumps(value, indent=1)

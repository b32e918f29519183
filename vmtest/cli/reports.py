"""The files that a command leaves: one that cannot be written keeps no other from being written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import typer

from vmtest.cli.common import INFRASTRUCTURE, say
from vmtest.errors import os_words
from vmtest.host.write import write_file
from vmtest.model.results import OWN_FAULT, Matrix, exit_status
from vmtest.report import junit, markdown
from vmtest.runs import matrix_json


class Reports:
    """Writes files and remembers which could not be written.

    ``problems`` has a line for each of those: thing, place and cure.
    """

    def __init__(self) -> None:
        self.problems: dict[Path, str] = {}

    def write(self, file: Path, data: str | bytes) -> None:
        """Write ``file``, or remember why that is not possible."""
        try:
            write_file(file, data)
        except OSError as error:
            self.problems[file] = f"cannot write {os_words(error)}"
        else:
            self.problems.pop(file, None)  # there was room again

    def render(
        self,
        matrix: Matrix,
        junit_file: Path | None,
        markdown_file: Path | None,
        json_file: Path | None,
    ) -> None:
        """Write the reports that were asked for."""
        if junit_file is not None:
            self.write(junit_file, junit.render(matrix))
        if markdown_file is not None:
            self.write(markdown_file, markdown.render(matrix))
        if json_file is not None:
            self.write(json_file, matrix_json.render(matrix))

    def end(self, matrix: Matrix) -> NoReturn:
        """Say what could not be written, and exit: with 3 unless the matrix has worse to say."""
        for problem in self.problems.values():
            say(f"vmtest: error: {problem}", sys.stderr)
        status = exit_status(matrix)
        if self.problems and status in (0, 5):
            single = matrix.command and len(matrix.kernels) == 1
            status = OWN_FAULT if single else INFRASTRUCTURE
        raise typer.Exit(status)

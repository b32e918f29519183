"""The files that a command leaves: one that cannot be written keeps no other from being written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer

from vmtest.api.history import since
from vmtest.api.page import page_of
from vmtest.cli.common import INFRASTRUCTURE, say
from vmtest.errors import UsageError, os_words
from vmtest.host.write import Data, write_file
from vmtest.model.results import OWN_FAULT, Matrix, exit_status
from vmtest.report import junit, markdown
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder


class Reports:
    """Writes the reports that were asked for, and remembers which could not be written.

    ``problems`` has a line for each of those: thing, place and cure.
    """

    def __init__(
        self,
        junit: Path | None = None,
        markdown: Path | None = None,
        json: Path | None = None,
        html: Path | None = None,
    ) -> None:
        self.files = (junit, markdown, json, html)
        self.problems: dict[Path, str] = {}

    def make_room(self, *others: Path | None) -> None:
        """Make the folders of all reports, and of ``others``, and say so; raises UsageError.

        Before anything runs: nobody waits for a report that cannot be written.
        """
        for file in (*self.files, *others):
            if file is None:
                continue
            if file.is_dir():
                raise UsageError(f"{file}: is a folder; name a file to be written")
            folder = file.absolute().parent
            there = folder.is_dir()
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"{file}: cannot make its folder: {error.strerror}; name another file"
                ) from error
            if not there:
                say(
                    f"made the folder {file.parent}, which was not there, for {file.name}",
                    sys.stderr,
                )

    def write(self, file: Path, data: Data) -> None:
        """Write ``file``, or remember why that is not possible."""
        try:
            write_file(file, data)
        except OSError as error:
            self.problems[file] = f"cannot write {os_words(error)}"
        else:
            self.problems.pop(file, None)  # there was room again

    def render(self, matrix: Matrix, folder: RunFolder) -> None:
        """Write the reports that were asked for; ``folder`` is the run's."""
        renderers: tuple[Callable[[Matrix], Data], ...] = (
            junit.pieces,
            lambda matrix: markdown.render(matrix, since=str(since(folder, matrix) or "")),
            matrix_json.pieces,
            lambda matrix: page_of(matrix, folder.path, file=self.files[-1]),
        )
        for file, render in zip(self.files, renderers, strict=True):
            if file is not None:
                self.write(file, render(matrix))

    def end(self, matrix: Matrix, missing: str = "") -> NoReturn:
        """Say what could not be written, and exit: with 3 unless the matrix has worse to say.

        ``missing`` is what the matrix should have and has not.
        """
        problems = [*self.problems.values(), *([missing] if missing else [])]
        for problem in problems:
            say(f"vmtest: error: {problem}", sys.stderr)
        status = exit_status(matrix)
        if problems and status in (0, 5):
            single = matrix.command and len(matrix.kernels) == 1
            status = OWN_FAULT if single else INFRASTRUCTURE
        raise typer.Exit(status)

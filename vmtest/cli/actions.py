"""A run in GitHub Actions: its progress folded, its causes annotated, its summary and comment."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from vmtest.api.history import since
from vmtest.cli import common
from vmtest.errors import os_words
from vmtest.host.write import write_file
from vmtest.model.events import Event, Output
from vmtest.model.results import Matrix
from vmtest.report import github, live, markdown
from vmtest.runs.folder import RunFolder

COMMENT = "comment.md"
"""The file in a run's folder that can be posted to its pull request; empty for nothing to say."""


class Folded:
    """``view``, folded in GitHub's log, where no line that a guest wrote is a command."""

    def __init__(self, view: live.View, stream: TextIO) -> None:
        self._view = view
        self._stream = stream
        self._token = secrets.token_hex(16)
        self._unended: set[str] = set()

    def __enter__(self) -> Self:
        self._say(github.group("vmtest"), github.stop(self._token))
        self._view.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._view.__exit__(kind, error, trace)
        # Behind what a command wrote without a line break the runner would not see it.
        ended = [""] if self._unended else []
        self._say(*ended, github.resume(self._token), "::endgroup::")

    def handle(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, Output):
            for name, data in (("out", event.out), ("err", event.err)):
                if data.endswith(b"\n"):
                    self._unended.discard(name)
                elif data:
                    self._unended.add(name)
        self._view.handle(event)

    def aside(self) -> AbstractContextManager[None]:
        """Leave the terminal to somebody else for a while."""
        return self._view.aside()

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._stream, flush=True)


@contextmanager
def unheard(stream: TextIO) -> Iterator[None]:
    """Have GitHub's runner obey nothing that is printed meanwhile."""
    token = secrets.token_hex(16)
    print(github.stop(token), file=stream)
    try:
        yield
    finally:
        print(github.resume(token), file=stream, flush=True)


def tell(matrix: Matrix, folder: RunFolder, stream: TextIO) -> None:
    """Annotate the causes, add to the step's summary, and leave a comment for a pull request.

    The step's output ``comment`` is the comment's path.
    """
    project = folder.path.parent.parent.parent
    top = os.environ.get("GITHUB_WORKSPACE", "")
    below = os.path.relpath(project, top) if top else "."
    inside = "" if below == "." or below.startswith("..") else below
    found = github.deciding(matrix)
    for line in github.annotated(found, inside):
        print(line, file=stream)
    stream.flush()
    compared = str(since(folder, matrix) or "")
    _append("GITHUB_STEP_SUMMARY", markdown.render(matrix, since=compared))
    comment = folder.path / COMMENT
    try:
        write_file(comment, github.comment(matrix, found))
    except OSError as error:
        common.say(f"vmtest: cannot write {os_words(error)}", sys.stderr)
    else:
        _append("GITHUB_OUTPUT", f"comment={comment}\n")


def _append(variable: str, text: str) -> None:
    """Add ``text`` to the file that the environment's ``variable`` names, if it names one."""
    if file := os.environ.get(variable):
        try:
            with Path(file).open("a", encoding="utf-8", errors="replace") as summary:
                summary.write(text)
        except OSError as error:
            common.say(f"vmtest: {variable}: cannot write {os_words(error)}", sys.stderr)

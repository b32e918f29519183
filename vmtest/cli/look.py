"""How a command's text looks: coloured or not, a little of it or all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vmtest.api.history import since
from vmtest.api.page import PAGE
from vmtest.cli import actions, common
from vmtest.errors import UsageError
from vmtest.model.results import Matrix
from vmtest.report import live, terminal
from vmtest.report.terminal import Amount
from vmtest.runs.folder import RunFolder

_WHEN = ("auto", "always", "never")


@dataclass(frozen=True, slots=True)
class Look:
    """What ``--color``, ``-q``, ``-v`` and ``--github`` ask for."""

    color: str = "auto"
    amount: Amount = Amount.NORMAL
    github: bool = False

    @classmethod
    def asked(cls, color: str, quiet: bool, verbose: bool, github: bool | None = None) -> Look:
        """The look that the options ask for; raises UsageError."""
        if color not in _WHEN:
            raise UsageError(f"--color {color}: write auto, always or never")
        if quiet and verbose:
            raise UsageError("-q and -v: give one of them")
        little = Amount.LITTLE if quiet else Amount.NORMAL
        if github is None:
            github = os.environ.get("GITHUB_ACTIONS") == "true"
        return cls(color, Amount.WHOLE if verbose else little, github)

    def view(self, stream: TextIO, *, plain: bool = False) -> live.View:
        """What shows a run on ``stream`` while it goes on; ``plain`` never redraws a line."""
        if self.amount is Amount.LITTLE:
            view: live.View = live.PlainView(stream, quiet=True)
        elif plain:
            view = live.PlainView(stream)
        else:
            view = live.view(stream, color=self.colors(stream))
        return actions.Folded(view, stream) if self.github else view

    def colors(self, stream: TextIO) -> bool:
        """Whether ``stream`` gets colours: as ``--color`` says, else the environment.

        NO_COLOR wins over FORCE_COLOR (and CLICOLOR_FORCE), as its users expect.
        """
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        forced = os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE")
        if forced:
            return forced != "0"
        return stream.isatty() and os.environ.get("TERM") != "dumb"


PLAIN = Look()


def show(
    matrix: Matrix,
    folder: RunFolder,
    stream: TextIO,
    look: Look = PLAIN,
    *,
    page: bool = True,
    compared: str = "the baseline",
) -> None:
    """Print the report on ``stream``, as wide as the terminal is.

    ``page``: and where its page is.  ``compared`` is what its costs are compared with.
    """
    text = terminal.render(
        matrix,
        width=shutil.get_terminal_size((120, 24)).columns,
        color=look.colors(stream),
        amount=look.amount,
        where=from_here(folder.path),
        compared=compared,
    )
    encoding = stream.encoding or "utf-8"
    with actions.unheard(stream) if look.github else nullcontext():
        print(text.encode(encoding, "replace").decode(encoding), file=stream)
        if found := since(folder, matrix):
            common.say(str(found), stream)
        common.say(f"logs: {os.path.relpath(folder.path)}", stream)
        if page and (there := from_here(folder.path)(PAGE)):
            common.say(f"page: {there}", stream)
    if look.github:
        actions.tell(matrix, folder, stream)


def from_here(folder: Path) -> Callable[[str], str]:
    """Says how a file in ``folder`` is called from the working folder; "" for one not there."""

    def where(name: str) -> str:
        try:
            there = (folder / name).is_file()
        except (OSError, ValueError):  # a name with a null character is not a path
            return ""
        return os.path.relpath(folder / name) if there else ""

    return where

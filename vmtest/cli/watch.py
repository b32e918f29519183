"""``vmtest watch``: saves answered by every kernel, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.api.loads import check_loader
from vmtest.cli import common, options
from vmtest.cli.again import again
from vmtest.cli.look import PLAIN, show
from vmtest.errors import UsageError, os_words
from vmtest.host import interrupt
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.report import live
from vmtest.runs.folder import RunFolder
from vmtest.watch.due import Stage, What
from vmtest.watch.session import WatchRequest
from vmtest.watch.session import watch as watched

EXAMPLE = """Verify and test again at every save, until Ctrl-C.

At a save it builds, loads the objects that changed in every kernel, and runs the suites that use
them. Suites that failed before run first. Kernels are restored from snapshots.
With verify it only loads objects: those of kernels.toml, or OBJECT.

Example: [bold]vmtest watch verify --kernel 6.12 --bell[/bold]
"""

_CLEAR = "\x1b[H\x1b[2J"
_NOTIFY_LIMIT = 10.0  # seconds
_PATHS = 3


def watch(
    context: typer.Context,
    what: Annotated[
        What,
        typer.Argument(
            metavar="[run|verify]",
            help="run (the default): load objects and run suites; verify: load objects only.",
        ),
    ] = What.RUN,
    object_: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OBJECT|DIR|GLOB...",
            help="With verify: the object files; default: the objects of kernels.toml.",
        ),
    ] = None,
    kernel: options.KernelOption = None,
    suite: options.SuiteOption = None,
    expression: options.TestsOption = None,
    loader: options.LoaderOption = None,
    jobs: options.JobsOption = None,
    accel: options.AccelOption = "auto",
    cold: Annotated[
        bool, typer.Option("--cold", help="Boot every kernel at each save; restore no snapshot.")
    ] = False,
    bell: Annotated[
        bool, typer.Option("--bell", help="Ring the terminal's bell when all is done.")
    ] = False,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="When all is done, run COMMAND with the result as one more argument. "
            "For example notify-send.",
        ),
    ] = None,
    config: options.ConfigOption = None,
) -> None:
    """Watch; the module's EXAMPLE is its help."""
    with common.reported():
        common.check_accelerator(accel)
        given = tuple(object_ or ())
        _check(what, given, loader or (), tests=bool(suite) or expression is not None)
        request = WatchRequest(
            what=what,
            objects=given,
            kernels=tuple(kernel or ()),
            suites=tuple(suite or ()),
            options=() if expression is None else ("-k", expression),
            jobs=jobs,
            accelerator=accel,
            arguments=tuple(sys.argv[1:]),
            warm=not cold,
            again=again(context)[1:],
            loader=tuple(loader or ()),
        )
        load = project.load_config if what is What.RUN else project.load_config_or_builtin
        screen = Screen(bell=bell, command=_words(notify))
        watched(lambda: load(config), request, screen, Path.cwd())


def _check(what: What, objects: Sequence[str], loaders: Sequence[str], *, tests: bool) -> None:
    if what is What.RUN and objects:
        raise UsageError(f"{objects[0]}: vmtest watch run takes no object; write watch verify")
    if what is What.VERIFY and tests:
        raise UsageError("--suite and -k choose tests: vmtest watch verify runs none")
    for one in loaders:
        check_loader(one)


def _words(command: str | None) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command or ""))
    except ValueError as error:
        raise UsageError(f"--notify {command}: {error}") from error
    if command is not None and not words:
        raise UsageError("--notify: write a command, for example notify-send")
    return words


class Screen:
    """A round on the terminal: what was saved, the table of each stage, and what came of all.

    A terminal is cleared where a round has something to show.
    """

    def __init__(self, *, bell: bool, command: tuple[str, ...]) -> None:
        self._bell = bell
        self._command = command
        self._saved = ""
        self._came: dict[str, str] = {}

    def saved(self, paths: tuple[Path, ...]) -> None:
        """Begin a round."""
        names = [os.path.relpath(path) for path in paths[:_PATHS]]
        more = f" and {len(paths) - _PATHS} more" if len(paths) > _PATHS else ""
        saved = f"{', '.join(names)}{more} saved: " if paths else ""
        self._saved = f"{_clock()} {saved}building"
        self._came.clear()
        common.say(self._saved)

    def broken(self, words: str) -> None:
        """Show why nothing can be done."""
        self._clear()
        common.say(options.spelled(words))
        self._came["build"] = "failed"
        self._end()

    def view(self, stage: Stage) -> live.View:
        """What shows ``stage`` while it runs."""
        if not self._came:
            self._clear()
        verb = "verifying" if stage.what is What.VERIFY else "running"
        common.say(f"{_clock()} {verb} {', '.join(map(_short, stage.names))}")
        return PLAIN.view(sys.stdout)

    def ended(self, matrix: Matrix, folder: RunFolder) -> None:
        """Show the table."""
        show(matrix, folder, sys.stdout, compared="the last save")
        self._came["run" if matrix.suites else "verify"] = _summary(matrix.kernels)

    def cancelled(self, stage: Stage) -> None:
        """Say that the stage gave way to a save."""
        common.say(f"cancelled: {', '.join(map(_short, stage.names))}; there is a newer save")

    def waits(self) -> None:
        """End the round."""
        self._end()

    def _clear(self) -> None:
        if sys.stdout.isatty():
            print(_CLEAR, end="")
            common.say(self._saved)

    def _end(self) -> None:
        words = "; ".join(f"{what}: {came}" for what, came in self._came.items())
        waiting = "waiting for a save (Ctrl-C ends)"
        if not words:
            common.say(f"{_clock()} nothing changed that is watched; {waiting}")
            return
        common.say(f"{_clock()} {words}; {waiting}")
        self._came.clear()
        if self._bell:
            print("\a", end="", flush=True)
        if self._command:
            self._notify(f"vmtest {words}")

    def _notify(self, words: str) -> None:
        try:
            done = interrupt.run([*self._command, words], merged=True, timeout=_NOTIFY_LIMIT)
        except (OSError, subprocess.TimeoutExpired) as error:
            why = os_words(error) if isinstance(error, OSError) else str(error)
            common.say(f"--notify {shlex.join(self._command)}: {why}")
            return
        if done.returncode != 0:
            last = done.stdout.strip()[-200:]
            common.say(f"--notify {shlex.join(self._command)}: status {done.returncode}: {last}")


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _short(name: str) -> str:
    return os.path.relpath(name) if Path(name).is_absolute() else name


def _summary(kernels: tuple[KernelResult, ...]) -> str:
    """``4 kernels passed``, or ``3 of 4 kernels passed; 6.1: 2 rejected``."""
    other = [kernel for kernel in kernels if kernel.status is not Status.PASSED]
    count = f"{len(kernels)} kernel{'' if len(kernels) == 1 else 's'}"
    if not other:
        return f"{count} passed"
    name, reason = other[0].kernel, other[0].reason or other[0].status
    first = f"{name}: {reason.removeprefix(f'{name}: ')}"
    return f"{len(kernels) - len(other)} of {count} passed; {first}"

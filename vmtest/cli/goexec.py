"""``vmtest go-exec``: what ``go test -exec`` and other test runners start instead of a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.api.command import CommandRequest, plan_command
from vmtest.api.record import Recording, carry_out
from vmtest.cli import common, complete, options
from vmtest.cli.exec import one_name, pass_on
from vmtest.errors import UsageError
from vmtest.model.events import Event, Output
from vmtest.model.results import OWN_FAULT, Matrix, Status, exit_status

EXAMPLE = """Run one program of the host in one kernel, as if it ran here.

For test tools that start a program with another one: go test -exec, cargo's
runner, Meson's exe_wrapper. The program goes into the guest, with the folder
testdata if there is one here. Its output and its exit status are passed on,
and nothing else is printed (125: vmtest itself failed).

Example: [bold]go test -exec 'vmtest go-exec --kernel 6.12' ./...[/bold]
"""

_TESTDATA = "testdata"


def go_exec(
    command: Annotated[
        list[str],
        typer.Argument(metavar="PROGRAM", help="The program on the host, and its arguments."),
    ],
    kernel: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The kernel to boot.", autocompletion=complete.kernel_names
        ),
    ],
    copy: options.CopyOption = None,
    object_: options.ObjectOption = None,
    config: options.ConfigOption = None,
    accel: options.AccelOption = "auto",
    warm: options.WarmOption = None,
) -> None:
    """Run the program in a guest; the module's EXAMPLE is its help."""
    program, *arguments = command
    with common.reported(own=OWN_FAULT):
        common.check_accelerator(accel)
        if not one_name([kernel]):
            raise UsageError(
                f"--kernel {kernel}: may mean several kernels, and the output of one is passed on; "
                "name one, and repeat the command for the others"
            )
        beside = (_TESTDATA,) if Path(_TESTDATA).is_dir() else ()
        request = CommandRequest(
            command=(f"./{Path(program).name}", *arguments),
            kernels=(kernel,),
            copy=(program, *beside, *(copy or ())),
            objects=tuple(object_ or ()),
            accelerator=accel,
            warm=warm,
        )
        settings = project.load_config_or_builtin(config)
        with _about(program):
            planned = plan_command(settings, request, _unsaid)
        recording = Recording(planned.builds, {"copied": planned.copied}, arguments=sys.argv[1:])
        matrix = carry_out(planned.plan, _passed_on, recording)
        _explain(matrix, planned.plan.folder.path)
        raise typer.Exit(exit_status(matrix))


@contextmanager
def _about(program: str) -> Iterator[None]:
    """Have errors about the program's file speak of it, and of no ``--copy``."""
    try:
        yield
    except UsageError as error:
        own = f"`copy` {Path(program).absolute()}: "
        if not str(error).startswith(own):
            raise
        why = str(error).removeprefix(own).partition("; ")[0]
        raise UsageError(f"{program}: {why}; name the program on the host") from error


def _unsaid(line: str) -> None:
    """What a run tells on its way is not the program's output."""


def _passed_on(event: Event) -> None:
    if isinstance(event, Output):
        pass_on(event)


def _explain(matrix: Matrix, folder: Path) -> None:
    """Say on standard error what the program's own output does not."""
    (result,) = matrix.kernels
    ended = result.status in (Status.PASSED, Status.FAILED) and result.exit_status is not None
    if ended and result.exit_status == exit_status(matrix):
        return
    where = os.path.relpath(folder / result.directory)
    common.say(
        f"vmtest: {result.kernel}: {result.status.value}: {result.reason}; logs: {where}",
        sys.stderr,
    )

"""``vmtest exec``: any command, in each kernel of the matrix."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.api.cluster import engine_on, vms_here
from vmtest.api.command import CommandRequest, PlannedCommand, plan_command
from vmtest.api.record import Recording, carry_out
from vmtest.api.run import noted
from vmtest.api.shards import shard_of
from vmtest.cli import common, options
from vmtest.cli.again import again
from vmtest.cli.look import Look, show
from vmtest.cli.reports import Reports
from vmtest.matrix.engine import Engine
from vmtest.model.events import Event, Output
from vmtest.model.results import OWN_FAULT
from vmtest.model.versions import VersionRange

EXAMPLE = """Run any command in each kernel: a test binary, a loader, a script.

The command runs in a new folder of the guest that holds what --copy names.
$VMTEST_OBJECTS is the folder with the BPF objects for that kernel.
With a single kernel vmtest shows the command's output as it comes and exits with
the command's status (125: vmtest itself failed).

Example: [bold]vmtest exec --copy x.test --results gotest -- ./x.test -test.v[/bold]
"""


def exec_(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="The command to run in the guest, without a shell."),
    ],
    kernel: options.KernelOption = None,
    copy: options.CopyOption = None,
    results: options.ResultsOption = None,
    jobs: options.JobsOption = None,
    on: options.OnOption = None,
    shard: options.ShardOption = None,
    balance: options.BalanceOption = None,
    object_: options.ObjectOption = None,
    config: options.ConfigOption = None,
    locked: options.LockedOption = False,
    accel: options.AccelOption = "auto",
    warm: options.WarmOption = None,
    junit_file: options.JunitOption = None,
    markdown_file: options.MarkdownOption = None,
    json_file: options.JsonOption = None,
    html_file: options.HtmlOption = None,
    color: options.ColorOption = "auto",
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    github: options.GithubOption = None,
) -> None:
    """Run the command in the matrix; the module's EXAMPLE is its help."""
    request = CommandRequest(
        command=tuple(command),
        kernels=tuple(kernel or ()),
        copy=tuple(copy or ()),
        results=results,
        objects=tuple(object_ or ()),
        locked=locked,
        jobs=jobs,
        accelerator=accel,
        warm=warm,
    )
    with common.reported(own=OWN_FAULT if one_name(request.kernels) else None):
        common.check_accelerator(accel)
        request = replace(request, shard=shard_of(shard, balance))
        look = Look.asked(color, quiet, verbose, github)
        settings = project.load_config_or_builtin(config)
        reports = Reports(junit_file, markdown_file, json_file, html_file)

        def make_room(single: bool) -> None:
            with common.reported(own=OWN_FAULT if single else None):
                reports.make_room()

        # Not on standard output: in a single kernel that is the command's alone.
        say = noted(look.view(sys.stderr).handle)
        with engine_on(on, say, settings.kernels) as engine:
            planned = plan_command(settings, request, say, make_room, here=vms_here(on))
            with common.reported(own=OWN_FAULT if planned.single else None):
                _carry_out(planned, reports, look, engine, again(context))


def _carry_out(
    planned: PlannedCommand,
    reports: Reports,
    look: Look,
    engine: Engine | None,
    words: tuple[tuple[str, ...], ...],
) -> None:
    told = sys.stderr if planned.single else sys.stdout
    view = look.view(told, plain=planned.single)

    def handle(event: Event) -> None:
        if isinstance(event, Output):
            pass_on(event)
        view.handle(event)

    recording = Recording(
        planned.builds,
        {"copied": planned.copied},
        arguments=sys.argv[1:],
        write=reports.write,
        again=words,
    )
    with view:
        matrix = carry_out(planned.plan, handle, recording, engine=engine)
    show(matrix, planned.plan.folder, told, look)
    reports.render(matrix, planned.plan.folder)
    reports.end(matrix)


def one_name(patterns: Sequence[str]) -> bool:
    """Whether ``patterns`` can only mean a single kernel, before kernels.toml is read."""
    return len(patterns) == 1 and not (
        patterns[0].startswith("tag:") or VersionRange.looks_like(patterns[0])
    )


def pass_on(event: Output) -> None:
    """Hand what the command said on to our own streams, byte by byte."""
    for stream, data in ((sys.stdout, event.out), (sys.stderr, event.err)):
        if data:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()

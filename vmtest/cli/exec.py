"""``vmtest exec``: any command, in each kernel of the matrix."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.cli.inputs import build_first
from vmtest.cli.reports import Reports
from vmtest.cli.run import carry_out, check_patterns, make_room_for_reports, noted, show
from vmtest.command.files import check_program, parse_copy, read_copies, suite_of
from vmtest.command.formats.format import parse_format
from vmtest.command.task import command_tasks
from vmtest.host.files import Files
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import choose_kernels
from vmtest.matrix.plan import Plan
from vmtest.model.events import Event, Output
from vmtest.model.results import OWN_FAULT
from vmtest.model.versions import VersionRange
from vmtest.objects import builds as objects
from vmtest.report import live
from vmtest.runs import folder as runs

EXAMPLE = """Run any command in each kernel: a test binary, a loader, a script.

Its working folder in the guest holds what --copy names; $VMTEST_OBJECTS the kernel's objects.
In a single kernel its output is shown as it comes and its exit status is passed on
(125: vmtest's own faults).

Example: [bold]vmtest exec --copy x.test --results gotest -- ./x.test -test.v[/bold]
"""


def exec_(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="Run in the guest, as it is written.")
    ],
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|RANGE|tag:TAG", help="Which kernels; default tag:default."),
    ] = None,
    copy: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|DIR[:GUESTPATH]", help="Into the command's working folder."),
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(metavar="gotest|tap|junit:PATH", help="A row a test, read from its output."),
    ] = None,
    jobs: common.JobsOption = None,
    object_: common.ObjectOption = None,
    config: common.ConfigOption = None,
    locked: common.LockedOption = False,
    accel: common.AccelOption = "auto",
    warm: common.WarmOption = False,
    junit_file: common.JunitOption = None,
    markdown_file: common.MarkdownOption = None,
    json_file: common.JsonOption = None,
) -> None:
    """Run the command in the matrix; the module's EXAMPLE is its help."""
    patterns = kernel or []
    with common.reported(own=OWN_FAULT if _one_name(patterns) else None):
        common.clean_up_on_signals()
        common.check_accelerator(accel)
        settings = common.load_config_or_builtin(config)
        copies = [parse_copy(text) for text in copy or []]
        format = parse_format(results)
        given = [objects.parse_given(item) for item in object_ or []]
        builds = objects.override(settings.objects, given)
        check_patterns(settings, patterns)
        # Not on standard output: in a single kernel that is the command's alone.
        build_first(settings, noted(live.view(sys.stderr)))
        copied = read_copies(copies)
        check_program(command, copied.places)
        files = Files()
        cache = default_cache()
        kernels, resolved = choose_kernels(settings, patterns, cache, locked)
        single = len(kernels) == 1
        with common.reported(own=OWN_FAULT if single else None):
            make_room_for_reports(junit_file, markdown_file, json_file)
            plan = Plan(
                config=settings,
                kernels=kernels,
                task=command_tasks(command, copied, builds, files, format, live=single),
                cache=cache,
                folder=runs.create(settings.directory),
                suites=(suite_of(command),),
                command=tuple(command),
                jobs=jobs,
                accelerator=accel,
                warm=warm,
                resolved=resolved,
                files=files,
            )
            told = sys.stderr if single else sys.stdout
            view = live.PlainView(told) if single else live.view(told)

            def handle(event: Event) -> None:
                if isinstance(event, Output):
                    _pass_on(event)
                view.handle(event)

            reports = Reports()
            matrix = carry_out(plan, builds, view, handle, reports, also={"copied": copied.digests})
            show(matrix, plan.folder, told)
            reports.render(matrix, junit_file, markdown_file, json_file)
            reports.end(matrix)


def _one_name(patterns: list[str]) -> bool:
    """Whether ``patterns`` can only mean a single kernel, before kernels.toml is read."""
    return len(patterns) == 1 and not (
        patterns[0].startswith("tag:") or VersionRange.looks_like(patterns[0])
    )


def _pass_on(event: Output) -> None:
    for stream, data in ((sys.stdout, event.out), (sys.stderr, event.err)):
        if data:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()

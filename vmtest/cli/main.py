"""The command: one file a subcommand; this one puts them together."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vmtest.cli import (
    build,
    docs,
    doctor,
    goexec,
    image,
    init,
    known,
    merge,
    objects,
    report,
    run,
    runs,
    schema,
    setup,
    shell,
    sshworker,
    verify,
    watch,
)
from vmtest.cli import exec as exec_command
from vmtest.cli.bisect import packages as bisect
from vmtest.cli.bisect import step
from vmtest.cli.kernels import available, lock, presets, prune
from vmtest.cli.kernels import list as kernels
from vmtest.cluster.place import COMMAND

app = typer.Typer(
    name="vmtest",
    help="Boot a matrix of Linux kernels and run eBPF suites in each.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"vmtest {metadata.version('vmtest')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    """Options before the subcommand."""


app.command("run", help=run.EXAMPLE)(run.run)
# Options end where the command begins, so that its own need no "--".
app.command("exec", help=exec_command.EXAMPLE, context_settings={"allow_interspersed_args": False})(
    exec_command.exec_
)
app.command("go-exec", help=goexec.EXAMPLE, context_settings={"allow_interspersed_args": False})(
    goexec.go_exec
)
app.command("shell", help=shell.EXAMPLE)(shell.shell)
app.command("init", help=init.EXAMPLE)(init.init)
app.command("known", help=known.EXAMPLE)(known.known)
app.command("build", help=build.EXAMPLE)(build.build)
app.command("report", help=report.EXAMPLE)(report.report)
app.command("verify", help=verify.EXAMPLE)(verify.verify)
app.command("watch", help=watch.EXAMPLE)(watch.watch)
app.command("merge", help=merge.EXAMPLE)(merge.merge)
app.command("schema", help=schema.EXAMPLE)(schema.schema)
app.command("doctor", help=doctor.EXAMPLE)(doctor.doctor)
app.command("setup", help=setup.EXAMPLE)(setup.setup)
app.command(COMMAND, hidden=True, help=sshworker.HELP)(sshworker.ssh_worker)
app.command("docs", help=docs.EXAMPLE)(docs.docs)
kernels.app.command("available", help=available.AVAILABLE)(available.available)
kernels.app.command("presets", help=presets.PRESETS)(presets.presets)
kernels.app.command("add", help=presets.ADD)(presets.add)
kernels.app.command("outdated", help=available.OUTDATED)(available.outdated)
kernels.app.command("lock", help=lock.EXAMPLE)(lock.lock)
kernels.app.command("prune", help=prune.EXAMPLE)(prune.prune)
bisect.app.callback()(bisect.bisect)
bisect.app.command("step", help=step.EXAMPLE)(step.step)
app.add_typer(bisect.app, name="bisect")
app.add_typer(runs.app, name="runs")
app.add_typer(kernels.app, name="kernels")
app.add_typer(objects.app, name="objects")
app.add_typer(image.app, name="image")


class _Flags:
    """Help without ``<bool>`` beside an option that takes no value."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, with nothing in the place of a value where there is none."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for parameter in params:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
        return params


def _told(cls: type | None, default: type) -> Any:
    """``cls``, a command's or a group's own class or the ``default``, with such a help."""
    own = cls if isinstance(cls, type) else default
    return type(own.__name__, (_Flags, own), {})


def _tell_flags(group: typer.Typer) -> None:
    """Have the commands of ``group``, and of the groups in it, show their flags so."""
    group.info.cls = _told(group.info.cls, TyperGroup)
    for command in group.registered_commands:
        command.cls = _told(command.cls, TyperCommand)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _tell_flags(inner.typer_instance)


_tell_flags(app)

"""``vmtest shell``: a freshly booted kernel with the payload in place, on the user's terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.api.inputs import build_first
from vmtest.cli import common, options
from vmtest.cli.terminal import interact
from vmtest.config import select
from vmtest.errors import BootError, SessionLost, UsageError, VmtestError
from vmtest.host.files import Files
from vmtest.kernels import Store, default_cache, kconfig, source_for
from vmtest.matrix.intact import Intact
from vmtest.matrix.payload import GUEST_ROOT, install
from vmtest.model.kernels import Kernel
from vmtest.model.project import Config, ObjectFile, network_of
from vmtest.model.results import OWN_FAULT
from vmtest.model.versions import KernelVersion
from vmtest.objects import builds as objects
from vmtest.rootfs.prepare import prepare_root
from vmtest.runs.folder import STATE, utc_today
from vmtest.suites import known
from vmtest.suites.payload import Payload, pack_suites, suites_root
from vmtest.vm import accel
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import MachineSpec
from vmtest.vm.restore import Snapshots, running_guest, unwatched, where_saved

EXAMPLE = """Open a shell in a freshly booted kernel, or run one command in it.

Your tests and objects are in /tmp/vmtest.
The exit status is that of the shell or command (125: vmtest itself failed).

Example: [bold]vmtest shell 6.12 -- bpftool feature probe[/bold]
"""


def shell(
    kernel: Annotated[str, typer.Argument(help="The kernel to boot, a name of kernels.toml.")],
    command: Annotated[
        list[str] | None, typer.Argument(help="A command to run; default: an interactive shell.")
    ] = None,
    object_: options.ObjectOption = None,
    accelerator: options.AccelOption = "auto",
    warm: options.WarmOption = None,
    config: options.ConfigOption = None,
) -> None:
    """Boot, install, hand over the terminal, pass the status on."""
    with common.reported(own=OWN_FAULT):
        settings = project.load_config_or_builtin(config)
        (wanted,) = _one(select.select_kernels(settings.kernels, [kernel], {}), kernel)
        given = [objects.parse_given(item) for item in object_ or []]
        builds = objects.override(settings.objects, given)
        build_first(settings, _told)
        cache, files = default_cache(), Files()
        spec = _spec(settings, wanted, cache, files, accelerator)
        payload = _payload(settings, builds, spec.image.version, files)
        saved, why = where_saved(cache, warm, spec.probe.accelerator, spec.image, spec.root)
        snapshots = Snapshots(saved)
        status = _hand_over(spec, wanted, payload, command or [], snapshots)
        for note in [f"booted, and not saved: {why}"] if why else snapshots.notes:
            _told(f"note: {note}")
        raise typer.Exit(status)


def _told(line: str) -> None:
    common.say(line, sys.stderr)


def _spec(
    settings: Config, wanted: Kernel, cache: Path, files: Files, accelerator: str
) -> MachineSpec:
    """The machine, once kernel and guest image are there."""
    store, source = Store(cache), source_for(wanted, settings.archives)
    image = source.fetch(source.resolve(wanted, store), store)
    root = prepare_root(settings, cache, _told, files)
    kconfig.check(image, root.kind)
    folder = settings.directory / STATE / "shell"
    folder.mkdir(parents=True, exist_ok=True)
    return MachineSpec(
        image=image,
        root=root,
        probe=accel.choose(image.image, cache, accelerator),
        log=folder / f"{wanted.name}.log",
        memory_mib=wanted.memory_mib,
        cpus=wanted.cpus,
        cmdline=wanted.cmdline,
        network=network_of(settings.suites),
    )


def _payload(
    settings: Config, builds: tuple[ObjectFile, ...], version: KernelVersion, files: Files
) -> Payload:
    suites = settings.suites
    today, root_of_tests = utc_today(), str(suites_root(suites))
    expected = known.for_guest(settings.known_failures, version, root_of_tests, today)
    chosen = objects.choose(builds, version)
    modules = objects.modules_for(builds, version)
    return pack_suites(suites, suites, chosen, expected, files, modules)


def _hand_over(
    spec: MachineSpec, wanted: Kernel, payload: Payload, command: list[str], snapshots: Snapshots
) -> int:
    """Boot, and give the terminal to ``command`` or a shell; its exit status."""
    image, intact = spec.image, Intact(spec.image, spec.root)
    with ExitStack() as stack:
        intact.before()
        stack.callback(snapshots.close)
        scale = Scale.now(spec.probe.seconds, wanted.cpus)
        boot = scale.apply(wanted.limits).boot
        try:
            guest = stack.enter_context(
                running_guest(spec, snapshots, boot, scale.factor, unwatched)
            )
        except BootError:
            intact.check()
            raise
        machine, session = guest.machine, guest.session
        stack.callback(session.close)
        intact.watch(snapshots.used)
        intact.begin()
        install(session, payload.archive, lambda: None, image.config, spec.root.libraries)
        if not command:
            accelerator = spec.probe.accelerator
            _told(f"{image.release} on {accelerator}; the payload is in {GUEST_ROOT}")
        try:
            status = interact(session, command or ["bash"], payload.pythonpath)
        except SessionLost as error:
            intact.check()
            raise VmtestError(f"{wanted.name}: {machine.cause_of_death()}") from error
        intact.check()
        snapshots.publish()
    return status


def _one(kernels: tuple[Kernel, ...], pattern: str) -> tuple[Kernel]:
    if len(kernels) != 1:
        names = ", ".join(kernel.name for kernel in kernels)
        raise UsageError(f"vmtest shell {pattern}: means {names}; name one kernel")
    return (kernels[0],)

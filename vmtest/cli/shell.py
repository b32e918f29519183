"""``vmtest shell``: a freshly booted kernel with the payload in place, on the user's terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.cli.inputs import build_first
from vmtest.cli.terminal import interact
from vmtest.config import select
from vmtest.errors import BootError, SessionLost, UsageError, VmtestError
from vmtest.host.files import Files
from vmtest.kernels import Store, default_cache, kconfig, source_for
from vmtest.matrix.intact import Intact
from vmtest.matrix.payload import GUEST_ROOT, install
from vmtest.model.kernels import Kernel
from vmtest.model.project import network_of
from vmtest.model.results import OWN_FAULT
from vmtest.objects import builds as objects
from vmtest.rootfs.prepare import prepare_root
from vmtest.runs.folder import STATE, utc_today
from vmtest.suites import known
from vmtest.suites.payload import pack_suites, suites_root
from vmtest.vm import accel
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import MachineSpec
from vmtest.vm.restore import Snapshots, running_guest, unwatched

EXAMPLE = """Open a shell in a freshly booted kernel, or run one command in it.

The payload lies in /tmp/vmtest.  The exit status is the guest's; vmtest's own faults are 125.

Example: [bold]vmtest shell 6.12 -- bpftool feature probe[/bold]
"""


def shell(
    kernel: Annotated[str, typer.Argument(help="A kernel of kernels.toml.")],
    command: Annotated[list[str] | None, typer.Argument(help="A command; default a shell.")] = None,
    object_: common.ObjectOption = None,
    accelerator: common.AccelOption = "auto",
    warm: common.WarmOption = False,
    config: common.ConfigOption = None,
) -> None:
    """Boot, install, hand over the terminal, pass the status on."""
    with common.reported(own=OWN_FAULT):
        common.clean_up_on_signals()
        settings = common.load_config_or_builtin(config)
        (wanted,) = _one(select.select_kernels(settings.kernels, [kernel], {}), kernel)
        given = [objects.parse_given(item) for item in object_ or []]
        builds = objects.override(settings.objects, given)
        files = Files()
        build_first(settings, lambda line: common.say(line, sys.stderr))
        cache = default_cache()
        store = Store(cache)
        source = source_for(wanted, settings.archives)
        image = source.fetch(source.resolve(wanted, store), store)
        root = prepare_root(settings, cache, lambda line: common.say(line, sys.stderr), files)
        kconfig.check(image, root.kind)
        suites = settings.suites
        root_of_tests = str(suites_root(suites))
        expected = known.for_guest(
            settings.known_failures, image.version, root_of_tests, utc_today()
        )
        chosen = objects.choose(builds, image.version)
        modules = objects.modules_for(builds, image.version)
        payload = pack_suites(suites, suites, chosen, expected, files, modules)
        probe = accel.choose(image.image, cache, accelerator)
        with ExitStack() as stack:
            folder = settings.directory / STATE / "shell"
            folder.mkdir(parents=True, exist_ok=True)
            spec = MachineSpec(
                image=image,
                root=root,
                probe=probe,
                log=folder / f"{wanted.name}.log",
                memory_mib=wanted.memory_mib,
                cpus=wanted.cpus,
                cmdline=wanted.cmdline,
                network=network_of(settings.suites),
            )
            intact = Intact(image, root)
            intact.before()
            snapshots = Snapshots(cache if warm else None)
            stack.callback(snapshots.close)
            scale = Scale.now(probe.seconds, wanted.cpus)
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
            install(session, payload.archive, lambda: None, image.config, root.libraries)
            if not command:
                common.say(
                    f"{image.release} on {probe.accelerator}; the payload is in {GUEST_ROOT}",
                    sys.stderr,
                )
            try:
                status = interact(session, command or ["bash"])
            except SessionLost as error:
                intact.check()
                raise VmtestError(f"{wanted.name}: {machine.cause_of_death()}") from error
            intact.check()
            snapshots.publish()
        for note in snapshots.notes:
            common.say(f"note: {note}", sys.stderr)
        raise typer.Exit(status)


def _one(kernels: tuple[Kernel, ...], pattern: str) -> tuple[Kernel]:
    if len(kernels) != 1:
        names = ", ".join(kernel.name for kernel in kernels)
        raise UsageError(f"vmtest shell {pattern}: means {names}; name one kernel")
    return (kernels[0],)

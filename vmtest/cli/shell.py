"""``vmtest shell``: a freshly booted kernel with the payload in place, on the user's terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.api.inputs import build_first
from vmtest.cli import common, complete, options
from vmtest.cli.terminal import interact
from vmtest.errors import InfrastructureError, SessionLost, UsageError, VmtestError
from vmtest.host.files import Files
from vmtest.kernels import Store, default_cache, kconfig, source_for
from vmtest.kernels.resolve import choose_kernels
from vmtest.matrix.bench import Bench, Job
from vmtest.matrix.intact import CacheDamaged
from vmtest.matrix.job import run_kernel
from vmtest.matrix.payload import install
from vmtest.model.kernels import Kernel, KernelImage
from vmtest.model.project import Config, ObjectFile, network_of
from vmtest.model.results import OWN_FAULT, KernelResult, Status
from vmtest.model.versions import KernelVersion
from vmtest.objects import builds as objects
from vmtest.rootfs.filesystems import suited
from vmtest.rootfs.prepare import prepare_root
from vmtest.runs.folder import STATE, utc_today
from vmtest.suites import known
from vmtest.suites.payload import Payload, pack_suites, suites_root
from vmtest.vm import accel, standby
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.restore import where_saved

EXAMPLE = """Open a shell in a freshly booted kernel, or run one command in it.

Your tests and objects are in /tmp/vmtest.
The exit status is that of the shell or command (125: vmtest itself failed).

Example: [bold]vmtest shell 6.12 -- bpftool feature probe[/bold]
"""


def shell(
    kernel: Annotated[
        str,
        typer.Argument(
            help="The kernel to boot, a name of kernels.toml.", autocompletion=complete.kernel_names
        ),
    ],
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
        wanted = _one(settings, kernel)
        given = [objects.parse_given(item) for item in object_ or []]
        builds = objects.override(settings.objects, given)
        build_first(settings, _told)
        cache, files = default_cache(), Files()
        image = _image(settings, wanted, cache)
        root = prepare_root(settings, cache, _told, files)
        note = kconfig.check(image, root.kind, root)
        root = suited(root, image, cache, _told)
        probe = accel.choose(image.image, cache, accelerator)
        saved, why = where_saved(cache, warm, probe.accelerator, image, root)
        if why:
            _told(f"{wanted.name} boots, because its guest cannot be saved: {why}")
        folder = settings.directory / STATE / "shell" / wanted.name
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(
            kernel=wanted,
            image=image,
            root=root,
            task=Interaction(_payload(settings, builds, image.version, files), command or []),
            probe=probe,
            directory=folder,
            vcpus=wanted.cpus,
            note=note,
            snapshots=saved,
        )
        raise typer.Exit(hand_over(job))


@dataclass(frozen=True, slots=True)
class Interaction:
    """The task of having ``command``, or a shell, on the user's terminal."""

    payload: Payload
    command: list[str]

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each BPF object of the payload."""
        return self.payload.objects

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Boot, install, hand over the terminal; raises BootError, VmtestError, OSError."""
        job = bench.job
        with bench.guest(network_of(self.payload.suites)) as guest:
            session, archive, root = guest.session, self.payload.archive, job.root
            install(session, archive, bench.check, job.image.config, root.libraries, root.wheels)
            session.run(["sh", "-c", standby.END])
            if not self.command:
                where = f"{job.image.release} on {job.probe.accelerator}"
                _told(f"{where}; the payload is in {GUEST_ROOT}")
            try:
                status = interact(session, self.command or ["bash"], self.payload.pythonpath)
            except SessionLost as error:
                raise VmtestError(f"{job.kernel.name}: {guest.machine.cause_of_death()}") from error
        return replace(result, status=Status.PASSED, reason="", exit_status=status)


def hand_over(job: Job) -> int:
    """Have ``job``, an interaction, done; its exit status.

    Raises VmtestError when the guest did not boot or died, or ran on damaged files.
    """
    try:
        result = run_kernel(job)
    except CacheDamaged as error:
        raise InfrastructureError(f"{error}: it was removed; run the command again") from error
    if result.note:
        _told(f"note: {result.note}")
    if result.exit_status is None:
        raise VmtestError(result.reason)
    return result.exit_status


def _told(line: str) -> None:
    common.say(line, sys.stderr)


def _image(settings: Config, wanted: Kernel, cache: Path) -> KernelImage:
    store, source = Store(cache), source_for(wanted, settings.archives)
    return source.fetch(source.resolve(wanted, store), store)


def _payload(
    settings: Config, builds: tuple[ObjectFile, ...], version: KernelVersion, files: Files
) -> Payload:
    suites = settings.suites
    today, root_of_tests = utc_today(), str(suites_root(suites))
    expected = known.for_guest(settings.known_failures, version, root_of_tests, today)
    chosen = objects.choose(builds, version)
    modules = objects.modules_for(builds, version)
    return pack_suites(suites, suites, chosen, expected, files, modules)


def _one(settings: Config, pattern: str) -> Kernel:
    """The kernel that ``pattern`` means; raises UsageError, which speaks of no option."""
    try:
        kernels, _ = choose_kernels(settings, [pattern], default_cache())
    except UsageError as error:
        raise UsageError(str(error).removeprefix("`kernels` ")) from error
    if len(kernels) != 1:
        names = ", ".join(kernel.name for kernel in kernels)
        raise UsageError(f"vmtest shell {pattern}: means {names}; name one kernel")
    return kernels[0]

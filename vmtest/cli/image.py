"""``vmtest image``: carry kernels and guest image to a host without network, lock its wheels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.cli import common, complete, options
from vmtest.cli.kernels.list import cached_images
from vmtest.host.cache import megabytes
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import choose_kernels
from vmtest.rootfs import lock as lockfile
from vmtest.rootfs.prepare import lock_wheels, prepare_root
from vmtest.storage.transfer import export_bundle, import_bundle

app = typer.Typer(
    help="Copy the guest image and kernels to a host without apt or network; lock its wheels.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command(
    "export",
    help="Write the guest image and kernels to one file.\n\n"
    "Example: [bold]vmtest image export vmtest.tar --kernel 6.12[/bold]",
)
def export(
    file: Annotated[Path, typer.Argument(help="The bundle to write.")],
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar=options.KERNELS,
            help="Which kernels to write; default tag:default. Repeatable.",
            autocompletion=complete.kernels,
        ),
    ] = None,
    config: options.ConfigOption = None,
) -> None:
    """Export, fetching and building first what is not there."""
    with common.reported():
        settings = project.load_config(config)
        cache = default_cache()
        kernels, _ = choose_kernels(settings, kernel or [], cache)
        images = cached_images(kernels, settings, cache)
        bundle = export_bundle(file, cache, images, prepare_root(settings, cache, wheels=False))
        common.say(
            f"{file}: {len(bundle.kernels)} kernels, {len(bundle.images)} guest image, "
            f"{len(bundle.libraries)} libbpf, {megabytes(bundle.size)}"
        )


@app.command(
    "import",
    help="Put an exported bundle into the cache.  Every digest is checked.\n\n"
    "Example: [bold]vmtest image import vmtest.tar[/bold]",
)
def import_(
    file: Annotated[Path, typer.Argument(help="The bundle that vmtest image export wrote.")],
) -> None:
    """Import; what is there already stays."""
    with common.reported():
        bundle = import_bundle(file, default_cache())
        names = ", ".join(bundle.names)
        common.say(f"{file}: {names}; {len(bundle.already)} of them were here already")


@app.command(
    "lock",
    help="Write guest.lock: the exact wheels of \\[guest] requirements, extras and pytest.\n\n"
    "They are resolved as of today. Where the file is there, every run takes exactly these.\n\n"
    "Example: [bold]vmtest image lock && vmtest run[/bold]",
)
def lock(config: options.ConfigOption = None) -> None:
    """Resolve and write; nothing is written when pip fails."""
    with common.reported():
        settings = project.load_config(config)
        found = lock_wheels(settings, default_cache(), lambda line: common.say(line, sys.stderr))
        for one in found.wheels:
            common.say(f"{one.name}: {one.version}")
        lockfile.write(found)
        common.say(f"{found.file}: {len(found.wheels)} wheels for Python {found.python}")

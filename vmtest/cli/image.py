"""``vmtest image``: carry kernels and the guest image to a host without network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.cli import common, complete, options
from vmtest.cli.kernels.list import cached_images
from vmtest.host.cache import megabytes
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import choose_kernels
from vmtest.rootfs.prepare import prepare_root
from vmtest.storage.transfer import export_bundle, import_bundle

app = typer.Typer(
    help="Copy the guest image and kernels to a host without apt or network.",
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

"""``vmtest kernels``: what is asked for, what it resolves to, what is here."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtest.api import project
from vmtest.cli import common, complete, options
from vmtest.cli.common import dump
from vmtest.cli.look import PLAIN
from vmtest.errors import InfrastructureError, UnbootableKernel, VmtestError
from vmtest.host import attempts
from vmtest.host.cache import megabytes
from vmtest.kernels import Store, default_cache, kconfig, source_for
from vmtest.kernels.files.package import file_name
from vmtest.kernels.resolve import choose_kernels, resolve_all
from vmtest.model.events import Note, coming
from vmtest.model.kernels import (
    ArchiveSpec,
    Kernel,
    KernelImage,
    KernelSpec,
    LockedSpec,
    PackageSpec,
    PathSpec,
    Resolved,
    RootImage,
    Share,
    TreeSpec,
)
from vmtest.model.project import Config
from vmtest.model.text import printable
from vmtest.rootfs.image import own_disk

app = typer.Typer(
    help="List, download, lock and delete kernels.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command(
    "list",
    help="List all kernels of kernels.toml.\n\nExample: [bold]vmtest kernels list --json[/bold]",
)
def list_kernels(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: options.ConfigOption = None,
) -> None:
    """Resolve every kernel and show it with its size and whether it is cached."""
    with common.reported():
        settings = project.load_config(config)
        store = Store(default_cache())
        found, failed = resolve_all(settings, settings.kernels, store)
        sizes = {entry.key: entry.size for entry in store.entries()}
        disk = own_disk(settings.guest)
        rows = [
            {
                **_row(k, found.get(k.name), failed.get(k.name), sizes),
                **_way(store, k.name, found.get(k.name), disk),
            }
            for k in settings.kernels
        ]
        if as_json:
            print(dump({"store": str(store.root), "kernels": rows}))
        else:
            _print_table(rows)
            common.say(f"store: {store.root} ({megabytes(store.size())} of kernels)")
        unusable = [k for k in settings.kernels if k.gate and k.name in failed]
        raise typer.Exit(common.INFRASTRUCTURE if unusable else 0)


def _row(
    kernel: Kernel, found: Resolved | None, error: VmtestError | None, sizes: dict[str, int]
) -> dict[str, object]:
    return {
        "name": kernel.name,
        "tags": list(kernel.tags),
        "gate": kernel.gate,
        "asked": _asked(kernel.spec),
        "version": str(found.version) if found else None,
        "origin": found.origin if found else None,
        "cached": bool(found and found.cached),
        "download_bytes": found.size if found and (found.size or found.cached) else None,
        "stored_bytes": sizes.get(found.key) if found else None,
        "note": found.note if found else None,
        "error": str(error) if error else None,
    }


def _way(
    store: Store, name: str, found: Resolved | None, disk: RootImage | None
) -> dict[str, object]:
    """How it boots, known once it is in the cache: what its config says.

    ``disk`` is the image that [guest] root names.
    """
    image = store.get(found.key, name) if found is not None and found.cached else None
    if image is None:
        return {"share": None, "filesystem": None, "refused": None}
    try:
        share, filesystem = kconfig.way_of(image, disk)
    except UnbootableKernel as error:
        return {"share": None, "filesystem": None, "refused": str(error)}
    return {"share": share, "filesystem": filesystem, "refused": None}


def _asked(spec: KernelSpec | LockedSpec) -> str:
    match spec:
        case LockedSpec():
            return _asked(spec.exact)
        case ArchiveSpec():
            return spec.version
        case PathSpec():
            return str(spec.image)
        case TreeSpec():
            return f"{spec.path.name} {spec.rev or '(its present state)'}"
        case PackageSpec():
            return ", ".join(file_name(file) for file in spec.files)


def _print_table(rows: list[dict[str, object]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("kernel", "asked", "is now", "from", "cached", "size", "tags"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        size = row["stored_bytes"] or row["download_bytes"]
        table.add_row(
            *(
                Text(printable(str(value)))
                for value in (
                    row["name"],
                    row["asked"],
                    row["version"] or "-",
                    row["origin"] or "-",
                    "yes" if row["cached"] else "no",
                    megabytes(size) if isinstance(size, int) else "-",
                    " ".join(map(str, row["tags"])) if isinstance(row["tags"], list) else "",
                )
            )
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for row in rows:
        share, filesystem = row["share"], row["filesystem"]
        if (share, filesystem) not in (("9p", "squashfs"), (None, None)):
            words = kconfig.SHARES[cast(Share, share)]
            what = f"{row['name']}: reads the host's files {words}, its root is {filesystem}"
            console.print(Text(printable(what)))
        for key in ("note", "error", "refused"):
            if row[key]:
                console.print(Text(printable(_named(str(row["name"]), str(row[key])))))


def _named(name: str, text: str) -> str:
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"


@app.command(
    "fetch",
    help="Download kernels into the cache, or build them.\n\n"
    "Example: [bold]vmtest kernels fetch --kernel tag:extended[/bold]",
)
def fetch(
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar=options.KERNELS,
            help="Which kernels to download or build; default tag:default. Repeatable.",
            autocompletion=complete.kernels,
        ),
    ] = None,
    locked: options.LockedOption = False,
    config: options.ConfigOption = None,
) -> None:
    """Fetch all; exits 3 if one of them is not available."""
    with common.reported():
        common.clean_up_on_signals()
        settings = project.load_config(config)
        cache = default_cache()
        kernels, resolved = choose_kernels(settings, kernel or [], cache, locked)
        store = Store(cache)
        failures = []
        turn = Lock()  # a view takes one event at a time
        with PLAIN.view(sys.stdout) as view, ThreadPoolExecutor(len(kernels)) as pool:

            def one(wanted: Kernel) -> KernelImage:
                source = source_for(wanted, settings.archives)
                found = resolved.get(wanted.name) or source.resolve(wanted, store)

                def progress(done: int, total: int) -> None:
                    with turn:
                        view.handle(coming(wanted, done, total))

                return source.fetch(found, store, progress)

            def told(line: str) -> None:
                with turn:
                    view.handle(Note(line))

            def heard(wanted: Kernel) -> KernelImage:
                with attempts.told(told):
                    return one(wanted)

            futures = [(wanted, pool.submit(heard, wanted)) for wanted in kernels]
            for wanted, future in futures:
                try:
                    image = future.result()
                except InfrastructureError as error:
                    failures.append(str(error))
                else:
                    with turn:
                        view.handle(
                            Note(f"{wanted.name}: {image.release} ({image.version}) is here")
                        )
        if failures:
            raise InfrastructureError("\n".join(failures))


def cached_images(kernels: tuple[Kernel, ...], config: Config, cache: Path) -> list[KernelImage]:
    """The images of ``kernels``, fetched where they are not in the store yet."""
    store = Store(cache)
    images = []
    for kernel in kernels:
        source = source_for(kernel, config.archives)
        images.append(source.fetch(source.resolve(kernel, store), store))
    return images

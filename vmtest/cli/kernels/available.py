"""``vmtest kernels available`` and ``outdated``: what could be run, and what has moved on."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtest.api import project
from vmtest.cli import common, options
from vmtest.cli.common import dump
from vmtest.errors import KernelUnavailable, UsageError
from vmtest.host.cache import megabytes
from vmtest.kernels import Store, archive_source, default_cache
from vmtest.kernels.archive.candidates import selected
from vmtest.kernels.resolve import resolve_all
from vmtest.model.kernels import Kernel, Resolved
from vmtest.model.project import Config
from vmtest.model.results import KernelResult
from vmtest.model.text import printable
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json

AVAILABLE = """List every kernel in the configured archives, oldest first.

PATTERN is a series (6.12), a range, a version, or * (the default).

Example: [bold]vmtest kernels available '>=6.1,<6.13'[/bold]
"""

OUTDATED = """List the kernels that have a newer release than the one that you last ran.

The exit status is 1 if a kernel has a newer release, 3 if a kernel with gate = true
could not be checked, and 0 otherwise.

Example: [bold]vmtest kernels outdated[/bold]
"""

OUTDATED_STATUS = 1


def available(
    pattern: Annotated[
        str, typer.Argument(help="Only versions that match, such as 6.12.*; default: all.")
    ] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: options.ConfigOption = None,
) -> None:
    """Read the indexes and print a line a distinct package version."""
    with common.reported():
        settings = project.load_config(config)
        if not settings.archives:
            raise UsageError(
                f"{settings.file}: there is no [apt.NAME] nor [dnf.NAME], so there is no "
                f"archive to look into; "
                f'add one, for example [apt.debian] with suites = ["trixie-security"]'
            )
        store = Store(default_cache())
        rows: list[dict[str, object]] = []
        notes: list[str] = []
        hints: list[str] = []
        # Here a bare 6.12 is the series: its neighbours are those of 6.12.*
        near = pattern if "*" in pattern or "-" in pattern else f"{pattern}.*"
        for archive in settings.archives.values():
            try:
                source = archive_source(archive)
                offer = source.offer(store)
            except KernelUnavailable as error:  # the others may answer
                notes.append(str(error))
                continue
            notes += offer.notes
            hints.append(offer.nearest(near))
            rows += [
                {
                    "version": str(candidate.kernel_version),
                    "package": candidate.version.text,
                    "archive": archive.name,
                    "suite": candidate.suite,
                    "release": candidate.release,
                    "download_bytes": candidate.size if candidate.packages else None,
                    "cached": source.stored(candidate, store) is not None,
                    "missing": candidate.missing,
                }
                for candidate in selected(offer.candidates, pattern)
            ]
        if not rows:
            raise KernelUnavailable("; ".join([f"no kernel {pattern}", *hints, *notes]))
        if as_json:
            print(dump({"kernels": rows, "notes": notes}))
        else:
            _print(rows, notes)


def _print(rows: list[dict[str, object]], notes: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "package", "suite", "release", "size", "cached", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        size = row["download_bytes"]
        cells = (
            row["version"],
            row["package"],
            row["suite"],
            row["release"],
            megabytes(size) if isinstance(size, int) else "-",
            "yes" if row["cached"] else "no",
            f"cannot boot: {row['missing']}" if row["missing"] else "",
        )
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    bootable = sum(not row["missing"] for row in rows)
    console.print(Text(f"{bootable} of {len(rows)} can boot"))
    for note in notes:
        console.print(Text(printable(note)))


def outdated(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: options.ConfigOption = None,
) -> None:
    """Compare what every kernel is now with what its last run booted."""
    with common.reported():
        settings = project.load_config(config)
        found, failed = resolve_all(settings, settings.kernels, Store(default_cache()))
        seen = last_seen(settings)
        rows = [_compared(k, found.get(k.name), seen.get(k.name)) for k in settings.kernels]
        for row in rows:
            if row["name"] in failed:
                row["note"] = str(failed[str(row["name"])])
        if as_json:
            print(dump(rows))
        else:
            for row in rows:
                common.say(_line(row))
        if any(kernel.gate and kernel.name in failed for kernel in settings.kernels):
            raise typer.Exit(common.INFRASTRUCTURE)
        raise typer.Exit(OUTDATED_STATUS if any(row["state"] == "newer" for row in rows) else 0)


def last_seen(settings: Config) -> dict[str, tuple[str, KernelResult]]:
    """The last run that booted each kernel, by the kernel's name: the run's name, the result."""
    seen: dict[str, tuple[str, KernelResult]] = {}
    for file in sorted((settings.directory / runs.STATE / "runs").glob("*/matrix.json")):
        try:
            matrix = matrix_json.read(file)
        except UsageError:
            continue  # cut short, or of another vmtest: it saw nothing that we could read
        for result in matrix.kernels:
            if result.digest:
                seen[result.kernel] = (file.parent.name, result)
    return seen


def _compared(
    kernel: Kernel, now: Resolved | None, seen: tuple[str, KernelResult] | None
) -> dict[str, object]:
    if now is None:
        state = "unknown"
    elif seen is None:
        state = "never run"
    else:
        state = "same" if now.digest == seen[1].digest else "newer"
    return {
        "name": kernel.name,
        "state": state,
        "now": now.version.text if now else None,
        "seen": seen[1].release if seen else None,
        "run": seen[0] if seen else None,
        "origin": now.origin if now else None,
        "note": now.note if now else "",
    }


def _line(row: dict[str, object]) -> str:
    text = f"{row['name']}: "
    match row["state"]:
        case "newer":
            text += f"newer: {row['now']} ({row['origin']}); run {row['run']} booted {row['seen']}"
        case "same":
            text += f"same: {row['now']}, as in run {row['run']}"
        case "never run":
            text += f"no run has booted it; it is {row['now']} now"
        case _:
            return text + str(row["note"]).removeprefix(f"{row['name']}: ")
    return text + (f" ({row['note']})" if row["note"] else "")

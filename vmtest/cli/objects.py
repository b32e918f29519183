"""``vmtest objects``: what object files hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtest.cli import common
from vmtest.cli.common import dump
from vmtest.model.text import one_line
from vmtest.objects.btf import Member
from vmtest.objects.inspect import GlobalInfo, MapInfo, ObjectInfo, inspect
from vmtest.objects.sections import map_flags
from vmtest.report.text import counted

app = typer.Typer(
    help="Show what is in object files.", no_args_is_help=True, rich_markup_mode="rich"
)

_SHOWN_BYTES = 24


@app.callback()
def group() -> None:
    """Keep `inspect` a subcommand although it is the only one."""


@app.command(
    "inspect",
    help="Print the programs, maps, globals and layouts of BPF objects, without loading them.\n\n"
    "Example: [bold]vmtest objects inspect build/sendmsg.bpf.o[/bold]",
)
def inspect_objects(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Object files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print each, or nothing if one is not an object."""
    with common.reported():
        found = [inspect(file) for file in files]
        if as_json:
            print(dump([asdict(info) for info in found]))
            return
        console = Console(width=None if sys.stdout.isatty() else 160)
        for info in found:
            _print(info, console)


def _print(info: ObjectInfo, console: Console) -> None:
    btf = "BTF" if info.btf else "no BTF"
    console.print(Text(_safe(f"{info.path}: license {info.license or 'none'}, {btf}"), "bold"))
    _table(
        console,
        counted(len(info.programs), "program"),
        ("section", "type", "attach type", "instructions"),
        (
            (p.name, p.section, p.type or "?", p.attach_type or "-", str(p.instructions))
            for p in info.programs
        ),
    )
    _table(
        console,
        counted(len(info.maps), "map"),
        ("type", "key", "value", "max entries", "flags"),
        (row for found in info.maps for row in _map_rows(found)),
    )
    _table(
        console,
        counted(len(info.globals), "global"),
        ("section", "size", "type", "initial value"),
        ((g.name, g.section, str(g.size), g.type or "?", _initial(g)) for g in info.globals),
    )
    for layout in info.layouts:
        _table(
            console,
            f"{layout.name}, {counted(layout.size, 'byte')}",
            ("offset", "size", "type"),
            ((m.name, _offset(m), _width(m), m.type) for m in layout.members),
        )


def _table(
    console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in (title, *headings):
        table.add_column(Text(_safe(heading)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_safe(cell)) for cell in row))
    console.print(table)
    console.print()


def _safe(text: str) -> str:
    """A name may hold whatever bytes: on one line, without control characters."""
    return one_line(text, 200)


def _map_rows(info: MapInfo, name: str = "") -> Iterator[tuple[str, ...]]:
    """The map, and below it the map that each of its entries is."""
    name = name or info.name
    yield _map_row(info, name)
    if info.inner is not None:
        yield from _map_rows(info.inner, f"{name}[]")


def _map_row(info: MapInfo, name: str) -> tuple[str, ...]:
    def side(size: int | None, kind: str) -> str:
        return "?" if size is None else f"{size} {kind}".rstrip()

    unknown = "?" if info.max_entries is None else str(info.max_entries)
    kind = f"{info.type or '?'}{' (legacy)' if info.legacy else ''}"
    kind += " (pinned)" if info.pinned else ""
    key, value = side(info.key_size, info.key), side(info.value_size, info.value)
    return name, kind, key, value, unknown, map_flags(info.flags) or "-"


def _initial(info: GlobalInfo) -> str:
    if info.number is not None:
        return str(info.number)
    if not info.initial:
        return "0"
    data = bytes.fromhex(info.initial)
    more = f" ... ({len(data)} bytes)" if len(data) > _SHOWN_BYTES else ""
    return data[:_SHOWN_BYTES].hex(" ") + more


def _offset(member: Member) -> str:
    return f"{member.offset}.{member.bit}" if member.bits else str(member.offset)


def _width(member: Member) -> str:
    return counted(member.bits, "bit") if member.bits else str(member.size)

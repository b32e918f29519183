"""``vmtest kernels prune``: make room in the cache."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.errors import UsageError
from vmtest.host.cache import default_cache, megabytes
from vmtest.model.text import size_of
from vmtest.storage import prune as pruning
from vmtest.storage.prune import Item

EXAMPLE = """Delete entries of the cache that were not used for a long time.

Entries are kernels, guest images, snapshots, libbpf versions, loaders, wheels, module indexes
and code of test modules.
Nothing that a running vmtest uses is deleted.
Without an option it deletes what was not used for 30 days.

Example: [bold]vmtest kernels prune --older-than 30d --max-size 2G --dry-run[/bold]
"""

_UNITS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Delete what was not used for longer than this: 12h, 30d, 8w."
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Delete the least recently used until the rest fits: 500M, 2G.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Choose, remove, say what went and what is left."""
    with common.reported():
        if older_than is None and max_size is None:
            older_than = "30d"
        age = None if older_than is None else parse_age(older_than)
        size = None if max_size is None else _size(max_size)
        cache, now = default_cache(), time.time()
        found = pruning.items(cache)
        chosen = pruning.superfluous(found, now, age, size)
        gone = chosen if dry_run else pruning.remove(cache, chosen)
        for item in gone:
            common.say(f"{'would remove' if dry_run else 'removed'} {_words(item, now)}")
        left = [item for item in found if item not in gone]
        busy = sum(item.busy for item in left)
        common.say(
            f"{'would free' if dry_run else 'freed'} {_sum(gone)}; {len(left)} "
            f"{'entry' if len(left) == 1 else 'entries'} ({_sum(left)}) "
            f"{'stays' if len(left) == 1 else 'stay'}, {busy} in use"
        )


def _sum(found: list[Item]) -> str:
    return megabytes(sum(item.size for item in found))


def _words(item: Item, now: float) -> str:
    days = (now - item.used) / 86400
    why = "broken" if item.broken else f"last used {days:.0f} days ago"
    return f"{item.kind} {item.name} ({megabytes(item.size)}, {why})"


def parse_age(text: str) -> float:
    """``30d`` as seconds; raises UsageError."""
    match = re.fullmatch(r"(\d{1,9})([hdw])", text, re.ASCII)
    if match is None:
        raise UsageError(f"--older-than {text}: is not an age; write for example 12h, 30d or 8w")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _size(text: str) -> int:
    size = size_of(text, ("M", "G"))
    if size is None:
        raise UsageError(f"--max-size {text}: is not a size; write for example 500M or 2G")
    return size

"""``vmtest kernels lock``: write down what every kernel exactly is."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from vmtest.api import project
from vmtest.cli import common, complete, options
from vmtest.config import select
from vmtest.errors import InfrastructureError
from vmtest.kernels import Store, default_cache, source_for
from vmtest.kernels.lock import file as lockfile
from vmtest.kernels.resolve import resolve_all

EXAMPLE = """Write kernels.lock: the exact version, origin and digest of every kernel.

With --kernel it renews the entries of those kernels and keeps the others.

Example: [bold]vmtest kernels lock && vmtest run --locked[/bold]
"""


def lock(
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|tag:TAG",
            help="Which kernels to lock; default all.",
            autocompletion=complete.kernels,
        ),
    ] = None,
    config: options.ConfigOption = None,
) -> None:
    """Resolve, fetch what only then has a digest, write; nothing is written when one fails."""
    with common.reported():
        common.clean_up_on_signals()
        settings = project.load_config(config)
        file = lockfile.beside(settings.file)
        before = lockfile.read(file) if file.exists() else {}
        wanted = settings.kernels
        if kernel:
            wanted = select.select_kernels(settings.kernels, kernel, {})
        store = Store(default_cache())
        common.say(f"looking up {len(wanted)} kernels", sys.stderr)
        found, failed = resolve_all(settings, wanted, store)
        fatal = [str(failed[k.name]) for k in wanted if k.gate and k.name in failed]
        if fatal:
            raise InfrastructureError("\n".join(fatal))
        names = {known.name for known in settings.kernels}
        after = {name: entry for name, entry in before.items() if name in names}
        for one in wanted:
            if one.name in failed:
                after.pop(one.name, None)
                common.say(f"left out (gate = false): {failed[one.name]}", sys.stderr)
                continue
            resolved = found[one.name]
            if not resolved.digest:
                common.say(f"{one.name}: fetching {resolved.origin}", sys.stderr)
                image = source_for(one, settings.archives).fetch(resolved, store)
                resolved = replace(resolved, version=image.version, digest=image.digest)
            after[one.name] = lockfile.entry_of(resolved, settings.directory)
            old = before.get(one.name)
            was = ""
            if old is not None and old.digest != resolved.digest:
                was = f", was {old.version}"
            note = f" ({resolved.note})" if resolved.note else ""
            common.say(f"{one.name}: {resolved.version.text}{was}{note}")
        lockfile.write(file, after)
        common.say(f"{file}: {len(after)} kernels")

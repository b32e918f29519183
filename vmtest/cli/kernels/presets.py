"""``vmtest kernels presets`` and ``add``: ready entries for kernels.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vmtest.cli import common, complete, options
from vmtest.config import file as configuration
from vmtest.config import presets as ready
from vmtest.errors import UsageError
from vmtest.host.debian import (
    default_keyring,
    find_mirrors,
    is_security,
    known_mirrors,
    mirror_variables,
)
from vmtest.host.write import write_file

PRESETS = """List the presets: ready entries for kernels.toml.

Example: [bold]vmtest kernels presets[/bold]
"""

ADD = """Add a preset to kernels.toml; comments in the file stay.

The mirror comes from this host's configuration, from a variable, or from --mirror.

Example: [bold]vmtest kernels add ubuntu-24-04[/bold]
"""

_MIRROR, _KEYS = "https://HOST/PATH", "FILE"
_PLACES = {_MIRROR: "HOST/PATH", _KEYS: _KEYS}
"""What stands for what is not known, and how an error calls it."""
_OPTIONS = {"mirror": "--mirror URL", "keyring": "--keyring FILE"}
_NEW = "schema = 1\n\n"
_KEY_FOLDERS = (Path("/etc/pki/rpm-gpg"), Path("/usr/share/distribution-gpg-keys"))


def presets() -> None:
    """Print a line a preset."""
    with common.reported():
        table = Table(box=None, pad_edge=False)
        for heading in ("preset", "kernels", "what it is"):
            table.add_column(heading, overflow="fold")
        for preset in ready.presets().values():
            table.add_row(preset.name, ", ".join(preset.kernels), preset.says)
        Console(width=None if os.isatty(1) else 140).print(table)


def add(
    preset: Annotated[
        str,
        typer.Argument(help="A name from vmtest kernels presets.", autocompletion=complete.presets),
    ],
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="The URL of the archive.")
    ] = None,
    keyring: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file with the archive's keys.")
    ] = None,
    config: options.ConfigOption = None,
) -> None:
    """Find mirror and keys, then write the tables."""
    with common.reported():
        chosen = ready.find(preset)
        file = config or _nearest()
        more = _found(chosen, file, mirror, keyring)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        write_file(file, ready.added(text, file, chosen, more))
        common.say(f"{file}: added {preset}: the kernels {', '.join(chosen.kernels)}")


def _nearest() -> Path:
    try:
        return configuration.find(Path.cwd())
    except UsageError:
        return Path.cwd() / "kernels.toml"


def _found(
    chosen: ready.Preset, file: Path, mirror: str | None, keyring: Path | None
) -> dict[str, str]:
    """The keys to add to the archive's table; raises UsageError where one is not known.

    The tables to paste are printed then, with places for what is not known.
    """
    given = {"mirror": mirror, "keyring": str(keyring.absolute()) if keyring else None}
    more = {key: value for key, value in given.items() if value is not None}
    if chosen.table == "apt":
        distribution = chosen.archive.get("distribution", "debian")
        try:
            find_mirrors(chosen.archive_name, mirror, None, keyring, distribution=distribution)
        except UsageError as error:
            lacking = _lacking_of(chosen, distribution)
            options = [_OPTIONS[key] for key in lacking if key in _OPTIONS and key not in more]
            again = f", or add it again with {' and '.join(options)}" if options else ""
            raise _to_paste(chosen, file, f"{error}{again}", {**lacking, **more}) from error
    if chosen.table == "dnf":
        variable, _ = mirror_variables(chosen.archive_name)
        key = keyring or _key(chosen)
        if key is not None:
            more.setdefault("keyring", str(key))
        places: dict[str, str] = {}
        ways = []
        if not mirror and not os.environ.get(variable):
            places["mirror"] = _MIRROR
            ways.append(f"its mirror (--mirror URL or {variable})")
        if key is None:
            places["keyring"] = _KEYS
            ways.append("its keys (--keyring FILE)")
        if ways:
            why = f"preset {chosen.name}: this host does not know {' and '.join(ways)}"
            raise _to_paste(chosen, file, why, {**places, **more})
    return more


def _lacking_of(chosen: ready.Preset, distribution: str) -> dict[str, str]:
    """Places for what this host does not know of an apt archive."""
    places = {}
    if known_mirrors(distribution).main is None:
        places["mirror"] = _MIRROR
        if distribution == "debian" and any(map(is_security, chosen.archive["suites"])):
            places["security_mirror"] = _MIRROR
    if not default_keyring(distribution):
        places["keyring"] = _KEYS
    return places


def _to_paste(chosen: ready.Preset, file: Path, why: str, more: dict[str, str]) -> UsageError:
    """Print the tables of ``chosen``, which are too long for an error, and return the error.

    They are all that is for ``file`` where there is none yet.
    """
    common.say(f"{'' if file.exists() else _NEW}{ready.lines(chosen, more)}")
    places = [name for value, name in _PLACES.items() if value in more.values()]
    filled = f", once you have filled in {' and '.join(places)}" if places else ""
    return UsageError(
        f"{why}; nothing was written: the tables on standard output are for {file.name}{filled}"
    )


def _key(chosen: ready.Preset) -> Path | None:
    """The first of a preset's keys that a package of this host has brought."""
    for name in chosen.keys:
        for folder in _KEY_FOLDERS:
            if found := next(folder.rglob(name), None):
                return found
    return None

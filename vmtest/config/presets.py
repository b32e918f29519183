"""Ready entries for kernels.toml, and writing them there with its comments kept."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.items

from vmtest.config.file import parse
from vmtest.config.suggest import suggestion
from vmtest.errors import ConfigError, UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """One entry: an archive of the kind ``table``, and kernels of it as name to version.

    ``archive`` has the keys of its table but for mirror and keyring; ``keys`` are names of
    files in which hosts have its keys.
    """

    name: str
    says: str
    table: str
    kernels: dict[str, str]
    archive: dict[str, Any]
    keys: tuple[str, ...]

    @property
    def archive_name(self) -> str:
        """What its archive is called in kernels.toml."""
        return self.name


def presets() -> dict[str, Preset]:
    """All presets by their name, in the order of the file that comes with vmtest."""
    text = (files("vmtest.config") / "presets.toml").read_text(encoding="utf-8")
    return {
        name: Preset(
            name,
            entry["says"],
            entry["table"],
            entry["kernels"],
            entry.get("archive", {}),
            tuple(entry.get("keys", ())),
        )
        for name, entry in tomllib.loads(text).items()
    }


def find(name: str) -> Preset:
    """The preset called ``name``; raises UsageError with the nearest."""
    known = presets()
    if name not in known:
        raise UsageError(
            f"preset {name}: there is no such preset{suggestion(name, known)}; "
            f"list them with: vmtest kernels presets"
        )
    return known[name]


def lines(preset: Preset, more: dict[str, str]) -> str:
    """The tables of ``preset`` as text to paste, its archive with the keys of ``more`` too."""
    document = tomlkit.document()
    _add(document, preset, more)
    return tomlkit.dumps(document).strip()


def added(text: str, file: Path, preset: Preset, more: dict[str, str]) -> str:
    """The ``text`` of kernels.toml with the tables of ``preset``; comments and order are kept.

    Raises UsageError for text that is not TOML, and when a name is taken already.
    """
    try:
        document = tomlkit.parse(text or "schema = 1\n")
    except ValueError as error:
        raise UsageError(f"{file.name}: is not valid TOML: {error}; nothing was added") from error
    taken = {str(kernel.get("name")) for kernel in document.get("kernel", [])}
    names = [name for name in preset.kernels if name in taken]
    if names:
        raise UsageError(
            f'{file.name}: has a kernel "{names[0]}" already; rename it or remove it there, then '
            f"add the preset {preset.name} again"
        )
    if preset.archive_name in document.get(preset.table, {}) and preset.table != "mainline":
        raise UsageError(
            f"{file.name}: has a [{preset.table}.{preset.archive_name}] already; rename it or "
            f"remove it there, then add the preset {preset.name} again"
        )
    _add(document, preset, more)
    made = tomlkit.dumps(document)
    try:
        parse(made, file)
    except ConfigError as error:
        raise UsageError(f"{error}; nothing was added") from error
    return made


def _add(document: tomlkit.TOMLDocument, preset: Preset, more: dict[str, str]) -> None:
    if preset.table != "mainline":
        archive = tomlkit.table()
        for key, value in {**preset.archive, **more}.items():
            archive.add(key, value)
        if preset.table not in document:
            document.add(preset.table, tomlkit.table(is_super_table=True))
        kind: Any = document[preset.table]
        kind.add(preset.archive_name, archive)
    there = "kernel" in document
    if not there:
        document.add("kernel", tomlkit.aot())
    kernels: Any = document["kernel"]
    for name, version in preset.kernels.items():
        kernel = tomlkit.table()
        kernel.add("name", name)
        if preset.table == "mainline":
            kernel.add("mainline", version)
        else:
            kernel.add(preset.table, preset.archive_name)
            kernel.add("version", version)
        if there or not len(kernels):  # tomlkit parts only the tables of a new list
            kernel.trivia.indent = "\n"
        kernels.append(kernel)

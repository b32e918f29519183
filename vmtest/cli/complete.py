"""What the shell offers for a word: names of kernels.toml, of runs and of presets.

A shell asks at each press of its key, so nothing here reads an index or says what is wrong: a
kernels.toml that does not hold offers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from vmtest.api import project
from vmtest.config import file as configuration
from vmtest.config import presets as ready
from vmtest.errors import VmtestError
from vmtest.model.project import Config
from vmtest.runs import folder as runs

Offer = tuple[str, str]
"""A word, and what it is."""


def kernel_names(ctx: typer.Context) -> list[Offer]:
    """The kernels by their names."""
    return _quietly(lambda: _kernels(_settings(ctx)))


def kernels(ctx: typer.Context) -> list[Offer]:
    """The kernels by their names and by their tags, without those that are named already."""

    def offered() -> Iterable[Offer]:
        settings = _settings(ctx)
        tags: dict[str, list[str]] = {}
        for kernel in settings.kernels:
            for tag in kernel.tags:
                tags.setdefault(f"tag:{tag}", []).append(kernel.name)
        by_tag = ((tag, ", ".join(names)) for tag, names in tags.items())
        return _unnamed(ctx, "kernel", (*_kernels(settings), *by_tag))

    return _quietly(offered)


def suites(ctx: typer.Context) -> list[Offer]:
    """The suites that are not named already."""

    def offered() -> Iterable[Offer]:
        settings = _settings(ctx)
        places = ((suite.name, suite.tests) for suite in settings.suites)
        found = ((name, _short(tests, settings.directory)) for name, tests in places)
        return _unnamed(ctx, "suite", found)

    return _quietly(offered)


def run_names(ctx: typer.Context) -> list[Offer]:
    """The project's runs, the newest first."""

    def offered() -> Iterable[Offer]:
        file = ctx.params.get("config") or configuration.find(Path.cwd())
        return ((run.name, "") for run in reversed(runs.kept(file.parent)))

    return _quietly(offered)


def presets() -> list[Offer]:
    """The ready entries for kernels.toml."""
    return [(preset.name, preset.says) for preset in ready.presets().values()]


def places() -> list[Offer]:
    """How the words of ``--on`` begin."""
    return [
        ("local:", "workers on this machine: local:2"),
        ("ssh:", "hosts that ssh reaches: ssh:HOST,HOST"),
        ("tcp://", "a scheduler of Dask's: tcp://HOST:8786"),
        ("tls://", "a scheduler that asks for a certificate"),
    ]


def _settings(ctx: typer.Context) -> Config:
    return project.load_config_or_builtin(ctx.params.get("config"))


def _kernels(settings: Config) -> tuple[Offer, ...]:
    return tuple((kernel.name, ", ".join(kernel.tags)) for kernel in settings.kernels)


def _unnamed(ctx: typer.Context, option: str, found: Iterable[Offer]) -> Iterable[Offer]:
    given = ctx.params.get(option) or ()
    return (offer for offer in found if offer[0] not in given)


def _short(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def _quietly(offered: Callable[[], Iterable[Offer]]) -> list[Offer]:
    """What ``offered`` finds; nothing where it cannot: a shell shows no reason."""
    try:
        return list(offered())
    except (VmtestError, OSError):
        return []

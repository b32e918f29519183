"""``vmtest known``: known failures and complaints, flaky tests, and what the last run showed."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtest.api import project
from vmtest.cli import common, options
from vmtest.cli.common import dump
from vmtest.errors import UsageError
from vmtest.model.kernels import ArchiveSpec, Kernel
from vmtest.model.project import Config, FlakyTest, KnownFailure, KnownSplat
from vmtest.model.results import Matrix
from vmtest.model.text import printable
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.runs import folder as runs
from vmtest.runs.folder import utc_today
from vmtest.runs.read import read_matrix
from vmtest.suites import known as known_failures
from vmtest.suites.payload import suites_root

EXAMPLE = """List known failures, known complaints and flaky tests, and what the last run showed.

The exit status is 1 if one of them has expired.

Example: [bold]vmtest known --json[/bold]
"""

EXPIRED = 1
Entry = KnownFailure | KnownSplat | FlakyTest


def known(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: options.ConfigOption = None,
) -> None:
    """Print; reads kernels.toml and the last run, and asks neither the network nor a kernel."""
    with common.reported():
        settings = project.load_config(config)
        matrix = _last_run(settings)
        today = utc_today()
        rows = [_row(entry, settings, matrix, today) for entry in settings.known_failures]
        splats = [_splat_row(entry, settings, matrix, today) for entry in settings.known_splats]
        flaky = [_row(entry, settings, matrix, today) for entry in settings.flaky]
        tables = {"known_failures": rows, "known_splats": splats, "flaky": flaky}
        if as_json:
            print(dump({"run": matrix.run if matrix else None, **tables}))
        else:
            for name, table in tables.items():
                if table:
                    _print_table(name, table, matrix)
            if not any(tables.values()):
                common.say(
                    f"{settings.file}: there is no [[known_failure]], no [[known_splat]] and no "
                    "[[flaky]]"
                )
        entries = (*settings.known_failures, *settings.known_splats, *settings.flaky)
        expired = any(entry.expired(today) for entry in entries)
        raise typer.Exit(EXPIRED if expired else 0)


def _last_run(settings: Config) -> Matrix | None:
    try:
        return read_matrix(runs.find(settings.directory, None))
    except UsageError:
        return None  # nothing was run yet, or by another vmtest


def _row(
    entry: KnownFailure | FlakyTest, settings: Config, matrix: Matrix | None, today: date
) -> dict[str, object]:
    root = str(suites_root(settings.suites)) if settings.suites else ""
    seen = {}
    for kernel in known_failures.concerned(entry, matrix) if matrix else ():
        tests = known_failures.tests_of(entry, kernel, root)
        outcomes = ("flaky" if test.flaky else test.outcome.value for test in tests)
        seen[kernel.kernel] = dict(sorted(Counter(outcomes).items()))
    return {"test": entry.test, **_said(entry, settings, matrix, today), "seen": seen}


def _splat_row(
    entry: KnownSplat, settings: Config, matrix: Matrix | None, today: date
) -> dict[str, object]:
    """What is known of ``entry``; ``seen`` has how often each kernel that ran complained so."""
    seen = {}
    for kernel in matrix.kernels if matrix else ():
        if kernel.version and entry.concerns(KernelVersion.parse(kernel.version)):
            known = [entry.matches(one.text, one.fingerprint) for one in kernel.known_splats]
            counting = [entry.matches(one.text, one.fingerprint) for one in kernel.complaints]
            seen[kernel.kernel] = {"seen": sum(known) + sum(counting)}
    return {"pattern": entry.pattern, **_said(entry, settings, matrix, today), "seen": seen}


def _said(
    entry: Entry,
    settings: Config,
    matrix: Matrix | None,
    today: date,
) -> dict[str, object]:
    """What kernels.toml says of ``entry``, and the kernels that it is about."""
    concerns, perhaps = _kernels(entry, settings.kernels, matrix)
    return {
        "kernels": entry.kernels.text if entry.kernels else None,
        "reason": entry.reason,
        "until": str(entry.until) if entry.until else None,
        "expired": entry.expired(today),
        "concerns": concerns,
        "perhaps": perhaps,
    }


def _kernels(
    entry: Entry, kernels: tuple[Kernel, ...], matrix: Matrix | None
) -> tuple[list[str], list[str]]:
    """The names of the ``kernels`` that ``entry`` is about, and of those that only an index tells.

    Versions are those of the last run, else what kernels.toml itself says.
    """
    ran = {kernel.kernel: kernel.version for kernel in (matrix.kernels if matrix else ())}
    concerns, perhaps = [], []
    for kernel in kernels:
        if entry.kernels is None:
            concerns.append(kernel.name)
            continue
        version = ran.get(kernel.name)
        answer = (
            KernelVersion.parse(version) in entry.kernels
            if version
            else _concerns(entry.kernels, kernel)
        )
        if answer is None:
            perhaps.append(kernel.name)
        elif answer:
            concerns.append(kernel.name)
    return concerns, perhaps


def _concerns(kernels: VersionRange, kernel: Kernel) -> bool | None:
    """Whether ``kernel`` is within ``kernels``, None where only its source knows."""
    asked = kernel.spec.version if isinstance(kernel.spec, ArchiveSpec) else ""
    series = asked.removesuffix(".*")
    fixed = 3 if series == asked else series.count(".") + 1
    if any(len(numbers) > fixed for _, numbers in kernels.constraints):
        return None
    try:
        return KernelVersion.parse(series) in kernels
    except ValueError:  # "*", a path, or a series such as "6.*"
        return None


def _print_table(name: str, rows: list[dict[str, object]], matrix: Matrix | None) -> None:
    table = Table(box=None, pad_edge=False)
    key = "pattern" if name == "known_splats" else "test"
    head, run = "flaky test" if name == "flaky" else key, matrix.run if matrix else "no run yet"
    for heading in (head, "kernels", "until", "reason", run):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (row[key], _where(row), _until(row), row["reason"], _seen(row))
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _where(row: dict[str, object]) -> str:
    concerns, perhaps = row["concerns"], row["perhaps"]
    assert isinstance(concerns, list) and isinstance(perhaps, list)
    names = ", ".join([*concerns, *(f"{name}?" for name in perhaps)])
    return f"{row['kernels'] or 'all'}: {names or 'none of kernels.toml'}"


def _until(row: dict[str, object]) -> str:
    return f"{row['until'] or '-'}{' EXPIRED' if row['expired'] else ''}"


def _seen(row: dict[str, object]) -> str:
    seen = row["seen"]
    assert isinstance(seen, dict)
    lines = []
    for kernel, outcomes in seen.items():
        counts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
        lines.append(f"{kernel}: {counts or 'no such test'}")
    return "\n".join(lines) or "-"

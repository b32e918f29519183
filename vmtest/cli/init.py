"""``vmtest init``: the files that make a start in a repository."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.errors import UsageError
from vmtest.host.write import write_file
from vmtest.init import draft
from vmtest.init.look import Found, look
from vmtest.schemas.generate import text_of

EXAMPLE = """Write a kernels.toml for this repository, and a CI job.

It looks for BPF sources and objects, pytest files, a Makefile, go.mod and
Cargo.toml, and for the CI that is in use. It changes no existing file, with two
exceptions: it adds lines to .gitignore, and it writes kernels.toml again if that
file names no object yet.

Example: [bold]vmtest init --ci github[/bold]
"""

_CI = {
    "github": (Path(".github/workflows/kernels.yml"), draft.workflow),
    "gitlab": (Path(".gitlab/kernels.yml"), draft.gitlab),
}


def init(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    ci: Annotated[
        str | None,
        typer.Option(
            metavar="github|gitlab|none", help="The CI to write a job for; default: the one in use."
        ),
    ] = None,
) -> None:
    """Look, show, ask, write; the module's EXAMPLE is its help."""
    with common.reported():
        if ci not in (None, "none", *_CI):
            raise UsageError(f"--ci {ci}: write github, gitlab or none")
        root = Path.cwd()
        found = look(root)
        files = _drafts(found, found.ci if ci is None else ci)
        there = [path for path in files if (root / path).exists()]
        if Path("kernels.toml") in there and _gains(root, found):
            there.remove(Path("kernels.toml"))
        if Path("kernels.toml") in there and (ci not in _CI or len(files) == len(there)):
            raise UsageError(
                f"{root / 'kernels.toml'} is there already; move it away to have another drafted"
            )
        for path in there:
            common.say(f"{path} is there already and stays as it is")
            del files[path]
        if Path("kernels.toml") in files:
            files[Path(draft.SCHEMA)] = text_of("kernels.toml")
        ignored = _not_ignored(root, draft.ignored(found))
        for path in files:
            common.say(f"would write {path}" if not yes else f"writing {path}")
        if ignored:
            verb = "adding" if yes else "would add"
            common.say(f"{verb} {', '.join(ignored)} to .gitignore")
        if not (yes or _agreed()):
            raise typer.Exit(common.USAGE)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            write_file(root / path, text)
        if ignored:
            _ignore(root, ignored)
        if ci is None and not found.ci:
            common.say("no CI found: vmtest init --ci github writes a job")
        common.say(_next(found))


def _drafts(found: Found, ci: str) -> dict[Path, str]:
    files = {Path("kernels.toml"): draft.kernels_toml(found)}
    if ci in _CI:
        path, write = _CI[ci]
        files[path] = write(found)
    return files


def _gains(root: Path, found: Found) -> bool:
    """Whether kernels.toml is as it was written before the objects were built."""
    old = (root / "kernels.toml").read_text(encoding="utf-8", errors="replace")
    drafted = draft.before_the_build(found)
    as_drafted = draft.without_schema(old) == draft.without_schema(drafted)
    return as_drafted and drafted != draft.kernels_toml(found)


def _not_ignored(root: Path, wanted: Iterable[str]) -> list[str]:
    try:
        lines = (root / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    there = {line.strip().strip("/") for line in lines}
    return [name for name in wanted if name.rstrip("/") not in there]


def _ignore(root: Path, names: list[str]) -> None:
    file = root / ".gitignore"
    old = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    gap = "" if not old or old.endswith("\n") else "\n"
    text = old + gap + "".join(f"{name}\n" for name in names)
    write_file(file, text.encode("utf-8", "surrogateescape"))


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            "standard input is not a terminal, so vmtest cannot ask you; "
            "add --yes to write these files"
        )
    return typer.confirm("Write these files?", default=True)


def _next(found: Found) -> str:
    """What to do now."""
    lines = ["Next:", "  vmtest doctor            what this host lacks"]
    if draft.built(found):
        lines.append("  vmtest verify            load every program on every kernel")
    elif found.sources:
        first = f"{shlex.join(draft.build_command(found))}; vmtest init"
        lines.append(f"  {first:24} no BPF object is built yet: init names those")
    elif not draft.only_tests(found):
        lines.append("  build your BPF objects, and name each in kernels.toml as [[object]]")
    if found.tests:
        lines.append("  vmtest run               run the tests in every kernel")
    lines += [f"  {line}" for line in draft.tests_in("6.12", "'", found)]
    return "\n".join(lines)

"""``python -m tests.mutants``: make the mutants of bpf/, judge them in VMs, say what survived."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tests.mutants import survivors, table
from tests.mutants.build import Unit
from tests.mutants.cases import build_all, make, select, sort_out, survey
from tests.mutants.operators import Mutant
from tests.mutants.record import Record, row
from tests.mutants.verdicts import Judged, Killers, Tally, Verdict, compare, good
from tests.mutants.vm import Board, Case, Ground, run_fleet
from vmtest.api import project
from vmtest.cli import common, options
from vmtest.config.select import select_kernels
from vmtest.errors import UsageError
from vmtest.kernels import Store, default_cache, source_for
from vmtest.matrix.bench import Cancellation
from vmtest.matrix.slots import memory_available_mib, slots
from vmtest.model.project import Config
from vmtest.rootfs.prepare import prepare_root
from vmtest.runs.folder import STATE
from vmtest.suites.payload import pack_suites
from vmtest.vm import accel

SURVIVED = 1
"""Exit status: too few were killed, or a survivor is not listed."""

EXAMPLE = """Mutate bpf/ at every place where an operator fits, and run the suites on each mutant.

Example: [bold]python -m tests.mutants --only cgroup_sock.bpf.c --only gate[/bold]
"""


@dataclass(frozen=True, slots=True)
class Made:
    """The mutants that were asked for, and whether these are all."""

    chosen: Sequence[Mutant]
    complete: bool


def main(
    kernel: Annotated[str, typer.Option(help="The kernel of kernels.toml to judge on.")] = "6.12",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="VMs at once; default what CPUs and memory allow.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|OPERATOR|ID", help="Repeatable; each kind narrows down."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the mutants and do nothing.")] = False,
    resume: Annotated[bool, typer.Option(help="Keep the verdicts of the run before.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="JSON.")] = None,
    config: options.ConfigOption = None,
    accelerator: options.AccelOption = "auto",
) -> None:
    """Make, compile, judge and report; the module's EXAMPLE is its help."""
    with common.reported():
        common.clean_up_on_signals()
        settings = project.load_config(config)
        programs = settings.directory / "bpf"
        everything = make(programs)
        chosen = select(everything, only or [])
        made = Made(chosen, complete=len(chosen) == len(everything))
        if list_:
            print(*chosen, f"{len(chosen)} mutants", sep="\n")
            raise typer.Exit(0)
        known = survivors.read()
        ground, units = _prepare(settings, kernel, jobs, accelerator)
        judged = _judge(ground, units, programs, made, resume)
        comparison = compare(chosen, judged, known, made.complete)
        tally = Tally.of(judged.values())
        print(table.render(chosen, judged))
        print(table.remarks(judged, comparison))
        if json_file is not None:
            rows = [row(mutant, judged[mutant.id]) for mutant in chosen if mutant.id in judged]
            json_file.write_text(json.dumps(rows, indent=1) + "\n")
        if len(judged) < len(chosen):
            print("interrupted; go on with --resume", file=sys.stderr)
            raise typer.Exit(common.INTERRUPTED)
        raise typer.Exit(0 if good(tally, comparison) else SURVIVED)


def _prepare(
    settings: Config, name: str, jobs: int | None, accelerator: str
) -> tuple[Ground, list[Unit]]:
    """Kernel, guest image and unmutated objects."""
    cache = default_cache()
    store = Store(cache)
    selected = select_kernels(settings.kernels, [name], {})
    if len(selected) != 1:
        raise UsageError(f"--kernel {name}: means {len(selected)} kernels; name one")
    (kernel,) = selected
    source = source_for(kernel, settings.archives)
    image = source.fetch(source.resolve(kernel, store), store)
    folder = settings.directory / STATE / "mutants"
    shutil.rmtree(folder / "work", ignore_errors=True)
    units, originals = survey(settings, image, settings.directory / "bpf", folder / "work")
    room = slots([kernel], len(os.sched_getaffinity(0)), memory_available_mib())
    ground = Ground(
        kernel=kernel,
        image=image,
        root=prepare_root(settings, cache),
        probe=accel.choose(image.image, cache, accelerator),
        payload=pack_suites(settings.suites, settings.suites, originals),
        folder=folder,
        jobs=jobs or room,
    )
    return ground, units


def _judge(
    ground: Ground, units: Sequence[Unit], programs: Path, made: Made, resume: bool
) -> dict[str, Judged]:
    """Verdicts by id; fewer than mutants when interrupted."""
    say = Progress()
    say(f"{len(made.chosen)} mutants; compiling")
    built = build_all(programs, made.chosen, units, ground.folder / "work", made.complete)
    record = Record(ground.folder / "results.jsonl", ground.digest())
    killers = Killers()
    record.teach(killers)
    earlier = record.known() if resume else {}
    if not resume:
        record.begin()
    judged, cases = sort_out(made.chosen, built, earlier)
    waiting = len(cases)
    say(
        f"{waiting} to judge on {ground.kernel.name} ({ground.probe.accelerator}), "
        f"VMs: {ground.jobs}"
    )

    def settled(case: Case, result: Judged) -> None:
        judged[case.mutant.id] = result
        record.add(case.mutant, result, case.built.signature)
        if result.verdict.counts and result.verdict is not Verdict.KILLED:
            say(f"{result.verdict}: {case.mutant}")
        done = waiting - len(board.pending)
        if done % 50 == 0:
            say(f"{done} of {waiting} judged")

    def withdrawn(case: Case) -> None:
        del judged[case.mutant.id]
        record.withdraw(case.mutant, case.built.signature)
        say(f"to be judged again, the guest went bad: {case.mutant}")

    board = Board(deque(cases), killers, settled, withdrawn)
    cancellation = Cancellation()
    if cases:
        try:
            run_fleet(ground, board, cancellation)
        except KeyboardInterrupt:
            cancellation.cancel()
    say("done")
    # A duplicate is no more decided than its twin is.
    return {
        name: result
        for name, result in judged.items()
        if not result.same_as or result.same_as in judged
    }


class Progress:
    """Lines on standard error, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, line: str) -> None:
        seconds = int(time.monotonic() - self._started)
        print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    app.command(help=EXAMPLE)(main)
    app()

"""Guests restored from snapshots against guests that boot: both sides in one run.

    python benchmarks/snapshots.py [--samples 3] [--kernel NAME ...] [--skip-commands] [--json FILE]
                                   [--suite NAME ...] [-k EXPRESSION] [--smoke]

(a) per kernel: from nothing to an authenticated SSH session, booted and restored in turn; beside
    them what it takes to write a booted guest to disk and to read it back, and its size;
(b) ``vmtest verify`` of one object on all the kernels, cold and restored in turn;
(c) ``vmtest run`` of all suites on the first kernel, cold and restored in turn.

Every figure is a median, a ratio is restored by cold.  The guests of (a) are kept in a cache of
the benchmark's own; (b) and (c) use the user's, after a first run that is not measured.  Neither
says much on a machine that does something else: the load average is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import smoke

from vmtest.config import file as configuration
from vmtest.host.cache import tree_size
from vmtest.kernels import Store, default_cache, source_for
from vmtest.model.kernels import Kernel, RootImage
from vmtest.model.project import Config
from vmtest.objects.compile import build_all
from vmtest.rootfs.prepare import prepare_root
from vmtest.vm import accel, machine
from vmtest.vm.machine import MachineSpec
from vmtest.vm.restore import Snapshots, running_guest
from vmtest.vm.snapshot import fill, save

PROJECT = Path(__file__).parents[1]
COLD = ("--cold",)
WARM = ("--warm",)
Samples = dict[str, list[float]]


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """``call``, which also says how many seconds each of its calls took."""

    def measured(*arguments: Any) -> Any:
        began = time.monotonic()
        try:
            return call(*arguments)
        finally:
            seconds.append(time.monotonic() - began)

    return measured


def start(spec: MachineSpec, snapshots: Snapshots) -> tuple[bool, float]:
    """Whether a guest of ``spec`` was restored, and the seconds to its session."""
    began = time.monotonic()
    with running_guest(spec, snapshots, 600.0, 10.0, lambda machine, stack: None) as guest:
        seconds = time.monotonic() - began
        guest.session.close()
    return guest.warm, seconds


def guests(kernel: Kernel, settings: Config, root: RootImage, samples: int) -> Samples:
    """The samples of (a) for one kernel, in seconds, and the snapshot's megabytes."""
    cache = default_cache()
    source, store = source_for(kernel, settings.archives), Store(cache)
    image = source.fetch(source.resolve(kernel, store), store)
    found: Samples = {"cold s": [], "restored s": [], "save s": [], "read back s": [], "MB": []}
    # Where the machine looks them up, which mypy takes for another module's names.
    machine.save = timed(save, found["save s"])  # type: ignore[attr-defined]
    machine.fill = timed(fill, found["read back s"])  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "console.log"
        spec = MachineSpec(image, root, accel.choose(image.image, cache), log)
        for number in range(samples):
            kept = Snapshots(Path(scratch) / str(number))
            start(spec, kept)
            kept.publish()
            warm, seconds = start(spec, kept)
            if kept.notes or not warm:
                sys.exit(f"{kernel.name}: not restored: {kept.notes}")
            found["restored s"].append(seconds)
            found["cold s"].append(start(spec, Snapshots(None))[1])
            (place,) = Path(scratch).glob(f"{number}/snapshots/*")
            found["MB"].append(tree_size(place) / 1e6)
    return found


def command(arguments: Sequence[str]) -> float:
    """The wall time of a vmtest command that ends with 0, in seconds."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "vmtest", *arguments],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - began


def commands(arguments: Sequence[str], samples: int, *, saved: bool = False) -> Samples:
    """The samples of a command, cold and restored in turn; its guests may be ``saved`` already."""
    found: Samples = {"cold s": [], "restored s": []}
    if not saved:
        command([*arguments, *WARM])
    for _ in range(samples):
        found["cold s"].append(command([*arguments, *COLD]))
        found["restored s"].append(command([*arguments, *WARM]))
    return found


def report(name: str, found: Samples) -> dict[str, Any]:
    """Print the medians and their ratio; returns them with the samples."""
    medians = {key: statistics.median(values) for key, values in found.items() if values}
    medians["ratio"] = medians["restored s"] / medians["cold s"]
    load = os.getloadavg()[0]
    words = ", ".join(f"{key} {value:.3g}" for key, value in medians.items())
    print(f"{name}: {words} (load average {load:.1f})", flush=True)
    return {**medians, "load average": load, "samples": found}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--kernel", action="append", help="default: the default kernels")
    parser.add_argument("--suite", action="append", dest="suites", default=[], help="of (c)")
    parser.add_argument("-k", dest="tests", metavar="EXPRESSION", default="", help="tests of (c)")
    parser.add_argument("--skip-commands", action="store_true", help="only (a)")
    parser.add_argument(
        "--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-snapshots.json"
    )
    options = smoke.parse(parser, smoke.ONE_TEST)
    settings = configuration.load(PROJECT / "kernels.toml")
    wanted = options.kernel or [k.name for k in settings.kernels if "default" in k.tags]
    root = prepare_root(settings, default_cache())
    measured = {}
    for kernel in settings.kernels:
        if kernel.name in wanted:
            name = f"to SSH, {kernel.name}"
            measured[name] = report(name, guests(kernel, settings, root, options.samples))
    if not options.skip_commands:
        selected = [word for name in wanted for word in ("--kernel", name)]
        with tempfile.TemporaryDirectory() as scratch:
            built = build_all(PROJECT / "bpf", Path(scratch))
            # Not the mock of the same name in a folder below.
            one = str(next(path for path in built if path == Path(scratch) / "sendmsg.bpf.o"))
            verify = ["verify", one, *selected, "--fail-on", "nothing"]
            name = f"verify of one object on {len(wanted)} kernels"
            # Without figures it is all the same whether they are restored the first time.
            samples = commands(verify, options.samples, saved=options.smoke)
            measured[name] = report(name, samples)
        suites = [word for name in options.suites for word in ("--suite", name)]
        name = f"run of {', '.join(options.suites) or 'all suites'} on {wanted[0]}"
        run = ["run", *selected[:2], *suites, *(["-k", options.tests] if options.tests else [])]
        samples = commands(run, options.samples, saved=options.smoke)
        measured[name] = report(name, samples)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"figures: {options.json}")


if __name__ == "__main__":
    main()

"""More VMs at once than the host has processors: does a time limit end one that only waits?

    python benchmarks/load.py [--kernels 8] [--jobs 8] [--kernel NAME]... [--suite NAME]...
                              [--json FILE] [--smoke]

Runs the suites on so many kernels: those of kernels.toml that gate, again and again under other
names.  ``--kernels 24 --jobs 2`` is a long run with the usual VMs.  It prints what each kernel came
to, and which part of its limits it took: of the boot's, of that of silence (between two events,
of which a test's start and end are two), and of the suites' together.  It ends with 1 when a kernel
has not passed, and then keeps its folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import smoke
import tomlkit

from vmtest.config import file as configuration

PROJECT = Path(__file__).parents[1]
_LEFT_OUT = ("tags", "gate")


def project(folder: Path, kernels: int, names: Sequence[str]) -> None:
    """Make ``folder`` a project with this one's suites and so many ``kernels`` of these names."""
    text = (PROJECT / "kernels.toml").read_text(encoding="utf-8")
    config = tomlkit.parse(text).unwrap()
    there = [one for one in config["kernel"] if one.get("gate", True)]
    chosen = [one for one in there if not names or one["name"] in names]
    config["kernel"] = [
        {key: value for key, value in one.items() if key not in _LEFT_OUT}
        | {"name": f"{one['name']}-{number // len(chosen) + 1}"}
        for number in range(kernels)
        for one in [chosen[number % len(chosen)]]
    ]
    (folder / "kernels.toml").write_text(tomlkit.dumps(config), encoding="utf-8")
    for name in ("bpf", "tests"):
        (folder / name).symlink_to(PROJECT / name)


def taken(folder: Path) -> list[dict[str, Any]]:
    """What each kernel of the latest run came to, and the part of its limits that it took."""
    run = folder / ".vmtest" / "latest"
    limits = {one.name: one.limits for one in configuration.load(folder / "kernels.toml").kernels}
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    rows = []
    for kernel in json.loads((run / "matrix.json").read_text(encoding="utf-8"))["kernels"]:
        name, factor = kernel["kernel"], kernel["factor"]
        limit = limits[name]
        # From the payload on: before, it is the boot's limit, or another kernel that is waited for.
        own = [one for one in events if one.get("kernel") == name]
        copying = (n for n, one in enumerate(own) if one.get("what") == "copying the payload")
        at = [one["at"] for one in own[next(copying, len(own)) :]]
        gaps = [later - sooner for sooner, later in itertools.pairwise(at)]
        rows.append(
            {
                "kernel": name,
                "status": kernel["status"],
                "reason": kernel["reason"],
                "tests": len(kernel["tests"]),
                "seconds": kernel["duration"],
                "factor": factor,
                "boot": kernel["boot_seconds"] / (limit.boot * factor),
                "silence": max(gaps, default=0.0) / (limit.silence * factor),
                "total": (at[-1] - at[0] if at else 0.0) / (limit.total * factor),
            }
        )
    return rows


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--kernel", action="append", default=[])
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-load.json")
    small = {"kernels": 2, "jobs": 2, "kernel": [smoke.KERNEL], "suite": ["log"]}
    options = smoke.parse(parser, small)
    folder = Path(tempfile.mkdtemp(prefix="vmtest-load-"))
    project(folder, options.kernels, options.kernel)
    suites = [word for name in options.suite for word in ("--suite", name)]
    argv = [sys.executable, "-m", "vmtest", "run", "--quiet", "--jobs", str(options.jobs), *suites]
    before, began = os.getloadavg()[0], time.monotonic()
    # vmtest is this one, also in [build].
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    status = subprocess.run(argv, cwd=folder, env={**os.environ, "PATH": path}).returncode
    seconds, rows = time.monotonic() - began, taken(folder)
    for one in rows:
        parts = ", ".join(f"{name} {one[name]:.0%}" for name in ("boot", "silence", "total"))
        words = f"{one['status']} {one['reason']}".strip()
        print(
            f"{one['kernel']:14} {words}: {one['tests']} tests, {one['seconds']:.0f} s, "
            f"limits x{one['factor']:.1f}, of which it took {parts}"
        )
    load = [before, os.getloadavg()[0]]
    print(f"{seconds:.0f} s in all; load average {load[0]:.1f}, then {load[1]:.1f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    figures = {"seconds": seconds, "load": load, "kernels": rows}
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"figures: {options.json}")
    if status != 0:
        sys.exit(f"vmtest run ended with {status}; its folder is {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

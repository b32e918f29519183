"""From a save to every kernel's verdict: ``vmtest watch`` against a cold ``vmtest verify``.

    python benchmarks/watch.py [--samples 3] [--think SECONDS] [--kernel NAME ...] [--json FILE]
        [--smoke]

In turn: the source of one object is saved under a watch, until it has told what all the kernels
say; then the same source is changed again and ``vmtest verify`` builds and loads the object, its
guests booted.  Both compile, load the same object and print their table.  A ratio is watch by
verify, of medians; the aim is 0.15 on four kernels.  Between a verdict and the next save nothing
is done for a while, as when somebody reads and types: meanwhile guests are made ready.  It says
little on a machine that does something else: the load average is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import smoke

from vmtest.config import file as configuration

PROJECT = Path(__file__).parents[1]
OBJECT = "sendmsg"
WAITS = "waiting for a save"


class Session:
    """A ``vmtest watch`` with ``arguments`` that runs in ``folder``."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vmtest", "watch", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def round(self) -> str:
        """What it says until it waits for a save, of a save that changed something."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if WAITS in line and "nothing changed" not in line:
                return said
        raise AssertionError(f"it ended:\n{said}")

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)
        return self.process.returncode


def edit(source: Path, number: int) -> None:
    """Save another ``source``: one constant more or another, so that the object differs."""
    text = source.read_text().partition("\nconst volatile int watched")[0]
    source.write_text(f"{text}\nconst volatile int watched = {number};\n")


def measure(
    folder: Path, kernels: Sequence[str], samples: int, think: float
) -> dict[str, list[float]]:
    """The samples of both sides in seconds, in turn; ``think`` seconds lie before each save."""
    source = folder / "bpf" / f"{OBJECT}.bpf.c"
    selected = [word for name in kernels for word in ("--kernel", name)]
    # A shell that starts this program in the background has it ignored, and the watch would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: dict[str, list[float]] = {"watch s": [], "verify s": []}
    session = Session(folder, ["verify", OBJECT, *selected])
    try:
        session.round()  # whatever is to be saved is
        for number in range(samples):
            time.sleep(think)
            began = time.monotonic()
            edit(source, 2 * number)
            said = session.round()
            found["watch s"].append(time.monotonic() - began)
            if f"verify: {len(kernels)} kernel" not in said:
                sys.exit(f"not accepted everywhere:\n{said}")
            session.process.send_signal(signal.SIGSTOP)  # it is not to take part in the other
            edit(source, 2 * number + 1)
            began = time.monotonic()
            command = [sys.executable, "-m", "vmtest", "verify", "--cold", OBJECT, *selected]
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
            found["verify s"].append(time.monotonic() - began)
            print(", ".join(f"{key} {values[-1]:.2f}" for key, values in found.items()), flush=True)
            session.process.send_signal(signal.SIGCONT)
            session.round()
    finally:
        session.process.send_signal(signal.SIGCONT)
        session.interrupt()
    return found


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--think", type=float, default=30.0, help="seconds before a save")
    parser.add_argument("--kernel", action="append", help="default: the default kernels")
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-watch.json")
    options = smoke.parse(parser, {"samples": 1, "think": 0.0, "kernel": [smoke.KERNEL]})
    settings = configuration.load(PROJECT / "kernels.toml")
    kernels = options.kernel or [k.name for k in settings.kernels if "default" in k.tags]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(PROJECT / "bpf", folder / "bpf")
        # No suites: a watch of an object needs none.
        text = (PROJECT / "kernels.toml").read_text()
        before, _, after = text.partition("[[suite]]")
        objects = after[after.index("[[object]]") :]
        (folder / "kernels.toml").write_text(before + objects)
        found = measure(folder, kernels, options.samples, options.think)
    medians = {key: statistics.median(values) for key, values in found.items()}
    ratio = medians["watch s"] / medians["verify s"]
    load = os.getloadavg()[0]
    words = ", ".join(f"{key} {value:.3g}" for key, value in medians.items())
    print(f"{len(kernels)} kernels: {words}, ratio {ratio:.2f} (load average {load:.1f})")
    print(f"samples: {found}")
    figures: dict[str, Any] = {**medians, "ratio": ratio, "load average": load, "samples": found}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"figures: {options.json}")


if __name__ == "__main__":
    main()

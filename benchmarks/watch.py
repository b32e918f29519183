"""From a save to what every kernel says: ``vmtest watch`` against a command whose guests boot.

    python benchmarks/watch.py [--only loads|tests] [--samples 3] [--think SECONDS]
        [--kernel NAME ...] [--json FILE] [--smoke]

loads: the source of one object is saved under a watch, until it has told what all the kernels say;
then the same source is changed again and ``vmtest verify --cold`` builds and loads the object.
Both compile, load the same object and print their table.  The aim is 0.15 on four kernels.
tests: under a watch of one suite its test file is saved, then an object that it uses, which is
loaded first; each until the first test of any kernel has a result.  Then ``vmtest run --cold`` of
the suite, until its first result and until its end.  The aim is 0.25 of the latter.
Both sides take turns.  A ratio is watch by command, of medians.  Between a verdict and the next
save nothing is done for a while, as when somebody reads and types: meanwhile guests are made
ready.  It says little on a machine that does something else: the load average is printed.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import smoke

from vmtest.config import file as configuration

PROJECT = Path(__file__).parents[1]
OBJECT = "sendmsg"
SUITE = "sendmsg"
WAITS = "waiting for a save"
RESULT = '"event": "test finished"'
LOOK, PATIENCE = 0.02, 600.0
"""Seconds between two looks for a run's first result, and until there must be one."""
BY = {"loads": ("verify s",), "tests": ("run s", "run, first s")}
"""What the watch's seconds are divided by."""


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

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still meanwhile: it is not to take part in what the other side does."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)
        return self.process.returncode


def edit(source: Path, number: int) -> None:
    """Save another ``source``: one constant more or another, so that the object differs."""
    text = source.read_text().partition("\nconst volatile int watched")[0]
    source.write_text(f"{text}\nconst volatile int watched = {number};\n")


def edit_tests(tests: Path, number: int) -> None:
    """Save other ``tests``: another comment at their end."""
    text = tests.read_text().partition("\n# watched")[0]
    tests.write_text(f"{text}\n# watched {number}\n")


def command(folder: Path, words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A vmtest with ``words`` that runs in ``folder``, unheard."""
    return subprocess.Popen(
        [sys.executable, "-m", "vmtest", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
    )


def runs(folder: Path) -> set[Path]:
    """The time lines of the runs in ``folder``."""
    return set(folder.glob(".vmtest/runs/*/events.jsonl"))


def first_result(folder: Path, before: set[Path], process: subprocess.Popen[Any]) -> float:
    """Wait for the first result of a test in a run of ``folder`` that is none of ``before``.

    It is the monotonic time of the look that found it.  Ends this program if ``process``, which is
    to bring it, does not.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for events in runs(folder) - before:
            if RESULT in events.read_text(errors="replace"):
                return time.monotonic()
        time.sleep(LOOK)
    sys.exit(f"no test has a result, and the command's status is {process.poll()}")


def loads(session: Session, folder: Path, selected: Sequence[str], number: int) -> dict[str, float]:
    """One sample of a verdict, in seconds; the guests of ``session`` are ready."""
    source = folder / "bpf" / f"{OBJECT}.bpf.c"
    began = time.monotonic()
    edit(source, 2 * number)
    said = session.round()
    found = {"watch s": time.monotonic() - began}
    if f"verify: {len(selected) // 2} kernel" not in said:
        sys.exit(f"not accepted everywhere:\n{said}")
    with session.stopped():
        edit(source, 2 * number + 1)
        began = time.monotonic()
        if command(folder, ["verify", "--cold", OBJECT, *selected]).wait():
            sys.exit("verify did not accept it")
        found["verify s"] = time.monotonic() - began
    session.round()
    return found


def tests(
    session: Session, folder: Path, selected: Sequence[str], number: int, think: float
) -> dict[str, float]:
    """One sample of a first result, in seconds; the guests of ``session`` are ready."""
    file = folder / "tests" / "suites" / f"test_{SUITE}.py"
    before = runs(folder)
    began = time.monotonic()
    edit_tests(file, number)
    found = {"test saved s": first_result(folder, before, session.process) - began}
    session.round()
    time.sleep(think)
    before = runs(folder)
    began = time.monotonic()
    edit(folder / "bpf" / f"{OBJECT}.bpf.c", number)
    found["object saved s"] = first_result(folder, before, session.process) - began
    session.round()
    with session.stopped():
        before = runs(folder)
        began = time.monotonic()
        run = command(folder, ["run", "--cold", "--suite", SUITE, *selected])
        found["run, first s"] = first_result(folder, before, run) - began
        if run.wait():
            sys.exit("the run did not pass")
        found["run s"] = time.monotonic() - began
    return found


def measure(
    folder: Path, what: str, kernels: Sequence[str], samples: int, think: float
) -> dict[str, list[float]]:
    """The samples of ``what`` in seconds; ``think`` seconds lie before each save."""
    selected = [word for name in kernels for word in ("--kernel", name)]
    # A shell that starts this program in the background has it ignored, and the watch would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = ["verify", OBJECT] if what == "loads" else ["--suite", SUITE]
    found: list[dict[str, float]] = []
    session = Session(folder, [*words, *selected])
    try:
        session.round()  # whatever is to be saved is
        for number in range(samples):
            time.sleep(think)
            if what == "loads":
                found.append(loads(session, folder, selected, number))
            else:
                found.append(tests(session, folder, selected, number, think))
            print(", ".join(f"{key} {value:.2f}" for key, value in found[-1].items()), flush=True)
    finally:
        session.interrupt()
    return {key: [sample[key] for sample in found] for key in found[0]}


def project(folder: Path, what: str) -> None:
    """A project in ``folder`` with this one's kernels, objects and, for ``what`` tests, suites."""
    shutil.copytree(PROJECT / "bpf", folder / "bpf")
    text = (PROJECT / "kernels.toml").read_text()
    if what == "tests":
        shutil.copytree(PROJECT / "tests" / "suites", folder / "tests" / "suites")
    else:  # no suites: a watch of an object needs none
        before, _, after = text.partition("[[suite]]")
        text = before + after[after.index("[[object]]") :]
    (folder / "kernels.toml").write_text(text)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("loads", "tests"))
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--think", type=float, default=30.0, help="seconds before a save")
    parser.add_argument("--kernel", action="append", help="default: the default kernels")
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-watch.json")
    options = smoke.parse(parser, {"samples": 1, "think": 0.0, "kernel": [smoke.KERNEL]})
    settings = configuration.load(PROJECT / "kernels.toml")
    kernels = options.kernel or [k.name for k in settings.kernels if "default" in k.tags]
    figures: dict[str, Any] = {}
    for what, commands in BY.items():
        if options.only not in (None, what):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            project(Path(scratch), what)
            found = measure(Path(scratch), what, kernels, options.samples, options.think)
        medians = {key: statistics.median(values) for key, values in found.items()}
        ratios = {
            f"{key} by {by}": value / medians[by]
            for key, value in medians.items()
            for by in commands
            if key not in commands
        }
        load = os.getloadavg()[0]
        words = ", ".join(f"{key} {value:.3g}" for key, value in medians.items())
        said = ", ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items())
        print(f"{what}, {len(kernels)} kernels: {words}; {said} (load average {load:.1f})")
        print(f"samples: {found}")
        figures[what] = {**medians, "ratios": ratios, "load average": load, "samples": found}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"figures: {options.json}")


if __name__ == "__main__":
    main()

"""How many rounds and boots a bisect takes, and whether asking every kernel answers the same.

    python benchmarks/bisected_kernels.py [CASE...] [--jobs 1 2] [--cluster] [--folder DIR]
                                          [--json FILE] [--smoke]

Each case has a program of `tests/bisect/` whose verdict changes between two packaged kernels. It
is bisected with each number of slots, then put to every kernel between the ends; what the first
kernel with the other verdict is has to be the same each time. The kernels are downloaded first
(about 110 MB each), so that the seconds are those of boots. With `--cluster` the slots are workers
of `--on local:N`. Runs and logs stay in the folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import smoke

from vmtest.bisect.journal import JOURNAL
from vmtest.objects.compile import build_all

PROJECT = Path(__file__).parents[1]
PROGRAMS = PROJECT / "tests" / "bisect"
# A busy machine is not to be taken for a kernel that does not boot.
PATIENT = '\n[defaults]\nboot_timeout = "2m"\n'


@dataclass(frozen=True, slots=True)
class Case:
    """``ends`` and ``question`` are words of `vmtest bisect`, ``each`` asks one kernel the same."""

    ends: str
    question: tuple[str, ...]
    each: tuple[str, ...]
    command: tuple[str, ...] = ()


# Linux 6.2 has the file.
PRESENT = ("test", "-e", "/proc/sys/net/ipv4/tcp_plb_enabled")


def of_the_cache(ends: str) -> Case:
    """A case over the kernels that are in the cache anyway, of which there may be two."""
    question = ("--exec", " ".join(PRESENT))
    return Case(f"{ends} --find fixed --cached", question, ("exec",), ("--", *PRESENT))


CHECK = ("--copy", str(PROGRAMS / "tls_in_sockmap.py"))
CASES = {
    "negation": Case(
        "--bad 6.12.111-1 --good 7.3.4 --find fixed",
        ("--verify", "negation.bpf.o:reads"),
        ("verify", "negation.bpf.o"),
    ),
    "callback_load": Case(
        "--good 6.12.90-1 --bad 6.12.117-1",
        ("--verify", "callback_load.bpf.o:sums"),
        ("verify", "callback_load.bpf.o"),
    ),
    "tls_in_sockmap": Case(
        "--good 6.12.90-1 --bad 6.12.117-1",
        (*CHECK, "--exec", "python3 tls_in_sockmap.py"),
        ("exec", *CHECK),
        ("--", "python3", "tls_in_sockmap.py"),
    ),
    "tcp_plb_enabled": of_the_cache("--bad 5.10 --good 7.3.4"),
}
SMOKE = {"tcp_plb_enabled": of_the_cache("--bad 6.1 --good 6.12")}


def vmtest(folder: Path, *words: str) -> float:
    """Run the real command in ``folder``; its seconds."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "vmtest", *words], cwd=folder, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"vmtest {' '.join(words)}: ended with {done.returncode}")
    return time.monotonic() - began


def bisected(
    folder: Path, case: Case, jobs: int, cluster: bool
) -> tuple[dict[str, Any], list[str]]:
    """The figures of one bisect, and the package versions that it was about."""
    slots = ("--on", f"local:{jobs}") if cluster else ("--jobs", str(jobs))
    # Every failure counts when each kernel is asked, too.
    words = ("bisect", *case.ends.split(), *case.question, "--any-failure", *slots)
    seconds = vmtest(folder, *words)
    text = (folder / ".vmtest" / "latest" / JOURNAL).read_text()
    events = [json.loads(line) for line in text.splitlines()]
    question, answer = events[0], events[-1]
    versions = {point["name"]: point["version"] for point in question["points"]}
    figures = {
        "slots": jobs,
        "kernels": len(versions),
        "rounds": sum(event["event"] == "round" for event in events),
        "booted": len({e["kernel"] for e in events if e["event"] == "told"}),
        "change": [versions[answer["last"]], versions[answer["first"]]],
        "never booted": [versions[name] for name in answer["unasked"]],
        "seconds": round(seconds),
    }
    return figures, list(versions.values())


def exhaustive(folder: Path, case: Case, versions: Sequence[str], jobs: int) -> dict[str, Any]:
    """The same of asking every kernel; ``changes`` are all neighbours that differ.

    Those that did not come up (a boot that took too long on a busy machine) tell nothing.
    """
    kernels = [word for version in versions for word in ("--kernel", f"debian/{version}")]
    command = (*case.each, *kernels, "--jobs", str(jobs), *case.command)
    seconds = vmtest(folder, *command)
    matrix = json.loads((folder / ".vmtest" / "latest" / "matrix.json").read_text())
    status = {kernel["kernel"]: kernel["status"] for kernel in matrix["kernels"]}
    silent = [v for v in versions if status[v] in ("BOOT_FAILED", "INFRA_ERROR")]
    order = [(v, status[v] == "PASSED") for v in versions if v not in silent]
    changes = [
        [one, other]
        for (one, before), (other, after) in itertools.pairwise(order)
        if before != after
    ]
    return {
        "slots": jobs,
        "booted": len(versions),
        "did not come up": silent,
        "changes": changes,
        "seconds": round(seconds),
    }


def main() -> None:
    """Measure, print, save; ends with status 1 when answers differ or rounds are too many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = smoke.parse(parser, {"cases": list(SMOKE), "jobs": [1]})
    cases = SMOKE if options.smoke else CASES
    if unknown := set(options.cases) - set(cases):
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="vmtest-bisect-"))
    build_all(PROGRAMS, folder)
    matrix = (PROJECT / "vmtest" / "default_kernels.toml").read_text()
    (folder / "kernels.toml").write_text(matrix + PATIENT)
    print(f"runs and logs: {folder}", flush=True)
    found, good = {}, True
    for name in options.cases or cases:
        case = cases[name]
        tries = [bisected(folder, case, jobs, options.cluster) for jobs in options.jobs]
        every = exhaustive(folder, case, tries[0][1], max(options.jobs))
        found[name] = {"bisected": [figures for figures, _ in tries], "every kernel": every}
        for figures, versions in tries:
            most = math.ceil(math.log2(len(versions))) + 2
            same = every["changes"] == [figures["change"]]
            good = good and same and figures["rounds"] <= most
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

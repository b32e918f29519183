"""What a request and a connect cost: direct, through proxies, through the programs of bpf/.

    python benchmarks/datapath.py [--kernel 6.12] [--rounds 15] [--requests 1000]
                                  [--connections 200] [--size 100] [--counted 1000]
                                  [--json FILE] [--smoke]

One VM, one vCPU.  A client and a server in C (benchmarks/guest/, compiled here by
clang, statically), and between them: nothing; one user-space proxy; two, as with a
sidecar on both sides; connect4, which rewrites a service's address; all programs of
bpf/ that a cgroup runs.  Client and proxies are dialled directly: the guest has no
iptables.  The ways take turns; a figure is the median of the rounds.

Context switches, system calls, segments and runs of programs are counted; the kernel
needs CONFIG_HIST_TRIGGERS (Debian's from 6.1 on).  Latency under emulation (TCG) tells
only how the ways compare.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import smoke

from vmtest.config import file as configuration
from vmtest.config import select
from vmtest.kernels import Store, default_cache, source_for
from vmtest.matrix.payload import in_guest_environment, install
from vmtest.model.kernels import KernelImage
from vmtest.model.project import Config
from vmtest.objects.compile import build_all
from vmtest.rootfs.images import GUEST_PYTHON
from vmtest.rootfs.prepare import prepare_root
from vmtest.suites.payload import Payload, pack_suites
from vmtest.vm import accel
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import SshSession

PROJECT = Path(__file__).parents[1]
GUEST = PROJECT / "benchmarks" / "guest"
FOLDER = "/tmp/datapath"
PROGRAMS = ("server", "proxy", "client")
SCRIPT = "datapath_guest.py"

Json = dict[str, Any]


def compiled(folder: Path) -> dict[str, bytes]:
    """The guest's programs by name: static, because the guest's libc is not the host's."""
    for name in PROGRAMS:
        argv = ["clang", "-O2", "-static", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*argv, str(GUEST / f"{name}.c"), "-o", str(folder / name)], check=True)
    return {name: (folder / name).read_bytes() for name in PROGRAMS}


def measure(
    session: SshSession, payload: Payload, programs: dict[str, bytes], numbers: list[int]
) -> list[Json]:
    """The lines that the guest's script prints."""
    install(session, payload.archive, lambda: None)
    session.run(["mkdir", FOLDER])
    for name, content in programs.items():
        session.put(content, f"{FOLDER}/{name}")
        session.run(["chmod", "755", f"{FOLDER}/{name}"])
    # Beside the suites, whose layouts and mesh it uses.
    script = f"{GUEST_ROOT}/suites/{SCRIPT}"
    session.put((GUEST / SCRIPT).read_bytes(), script)
    done = session.run(
        in_guest_environment([GUEST_PYTHON, script, FOLDER, *map(str, numbers)]),
    )
    if done.status != 0:
        sys.exit(f"the guest's script failed:\n{done.stderr.decode()[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary(lines: list[Json]) -> dict[str, dict[str, Json]]:
    """By mode and way: the medians of the rounds, and the counts.

    An operation's context switches: "switches" of the processes, "involuntary"
    among them, "system switches".  "p50" and "p99" of its latency, in us; "p50 of
    each round".
    """
    counts: dict[tuple[str, str], Json] = {}
    rounds: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for line in lines:
        key = line["mode"], line["way"]
        if "counts" in line:
            counts[key] = line["counts"]
        else:
            rounds[key].append(line["client"])
    told: dict[str, dict[str, Json]] = defaultdict(dict)
    for (mode, way), measured in rounds.items():
        percentiles = [statistics.quantiles(one["ns"], n=100) for one in measured]
        operations = len(measured[0]["ns"])
        told[mode][way] = {
            "switches": statistics.median(
                sum(one["voluntary"]) + sum(one["involuntary"]) for one in measured
            )
            / operations,
            "involuntary": statistics.median(sum(one["involuntary"]) for one in measured)
            / operations,
            "system switches": statistics.median(one["system_switches"] for one in measured)
            / operations,
            "p50": statistics.median(cut[49] for cut in percentiles) / 1000,
            "p99": statistics.median(cut[98] for cut in percentiles) / 1000,
            "p50 of each round": [cut[49] / 1000 for cut in percentiles],
            **counts[mode, way],
        }
    return told


def table(ways: dict[str, Json]) -> str:
    """A Markdown table of one mode, each way against the first."""
    first = next(iter(ways.values()))
    rows = [
        "| way | switches | involuntary | whole machine | system calls | segments "
        "| p50 us | ratio | p99 us | ratio |",
        "|---" * 10 + "|",
    ]
    for name, of in ways.items():
        calls = sum(of["system calls"].values())
        cells = [
            name,
            f"{of['switches']:.2f}",
            f"{of['involuntary']:.2f}",
            f"{of['system switches']:.2f}",
            f"{calls:.2f}",
            f"{of['segments']['sent']:.2f}",
            f"{of['p50']:.0f}",
            f"{of['p50'] / first['p50']:.2f}",
            f"{of['p99']:.0f}",
            f"{of['p99'] / first['p99']:.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def runs(ways: dict[str, Json]) -> str:
    """How often each program ran in one operation, of the ways that have any."""
    return "\n".join(
        f"{name}: " + ", ".join(f"{program} {number:.2f}" for program, number in of["runs"].items())
        for name, of in ways.items()
        if of["runs"]
    )


def chosen_image(settings: Config, name: str, store: Store) -> KernelImage:
    """The kernel called ``name``, fetched."""
    (kernel,) = select.select_kernels(settings.kernels, [name], {})
    source = source_for(kernel, settings.archives)
    return source.fetch(source.resolve(kernel, store), store)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=1000, help="a round and way")
    parser.add_argument("--connections", type=int, default=200, help="a round and way")
    parser.add_argument("--size", type=int, default=100, help="bytes of a request and its answer")
    parser.add_argument(
        "--counted", type=int, default=1000, help="operations whose system calls are counted"
    )
    parser.add_argument(
        "--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-datapath.json"
    )
    options = smoke.parse(
        parser,
        {
            "kernel": smoke.KERNEL,
            "rounds": 1,
            "requests": 10,
            "connections": 5,
            "size": 10,
            "counted": 10,
        },
    )

    settings = configuration.load(PROJECT / "kernels.toml")
    cache = default_cache()
    image = chosen_image(settings, options.kernel, Store(cache))
    root = prepare_root(settings, cache)
    probe = accel.choose(image.image, cache)
    load = os.getloadavg()
    build_all(PROJECT / "bpf", PROJECT / "build")
    objects = {made.name: made.path for made in settings.objects}
    payload = pack_suites(settings.suites, settings.suites, objects)
    with tempfile.TemporaryDirectory() as folder:
        programs = compiled(Path(folder))
        spec = MachineSpec(image, root, probe, Path(folder) / "console.log")
        with Machine(spec) as machine:
            session = machine.connect(300)
            lines = measure(
                session,
                payload,
                programs,
                [
                    options.rounds,
                    options.requests,
                    options.connections,
                    options.size,
                    options.counted,
                ],
            )
            session.close()
    told = summary(lines)
    about = {
        "host": platform.platform(),
        "cpus": os.cpu_count(),
        "load before": load,
        "accelerator": probe.accelerator.value,
        "kernel": image.release,
        "rounds": options.rounds,
        "size": options.size,
    }
    print(f"{image.release}, {probe.accelerator}, 1 vCPU, {options.rounds} rounds")
    for mode, ways in told.items():
        print(f"\n{mode}, each:\n\n{table(ways)}\n\n{runs(ways)}")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps({**about, "figures": told, "lines": lines}) + "\n")
    print(f"\nraw samples: {options.json}")


if __name__ == "__main__":
    main()

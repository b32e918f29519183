"""One kernel's guest, started again and again in one process: what grows, and what repeats.

    python benchmarks/soak.py [--times 500] [--cold] [--kernel NAME] [--json FILE] [--smoke]

Each guest is restored from one snapshot (``--cold``: booted), asked for what must be its own and
ended.  It ends with 1 when two guests have something in common that they must not (host key, boot
id, random numbers), when a clock is off by over 5 s, or when a restore had to boot.
Printed a few times, and compared at the end: resident memory, descriptors and threads of this
process, processes below it, vmtest's folders in TMPDIR.  The seconds to a session say little on a
machine that does something else: the load average is printed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import smoke

from vmtest.config import file as configuration
from vmtest.kernels import Store, default_cache, source_for
from vmtest.rootfs.prepare import prepare_root
from vmtest.vm import accel
from vmtest.vm.machine import MachineSpec
from vmtest.vm.restore import Snapshots, running_guest

PROJECT = Path(__file__).parents[1]
OWN = {
    "host key": "cat /run/vmtest/host_key",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "random numbers": "head -c 16 /dev/urandom | od -An -tx1",
}
CLOCK = "date +%s"
CLOCK_LIMIT = 5.0  # seconds; asking over SSH takes part of one on a slow host
LOOKS = 5


def children(pid: int) -> int:
    """How many processes descend from ``pid``."""
    found = 0
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        below = [int(child) for child in task.read_text().split()]
        found += len(below) + sum(children(child) for child in below)
    return found


def size() -> dict[str, int]:
    """What this process takes of the host."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident MiB": pages * os.sysconf("SC_PAGE_SIZE") >> 20,
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": threading.active_count(),
        "processes": children(os.getpid()),
        "folders": len(list(Path(tempfile.gettempdir()).glob("vmtest-*"))),
    }


class Guests:
    """The guests of ``spec``, one after the other, and all that they said of themselves."""

    def __init__(self, spec: MachineSpec, cache: Path | None) -> None:
        self.seconds: list[float] = []
        self.clocks: list[float] = []
        self._spec = spec
        self._cache = cache
        self._said: dict[str, set[bytes]] = {name: set() for name in OWN}

    def start(self) -> bool:
        """Start one and end it; whether it was restored.  Ends this program if it repeats."""
        snapshots = Snapshots(self._cache)
        began = time.monotonic()
        with running_guest(
            self._spec, snapshots, 600.0, 10.0, lambda machine, stack: None
        ) as guest:
            self.seconds.append(time.monotonic() - began)
            for name, command in OWN.items():
                said = guest.session.run(["sh", "-c", command]).stdout
                if not said or said in self._said[name]:
                    sys.exit(f"guest {len(self.seconds)} has the {name} of an earlier one")
                self._said[name].add(said)
            clock = int(guest.session.run(["sh", "-c", CLOCK]).stdout)
            self.clocks.append(abs(time.time() - clock - 0.5))
            if self.clocks[-1] > CLOCK_LIMIT:
                sys.exit(f"guest {len(self.seconds)}: its clock is off by {self.clocks[-1]:.1f} s")
            guest.session.close()
        if not guest.warm:
            snapshots.publish()
        snapshots.close()
        if snapshots.notes:
            sys.exit(f"guest {len(self.seconds)}: {'; '.join(snapshots.notes)}")
        return guest.warm


def main() -> None:
    """Start guests, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--kernel", default=smoke.KERNEL)
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-soak.json")
    options = smoke.parse(parser, {"times": 2})
    settings = configuration.load(PROJECT / "kernels.toml")
    (kernel,) = [kernel for kernel in settings.kernels if kernel.name == options.kernel]
    cache = default_cache()
    source, store = source_for(kernel, settings.archives), Store(cache)
    image = source.fetch(source.resolve(kernel, store), store)
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch)
        log = own / "console.log"
        spec = MachineSpec(
            image, prepare_root(settings, cache), accel.choose(image.image, cache), log
        )
        guests = Guests(spec, None if options.cold else own / "cache")
        guests.start()  # saved, and what is imported or kept once is
        looks = {0: size()}
        for number in range(1, options.times + 1):
            if guests.start() is options.cold:
                sys.exit(f"guest {number} was {'restored' if options.cold else 'booted'}")
            if number % max(1, options.times // LOOKS) == 0:
                looks[number] = size()
                words = ", ".join(f"{name} {value}" for name, value in looks[number].items())
                print(f"{number}: {words} (load average {os.getloadavg()[0]:.1f})", flush=True)
    first, last = looks[0], looks[max(looks)]
    grown = {name: last[name] - first[name] for name in first}
    median, longest = statistics.median(guests.seconds[1:]), max(guests.seconds[1:])
    print(f"{options.times} guests: grown by {grown}")
    print(f"to a session: median {median:.2f} s, longest {longest:.2f} s")
    print(f"largest error of a clock: {max(guests.clocks):.1f} s")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    figures = {"looks": looks, "seconds": guests.seconds, "clocks": guests.clocks}
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"figures: {options.json}")


if __name__ == "__main__":
    main()

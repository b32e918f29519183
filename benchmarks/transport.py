"""The SSH transport under load: does it ever stall, and how fast is it?

    python benchmarks/transport.py [--round-trips 50000] [--megabytes 200] [--json FILE]
                                   [--kernel NAME...] [--cpus 1 2] [--smoke]

50,000 requests and answers over one session, on 1 and on 2 vCPUs, on the oldest
and the newest kernel, none longer than 2 s; then 200 MB each way with equal
digests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import smoke

from vmtest.config import file as configuration
from vmtest.kernels import Store, default_cache, source_for
from vmtest.rootfs.prepare import prepare_root
from vmtest.vm import accel
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import SshSession

PROJECT = Path(__file__).parents[1]
STALL = 2.0


def round_trips(session: SshSession, count: int) -> dict[str, float]:
    """``count`` small requests to ``cat`` and back; ends the program at a stall."""
    stream = session.stream(["cat"])
    slowest, began = 0.0, time.monotonic()
    for number in range(count):
        sent = b"%d\n" % number
        start = time.monotonic()
        stream.send(sent)
        got = b""
        while not got.endswith(b"\n"):
            piece = stream.receive(STALL)
            got += piece[0] if piece else b""
            if time.monotonic() - start > STALL:
                sys.exit(f"round trip {number} stalled for {STALL} s")
        slowest = max(slowest, time.monotonic() - start)
    spent = time.monotonic() - began
    return {"count": count, "per second": count / spent, "slowest seconds": slowest}


def bulk(session: SshSession, megabytes: int) -> dict[str, float]:
    """``megabytes`` of random bytes there and back by SFTP; ends the program when they differ."""
    data = os.urandom(megabytes << 20)
    start = time.monotonic()
    session.put(data, "/tmp/blob")
    put = time.monotonic() - start
    digest = session.run(["sha256sum", "/tmp/blob"]).stdout.decode().split()[0]
    start = time.monotonic()
    back = session.get("/tmp/blob")
    get = time.monotonic() - start
    if not (digest == hashlib.sha256(data).hexdigest() == hashlib.sha256(back).hexdigest()):
        sys.exit("the bytes that came are not the bytes that were sent")
    return {"megabytes": megabytes, "put MB/s": megabytes / put, "get MB/s": megabytes / get}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-trips", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--kernel", nargs="+", default=["5.10", "backports"])
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-transport.json"
    )
    options = smoke.parse(
        parser, {"round_trips": 20, "megabytes": 1, "kernel": [smoke.KERNEL], "cpus": [1]}
    )
    settings = configuration.load(PROJECT / "kernels.toml")
    kernels = [k for k in settings.kernels if k.name in options.kernel]
    cache = default_cache()
    store, root = Store(cache), prepare_root(settings, cache)
    measured = {}
    for kernel in kernels:
        source = source_for(kernel, settings.archives)
        image = source.fetch(source.resolve(kernel, store), store)
        probe = accel.choose(image.image, cache)
        for cpus in options.cpus:
            with tempfile.TemporaryDirectory() as folder:
                log = Path(folder) / "console.log"
                spec = MachineSpec(image, root, probe, log, memory_mib=1024)
                with Machine(replace(spec, cpus=cpus)) as machine:
                    session = machine.connect(300)
                    told = {
                        **round_trips(session, options.round_trips),
                        **bulk(session, options.megabytes),
                    }
                    session.close()
            name = f"{image.release}, {cpus} vCPU, {probe.accelerator}"
            measured[name] = told
            shown = ", ".join(f"{key} {value:.3g}" for key, value in told.items())
            print(f"{name}: {shown}", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"figures: {options.json}")


if __name__ == "__main__":
    main()

"""What `vmtest verify` adds to the bare load of a program, and how long it takes on a matrix.

    python benchmarks/verify.py [--kernel 6.12] [--programs 100] [--rounds 12] [--json FILE]
    python benchmarks/verify.py --matrix [--programs 100] [--jobs 2] [--json FILE]
    python benchmarks/verify.py [--matrix] --smoke

The first: in one guest, in one process, alternating, over the objects of `bpf/`: the bare sequence
(open the object anew, autoload one program, load it at log level 4, close; recording nothing), and
what the guest's loader does of a program (announced to the host over the guest's SSH, answered,
loaded, measured, told). The figure is the median of the rounds' ratios; beside it stands the ratio
of each object's shortest times.

The second: `vmtest verify` of that many programs on the default kernels. The figure is its wall
time by the larger of its slowest kernel and the sum of the kernels by the VM slots, boots included
in all three.

Neither says much on a machine that does something else: the load average is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import smoke

from vmtest.config import file as configuration
from vmtest.kernels import Store, default_cache, source_for
from vmtest.matrix.payload import in_guest_environment
from vmtest.objects.compile import build_all
from vmtest.objects.inspect import inspect
from vmtest.rootfs.prepare import prepare_root
from vmtest.vm import accel
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import Session

PROJECT = Path(__file__).parents[1]
AIM, MATRIX_AIM = 1.15, 1.3

IN_GUEST = """
import ctypes, os, pathlib, statistics, sys, time
from vmtest.guest import libbpf
from vmtest.guest.loader.main import GROUP, Verification
from vmtest.guest.wire import Wire

count, rounds, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
lib = libbpf.library()
libbpf.raise_memlock_limit()
buffer = ctypes.create_string_buffer(1 << 24)


def bare(path, wanted):
    opened = lib.bpf_object__open_file(path, None)
    program, index = lib.bpf_object__next_program(opened, None), 0
    while program:
        lib.bpf_program__set_autoload(program, index == wanted)
        if index == wanted:
            lib.bpf_program__set_log_level(program, 4)
            lib.bpf_program__set_log_buf(program, buffer, len(buffer))
        program, index = lib.bpf_object__next_program(opened, program), index + 1
    result = lib.bpf_object__load(opened)
    lib.bpf_object__close(opened)
    return result


wire = Wire.on_standard_streams()
verification = Verification({"objects": []}, folder, wire)
groups = []
for path in sorted(folder.glob("*.o")):
    loader = verification.open({"key": path.name, "file": path.name})
    # As Verification does it: the programs of an object that was refused go one by one.
    size = GROUP if loader.whole().verdict == "accepted" else 1
    taken = [
        (place, name)
        for place, name in enumerate(loader.programs)
        if bare(os.fsencode(path), place) == 0
    ]
    groups += [(path, loader, taken[n : n + size]) for n in range(0, len(taken), size)]
distinct = sum(len(taken) for *_, taken in groups)
chosen, left = [], count
while left:
    for path, loader, taken in groups:
        chosen.append((path, loader, taken[:left]))
        left -= len(chosen[-1][2])
        if not left:
            break
spent = [([], []) for _ in chosen]
for turn in range(rounds):
    for n, (path, loader, taken) in enumerate(chosen):
        for ours in (False, True) if (n + turn) % 2 else (True, False):
            began = time.perf_counter()
            if ours:
                verification.load(loader, path.name, [name for _, name in taken])
            else:
                for place, _ in taken:
                    bare(os.fsencode(path), place)
            spent[n][ours].append(time.perf_counter() - began)
walls = [[sum(pair[ours][turn] for pair in spent) for turn in range(rounds)] for ours in (0, 1)]
shortest = [sum(min(pair[ours]) for pair in spent) for ours in (0, 1)]
wire.send("measured", figures={
    "programs": count,
    "distinct programs": distinct,
    "announcements": len(chosen),
    "bare ms a program": 1000 * statistics.median(walls[0]) / count,
    "verify ms a program": 1000 * statistics.median(walls[1]) / count,
    "ratio": statistics.median(ours / plain for plain, ours in zip(*walls)),
    "ratio of the shortest": shortest[1] / shortest[0],
})
"""


def answer(session: Session, argv: list[str], log: Path) -> dict[str, float]:
    """The host's part: every line is on disk before an announcement is answered."""
    stream = session.stream(in_guest_environment(argv))
    rest, errors, figures = b"", b"", {}
    with log.open("wb") as file:
        while (got := stream.receive(1.0)) is not None:
            errors += got[1]
            *lines, rest = (rest + got[0]).split(b"\n")
            for line in lines:
                event = json.loads(line)
                file.write(line + b"\n")
                if event["event"] == "start":
                    file.flush()
                    stream.send(b"+")
                elif event["event"] == "measured":
                    figures = event["figures"]
    if stream.status() or not figures:
        sys.exit(errors.decode())
    return figures


def one_guest(name: str, programs: int, rounds: int) -> tuple[str, dict[str, float]]:
    """What was measured, and where."""
    settings = configuration.load(PROJECT / "kernels.toml")
    (kernel,) = (k for k in settings.kernels if k.name == name)
    cache = default_cache()
    source, store = source_for(kernel, settings.archives), Store(cache)
    image = source.fetch(source.resolve(kernel, store), store)
    probe = accel.choose(image.image, cache)
    with tempfile.TemporaryDirectory() as scratch:
        objects = build_all(PROJECT / "bpf", Path(scratch) / "objects")
        root = prepare_root(settings, cache)
        spec = MachineSpec(image, root, probe, Path(scratch) / "console.log", memory_mib=1024)
        with Machine(spec) as machine:
            session = machine.connect(300)
            folder = f"{GUEST_ROOT}/objects"
            session.run(["mkdir", "-p", f"{GUEST_ROOT}/vmtest/guest/loader", folder])
            session.put(b"", f"{GUEST_ROOT}/vmtest/__init__.py")
            guest = PROJECT / "vmtest" / "guest"
            for path in (*guest.glob("*.py"), *guest.glob("loader/*.py")):
                name = path.relative_to(PROJECT)
                session.put(path.read_bytes(), f"{GUEST_ROOT}/{name}")
            for path in objects:
                session.put(path.read_bytes(), f"{folder}/{path.name.removesuffix('.bpf.o')}.o")
            script = f"{GUEST_ROOT}/benchmark.py"
            session.put(IN_GUEST.encode(), script)
            argv = ["python3", script, str(programs), str(rounds), folder]
            figures = answer(session, argv, Path(scratch) / "events.jsonl")
            session.close()
    return f"{image.release}, {probe.accelerator}", figures


def whole_matrix(
    programs: int, jobs: int, kernels: Sequence[str] = ()
) -> tuple[str, dict[str, float]]:
    """``vmtest verify`` of copies of our objects, as many as have that many programs.

    On ``kernels``, those of the default matrix without any.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, left, copies = Path(scratch) / "many", programs, 0
        folder.mkdir()
        built = build_all(PROJECT / "bpf", Path(scratch) / "objects")
        while left > 0:
            for path in built:
                count = sum(p.type != "function" for p in inspect(path).programs)
                if 0 < count <= left:
                    (folder / f"{copies:03d}-{path.name}").write_bytes(path.read_bytes())
                    left -= count
                    copies += 1
        argv = [sys.executable, "-m", "vmtest", "verify", str(folder), "--fail-on", "nothing"]
        argv += ["--jobs", str(jobs), "--json", f"{scratch}/matrix.json"]
        argv += [word for name in kernels for word in ("--kernel", name)]
        began = time.monotonic()
        subprocess.run(argv, cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
        command = time.monotonic() - began
        matrix: dict[str, Any] = json.loads(Path(scratch, "matrix.json").read_text())
    durations = {kernel["kernel"]: kernel["duration"] for kernel in matrix["kernels"]}
    loaded = [sum(bool(load["program"]) for load in k["loads"]) for k in matrix["kernels"]]
    bound = max([*durations.values(), sum(durations.values()) / jobs])
    return f"{len(durations)} kernels, {jobs} VMs at once", {
        "programs": min(loaded),
        "objects": copies,
        **{f"s {name}": seconds for name, seconds in durations.items()},
        "wall s": command,
        "bound s": bound,
        "ratio": command / bound,
    }


def main() -> None:
    """Measure, print, save; ends with status 1 when the ratio is over the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--matrix", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-verify.json")
    options = smoke.parse(parser, {"kernel": smoke.KERNEL, "programs": 4, "rounds": 1, "jobs": 1})
    before = os.getloadavg()[0]
    if options.matrix:
        kernels = [options.kernel] if options.smoke else []
        name, measured = whole_matrix(options.programs, options.jobs, kernels)
    else:
        name, measured = one_guest(options.kernel, options.programs, options.rounds)
    measured["load average before"] = before
    print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in measured.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({name: measured}, indent=1) + "\n")
    print(f"figures: {options.json}")
    aim = MATRIX_AIM if options.matrix else AIM
    if measured["ratio"] > aim and not options.smoke:
        sys.exit(f"the ratio is over {aim}")


if __name__ == "__main__":
    main()

"""What `vmtest verify` adds to the bare load of a program.

    python benchmarks/verify.py [--kernel 6.12] [--programs 100] [--rounds 10] [--json FILE]

In one guest, in one process, alternating: the bare sequence (open the object anew, autoload one
program, load it at log level 4, close; recording nothing), and what the guest's loader does of a
program (announced, answered, loaded, measured, told as a JSON line). The figure is the ratio of
the sums over all programs; each program's shortest of the rounds counts, because an emulated
guest on a busy machine is noisy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from vmtest import config as configuration
from vmtest.guestimage import prepare_root
from vmtest.kernels import Store, default_cache, source_for
from vmtest.objects import build_all
from vmtest.suites import GUEST_ROOT, in_guest_environment
from vmtest.vm import accel
from vmtest.vm.machine import Machine, MachineSpec

PROJECT = Path(__file__).parents[1]
AIM = 1.15

IN_GUEST = """
import ctypes, json, os, pathlib, sys, time
from vmtest.guest import libbpf
from vmtest.guest.verify import Verification
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


# The host: a process that reads every line and answers each start.
told, tell = os.pipe()
answers, answer = os.pipe()
if os.fork() == 0:
    os.close(tell)
    while data := os.read(told, 1 << 14):
        if b'{"event": "start"' in data:
            os.write(answer, b"+")
    os._exit(0)
verification = Verification({"objects": []}, folder, Wire(tell, answers))

programs = []
for path in sorted(folder.glob("*.o")):
    loader = verification.open({"key": path.name, "file": path.name})
    for index, name in enumerate(loader.programs if loader else ()):
        if bare(os.fsencode(path), index) == 0:
            programs.append((path, loader, index, name))
chosen = [programs[n % len(programs)] for n in range(count)]
best = [[float("inf")] * 2 for _ in chosen]
for turn in range(rounds):
    for n, (path, loader, index, name) in enumerate(chosen):
        for ours in (False, True) if (n + turn) % 2 else (True, False):
            if not ours:
                lib.libbpf_set_print(None)
            began = time.perf_counter()
            if ours:
                verification.load(loader, path.name, name)
            else:
                bare(os.fsencode(path), index)
            spent = time.perf_counter() - began
            if not ours:
                lib.libbpf_set_print(libbpf.print_callback)
            best[n][ours] = min(best[n][ours], spent)
plain, full = (sum(pair[ours] for pair in best) for ours in (0, 1))
print(json.dumps({
    "programs": count,
    "distinct programs": len(programs),
    "bare ms a program": 1000 * plain / count,
    "verify ms a program": 1000 * full / count,
    "ratio": full / plain,
}))
"""


def main() -> None:
    """Measure, print, save; ends with status 1 when the ratio is over the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-verify.json")
    options = parser.parse_args()
    settings = configuration.load(PROJECT / "kernels.toml")
    (kernel,) = (k for k in settings.kernels if k.name == options.kernel)
    cache = default_cache()
    source, store = source_for(kernel, settings.archives), Store(cache)
    image = source.fetch(source.resolve(kernel, store), store)
    probe = accel.choose(image.image, cache)
    with tempfile.TemporaryDirectory() as scratch:
        objects = [
            path
            for sources in (PROJECT / "bpf", PROJECT / "tests" / "verify")
            for path in build_all(sources, Path(scratch) / sources.name)
            # A minute of emulation each time, and refused in the end.
            if path.name != "instruction_limit.bpf.o"
        ]
        root = prepare_root(settings, cache)
        spec = MachineSpec(image, root, probe, Path(scratch) / "console.log", memory_mib=1024)
        with Machine(spec) as machine:
            session = machine.connect(300)
            folder = f"{GUEST_ROOT}/objects"
            session.run(["mkdir", "-p", f"{GUEST_ROOT}/vmtest/guest", folder])
            session.put(b"", f"{GUEST_ROOT}/vmtest/__init__.py")
            for path in (PROJECT / "vmtest" / "guest").glob("*.py"):
                session.put(path.read_bytes(), f"{GUEST_ROOT}/vmtest/guest/{path.name}")
            for path in objects:
                session.put(path.read_bytes(), f"{folder}/{path.name.removesuffix('.bpf.o')}.o")
            numbers = [str(options.programs), str(options.rounds)]
            argv = in_guest_environment(["python3", "-", *numbers, folder])
            done = session.run(argv, stdin=IN_GUEST.encode())
            session.close()
    if done.status:
        sys.exit(done.stderr.decode())
    measured = json.loads(done.stdout)
    name = f"{image.release}, {probe.accelerator}"
    print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in measured.items()))
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps({name: measured}, indent=1) + "\n")
    print(f"figures: {options.json}")
    if measured["ratio"] > AIM:
        sys.exit(f"the ratio is over {AIM}")


if __name__ == "__main__":
    main()

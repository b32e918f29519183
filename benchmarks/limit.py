"""How far vmtest is from what cannot be undercut: both sides in one run.

    python benchmarks/limit.py [--samples 3] [--kernel NAME ...] [--suite NAME ...]
                               [-k EXPRESSION] [--only boot|matrix] [--json FILE] [--smoke]

boot: per kernel, from nothing to an authenticated SSH session, booted and restored, against bare
    QEMU with the same kernel, memory and firmware, no devices but a serial port, and an initramfs
    with one program, until that program says that it runs (``guest/first.c``);
matrix: ``vmtest run`` on all kernels against the time of a bare ``python -m pytest`` with the same
    suites in a guest of each, one after the other, the sum divided by the VM slots.  Starting
    pytest, collecting and the tests are in both; booting, copying and reporting only in the first.

A ratio is vmtest by the limit, of medians; the aim for the matrix is 1.15.  It says little on a
machine that does something else: the load average is printed.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import smoke

from vmtest.config import file as configuration
from vmtest.config import select
from vmtest.kernels import Store, default_cache, source_for
from vmtest.matrix.payload import (
    GUEST_ROOT,
    PYTEST_SIDE,
    guest_environment,
    in_guest_environment,
    install,
)
from vmtest.matrix.slots import memory_available_mib, slots
from vmtest.model.kernels import Accelerator, Kernel, KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.rootfs.prepare import prepare_root
from vmtest.suites.payload import Payload
from vmtest.suites.task import SuitesTaskFactory
from vmtest.vm import accel
from vmtest.vm.accel import Probe
from vmtest.vm.machine import MachineSpec
from vmtest.vm.qemu import QEMU
from vmtest.vm.restore import Snapshots, Started, running_guest

PROJECT = Path(__file__).parents[1]
SAYS = b"first instruction of init"
MEMORY_MIB = 1024


def cpio(name: str, data: bytes) -> bytes:
    """An archive of one executable file for an initramfs (newc, from initramfs' documentation)."""

    def entry(path: str, mode: int, content: bytes) -> bytes:
        numbers = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + path.encode() + b"\0"
        head += bytes(-len(head) % 4)
        return head + content + bytes(-len(content) % 4)

    return entry(name, 0o100755, data) + entry("TRAILER!!!", 0, b"")


def first_init(folder: Path) -> Path:
    """An initramfs whose only program is ``guest/first.c``."""
    program = folder / "init"
    source = PROJECT / "benchmarks" / "guest" / "first.c"
    flags = ["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
    subprocess.run(["clang", *flags, "-o", str(program), str(source)], check=True)
    archive = folder / "initramfs"
    # The kernel opens /dev/console for init where there is none by itself.
    archive.write_bytes(cpio("init", program.read_bytes()))
    return archive


def bare_seconds(image: KernelImage, initramfs: Path, probe: Probe) -> float:
    """Seconds from starting bare QEMU until the program in ``initramfs`` says that it runs."""
    cpu = "host" if probe.accelerator is Accelerator.KVM else "max"
    argv = [QEMU, "-machine", f"q35,accel={probe.accelerator}", "-cpu", cpu, "-nodefaults"]
    argv += ["-m", str(MEMORY_MIB), "-display", "none", "-serial", "stdio", "-no-reboot"]
    argv += ["-kernel", str(image.image), "-initrd", str(initramfs)]
    argv += ["-append", "console=ttyS0 quiet cryptomgr.notests no_timer_check"]
    if probe.firmware:
        argv += ["-bios", probe.firmware]
    began = time.monotonic()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdout is not None
        said = b""
        while SAYS not in said:
            block = os.read(qemu.stdout.fileno(), 65536)
            if not block:
                sys.exit(f"{image.name}: bare QEMU did not come to init:\n{said[-2000:].decode()}")
            said += block
        seconds = time.monotonic() - began
        qemu.kill()
    return seconds


@contextmanager
def started(
    image: KernelImage, root: RootImage, probe: Probe, snapshots: Snapshots
) -> Iterator[tuple[Started, float]]:
    """A guest, and the seconds from nothing to its session."""
    with tempfile.TemporaryDirectory() as scratch:
        spec = MachineSpec(image, root, probe, Path(scratch) / "console.log", MEMORY_MIB)
        began = time.monotonic()
        with running_guest(spec, snapshots, 600.0, 10.0, lambda machine, stack: None) as guest:
            yield guest, time.monotonic() - began
            guest.session.close()


def boots(
    images: Sequence[KernelImage], root: RootImage, probe: Probe, samples: int
) -> dict[str, Any]:
    """Per kernel: booted and restored, by bare QEMU."""
    measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        initramfs = first_init(Path(scratch))
        for image in images:
            kept = Snapshots(Path(scratch) / image.name)
            with started(image, root, probe, kept):
                pass
            kept.publish()
            found: dict[str, list[float]] = {"bare s": [], "booted s": [], "restored s": []}
            for _ in range(samples):
                found["bare s"].append(bare_seconds(image, initramfs, probe))
                for name, snapshots in (("booted s", Snapshots(None)), ("restored s", kept)):
                    with started(image, root, probe, snapshots) as (guest, seconds):
                        if guest.warm is not (snapshots is kept):
                            sys.exit(f"{image.name}: not {name}: {kept.notes}")
                        found[name].append(seconds)
            measured[image.name] = report(f"boot, {image.name}", found, "bare s")
    return measured


def pytest_seconds(payload: Payload, options: Sequence[str], guest: Started, python: str) -> float:
    """Seconds of a bare pytest with the suites of ``payload``, which are in the guest already."""
    install(guest.session, payload.archive, lambda: None)
    paths = [payload.guest_path(suite) for suite in payload.suites]
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    argv += [f"--rootdir={GUEST_ROOT}/suites", *paths]
    environment = guest_environment(payload.pythonpath) | PYTEST_SIDE
    began = time.monotonic()
    done = guest.session.run(in_guest_environment(argv, environment))
    seconds = time.monotonic() - began
    if done.status != 0:
        sys.exit(f"bare pytest failed:\n{done.stdout.decode()[-3000:]}{done.stderr.decode()}")
    return seconds


def run_seconds(selected: Sequence[str]) -> float:
    """Seconds of ``vmtest run``."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "vmtest", "run", *selected], cwd=PROJECT, capture_output=True
    )
    if done.returncode != 0:
        sys.exit(f"vmtest run failed:\n{done.stdout.decode()[-3000:]}")
    return time.monotonic() - began


def report(name: str, found: dict[str, list[float]], limit: str) -> dict[str, Any]:
    """Print medians, and the ratios to that of ``limit``; returns them with the samples."""
    medians = {key: statistics.median(values) for key, values in found.items()}
    load = os.getloadavg()[0]
    words = ", ".join(
        f"{key} {value:.2f}" + ("" if key == limit else f" ({value / medians[limit]:.2f})")
        for key, value in medians.items()
    )
    print(f"{name}: {words} (load average {load:.1f})", flush=True)
    return {"medians": medians, "samples": found, "load average": load}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--kernel", action="append", help="default: the default kernels")
    parser.add_argument("--suite", action="append", dest="suites", default=[])
    parser.add_argument("-k", dest="tests", metavar="EXPRESSION", default="", help="which tests")
    parser.add_argument("--only", choices=["boot", "matrix"])
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-limit.json")
    options = smoke.parse(parser, smoke.ONE_TEST)
    settings = configuration.load(PROJECT / "kernels.toml")
    wanted = options.kernel or [k.name for k in settings.kernels if "default" in k.tags]
    kernels = [kernel for kernel in settings.kernels if kernel.name in wanted]
    cache = default_cache()
    store, images = Store(cache), []
    for kernel in kernels:
        source = source_for(kernel, settings.archives)
        images.append(source.fetch(source.resolve(kernel, store), store))
    root, probe = prepare_root(settings, cache), accel.choose(images[0].image, cache)
    measured: dict[str, Any] = {}
    if options.only != "matrix":
        measured["boot"] = boots(images, root, probe, options.samples)
    if options.only != "boot":
        subprocess.run([sys.executable, "-m", "vmtest", "build"], cwd=PROJECT, check=True)
        measured["matrix"] = matrix(settings, kernels, images, root, probe, options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"figures: {options.json}")


def matrix(
    settings: Config,
    kernels: Sequence[Kernel],
    images: Sequence[KernelImage],
    root: RootImage,
    probe: Probe,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """``vmtest run`` by the bare pytests of all kernels, divided by the slots."""
    suites = select.select_suites(settings.suites, options.suites)
    chosen = ("-k", options.tests) if options.tests else ()
    factory = SuitesTaskFactory(settings, suites, settings.objects)
    at_once = slots(kernels, os.cpu_count() or 1, memory_available_mib())
    selected = [word for kernel in kernels for word in ("--kernel", kernel.name)]
    selected += [word for suite in suites for word in ("--suite", suite.name)]
    found: dict[str, list[float]] = {"limit s": [], "vmtest s": []}
    snapshots = Snapshots(default_cache())
    if not options.smoke:
        run_seconds([*selected, *chosen])  # guests saved, caches filled
    for _ in range(options.samples):
        alone = 0.0
        for image in images:
            payload = factory.task(image).payload
            with started(image, root, probe, snapshots) as (guest, _):
                alone += pytest_seconds(payload, chosen, guest, root.python)
        found["limit s"].append(alone / at_once)
        found["vmtest s"].append(run_seconds([*selected, *chosen]))
    snapshots.close()
    return report(f"matrix of {len(kernels)} kernels, {at_once} at once", found, "limit s")


if __name__ == "__main__":
    main()

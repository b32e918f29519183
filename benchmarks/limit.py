"""How far vmtest is from what cannot be undercut: both sides in one run.

    python benchmarks/limit.py [--samples 3] [--kernel NAME ...] [--suite NAME ...]
                               [-k EXPRESSION] [--only boot|matrix|tests] [--json FILE] [--smoke]

boot: per kernel, from nothing to an authenticated SSH session, booted and restored, against bare
    QEMU with the same kernel, memory and firmware, no devices but a serial port, and an initramfs
    with one program, until that program says that it runs (``guest/first.c``);
matrix: ``vmtest run`` on all kernels against the time of a bare ``python -m pytest`` with the same
    suites in a guest of each, one after the other, the sum divided by the VM slots.  Starting
    pytest, collecting and the tests are in both; booting, copying and reporting only in the first;
tests: what one of EMPTY tests that do nothing takes in ``vmtest run``, all kernels at once, against
    a bare pytest in a guest of the same kernel: milliseconds from one test to the next.

A ratio is vmtest by the limit, of medians; the aim for the matrix is 1.15.  It says little on a
machine that does something else: the load average is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import smoke
import tomlkit

from vmtest.config import file as configuration
from vmtest.config import select
from vmtest.kernels import Store, default_cache, source_for
from vmtest.matrix.payload import PYTEST_SIDE, guest_environment, in_guest_environment, install
from vmtest.matrix.slots import memory_available_mib, slots
from vmtest.model.kernels import Accelerator, Kernel, KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.rootfs.prepare import prepare_root
from vmtest.suites.payload import Payload
from vmtest.suites.task import SuitesTaskFactory
from vmtest.vm import accel
from vmtest.vm.accel import Probe
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.machine import MachineSpec
from vmtest.vm.qemu import QEMU
from vmtest.vm.restore import Snapshots, Started, running_guest

PROJECT = Path(__file__).parents[1]
SAYS = b"first instruction of init"
MEMORY_MIB = 1024
EMPTY = 400
EMPTY_TESTS = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_nothing(number):
    pass
"""


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


def run_seconds(selected: Sequence[str], project: Path = PROJECT) -> float:
    """Seconds of ``vmtest run`` in ``project``."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "vmtest", "run", *selected], cwd=project, capture_output=True
    )
    if done.returncode != 0:
        sys.exit(f"vmtest run failed:\n{done.stdout.decode()[-3000:]}")
    return time.monotonic() - began


def empty_project(folder: Path, count: int) -> Config:
    """A project in ``folder`` with our kernels, and ``count`` tests that do nothing."""
    ours = tomlkit.parse((PROJECT / "kernels.toml").read_text(encoding="utf-8"))
    ours["suite"] = [{"name": "empty", "tests": "tests"}]
    for key in set(ours) - {"schema", "defaults", "guest", "apt", "kernel", "suite"}:
        del ours[key]
    (folder / "tests").mkdir()
    (folder / "tests" / "test_empty.py").write_text(EMPTY_TESTS.format(count=count))
    (folder / "kernels.toml").write_text(tomlkit.dumps(ours), encoding="utf-8")
    return configuration.load(folder / "kernels.toml")


def between(folder: Path) -> dict[str, float]:
    """Per kernel of the latest run in ``folder``: milliseconds from one test to the next."""
    run = (folder / ".vmtest" / "latest").resolve()
    found = {}
    for rows in run.glob("*/results.jsonl"):
        starts = [json.loads(line)["uptime"] for line in rows.read_text().splitlines()]
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        found[rows.parent.name] = statistics.median(gaps) * 1000
    return found


def each_test(
    images: Sequence[KernelImage],
    names: Sequence[str],
    root: RootImage,
    probe: Probe,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Per kernel: a test that does nothing, by a bare pytest's."""
    found = {name: {"bare ms": [], "vmtest ms": []} for name in names}
    with ExitStack() as stack:
        snapshots = Snapshots(default_cache())
        stack.callback(snapshots.close)
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        count = 20 if options.smoke else EMPTY
        projects = [empty_project(at, n) for at, n in zip(folders, (0, count), strict=True)]
        few, all_ = (SuitesTaskFactory(project, project.suites, ()).task for project in projects)
        selected = [word for name in names for word in ("--kernel", name)]
        for _ in range(options.samples):
            run_seconds(selected, folders[1])
            for name, milliseconds in between(folders[1]).items():
                found[name]["vmtest ms"].append(milliseconds)
            for name, image in zip(names, images, strict=True):
                with started(image, root, probe, snapshots) as (guest, _):
                    seconds = [
                        pytest_seconds(task(image).payload, (), guest, root.python)
                        for task in (few, all_)
                    ]
                found[name]["bare ms"].append((seconds[1] - seconds[0]) / count * 1000)
    return {name: report(f"a test, {name}", got, "bare ms") for name, got in found.items()}


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
    parser.add_argument("--only", choices=["boot", "matrix", "tests"])
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
    if options.only in (None, "boot"):
        measured["boot"] = boots(images, root, probe, options.samples)
    if options.only in (None, "tests"):
        names = [kernel.name for kernel in kernels]
        measured["tests"] = each_test(images, names, root, probe, options)
    if options.only in (None, "matrix"):
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

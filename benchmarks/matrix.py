"""The warm matrix, and a boot to SSH, against plain virtme-ng: both sides in one run.

    python benchmarks/matrix.py [--samples 5] [--json FILE] [--kernel NAME ...]
                                [--suite NAME ...] [-k EXPRESSION] [--smoke]

(a) all suites on all kernels: ``vmtest run`` against, for each kernel in turn,
    ``vng --force-9p --cpus 1 [--disable-kvm] -r IMAGE -- python -m pytest ...``
    on vng's default root (the host's), with the same objects and tests; as many VMs at
    once as the host has room for, and one (``--jobs 1``);
(b) per kernel: from nothing to an authenticated SSH session, booted and restored, against
    ``vng ... -r IMAGE -- true``.

IMAGE is the vmlinuz as Debian packages it; with ``--elf`` it is the unpacked ELF of
the store, which vmtest boots and which saves the plain way the unpacking.  Samples
of all sides alternate.  The CPU time that the runner spends outside QEMU is
printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import smoke

from vmtest.config import file as configuration
from vmtest.config import select
from vmtest.host.virtme import find_vng, vng_environment
from vmtest.kernels import Store, default_cache, source_for
from vmtest.model.kernels import Accelerator, KernelImage, RootImage
from vmtest.rootfs.prepare import prepare_root
from vmtest.vm import accel
from vmtest.vm.accel import Probe
from vmtest.vm.machine import MachineSpec
from vmtest.vm.restore import Snapshots, running_guest

PROJECT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")


def plain_vng(kernel: Path, probe: Probe, command: list[str]) -> list[str]:
    """The plain way to run ``command`` in ``kernel``, as fixed for this benchmark."""
    argv = [str(find_vng()), "--force-9p", "--cpus", "1"]
    if probe.accelerator is Accelerator.TCG:
        argv.append("--disable-kvm")
    return [*argv, "-r", str(kernel), "--", shlex.join(command)]


def run_plain(kernel: Path, probe: Probe, command: list[str], *, check: bool = False) -> None:
    """Run ``command`` the plain way.

    On a host without udev vng gives neither its output nor its exit status back; with
    ``check`` the console is on, which shows both, and a failure ends this program.
    """
    argv = plain_vng(kernel, probe, command)
    if check:
        argv.insert(1, "--verbose")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            argv,
            cwd=PROJECT,
            env=vng_environment(os.environ, find_vng(), Path(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if check and b"script exited with code 0" not in done.stdout:
        sys.exit(f"the plain way failed on {kernel.name}:\n{done.stdout.decode()[-3000:]}")


def packaged(image: KernelImage) -> Path:
    """The vmlinuz that ``image`` was unpacked from."""
    return image.image.with_name(f"vmlinuz-{image.release}")


def selection(names: list[str], suites: list[str], tests: str) -> list[str]:
    """Options of ``vmtest run``: these kernels, all suites without any, all ``tests`` for ""."""
    chosen = [part for name in names for part in ("--kernel", name)]
    chosen += [part for name in suites for part in ("--suite", name)]
    return [*chosen, "-k", tests] if tests else chosen


def run_vmtest(chosen: list[str]) -> None:
    """The whole matrix by the command."""
    done = subprocess.run(
        [sys.executable, "-m", "vmtest", "run", *chosen], cwd=PROJECT, capture_output=True
    )
    if done.returncode != 0:
        sys.exit(f"vmtest run failed:\n{done.stdout.decode()[-3000:]}")


def session_seconds(image: KernelImage, root: RootImage, probe: Probe, cache: Path | None) -> float:
    """Wall seconds from nothing to an authenticated session.

    The guest is booted, or restored from its snapshot in ``cache``, where the first one is saved.
    Ends this program if one boots that was to be restored.
    """
    saved = cache is not None and any(cache.glob("snapshots/*"))
    with tempfile.TemporaryDirectory() as folder:
        spec = MachineSpec(image, root, probe, Path(folder) / "console.log")
        snapshots = Snapshots(cache)
        began = time.monotonic()
        with running_guest(spec, snapshots, 300.0, 10.0, lambda machine, stack: None) as guest:
            seconds = time.monotonic() - began
            guest.session.close()
        if saved and not guest.warm:
            sys.exit(f"{image.name} was booted: {'; '.join(snapshots.notes)}")
        if cache is not None and not guest.warm:
            snapshots.publish()
        snapshots.close()
        return seconds


def boot_samples(
    samples: int, plain: Callable[[], None], image: KernelImage, root: RootImage, probe: Probe
) -> dict[str, list[float] | float]:
    """(b) for ``image``: seconds of the three sides in turn, and medians by that of ``plain``."""
    found: dict[str, list[float]] = {"plain": [], "booted": [], "restored": []}
    with tempfile.TemporaryDirectory() as scratch:
        session_seconds(image, root, probe, Path(scratch))  # saved, which is not measured
        if not any(Path(scratch).glob("snapshots/*")):
            sys.exit(f"{image.name} was not saved")
        for _ in range(samples):
            found["plain"].append(wall(plain))
            found["booted"].append(session_seconds(image, root, probe, None))
            found["restored"].append(session_seconds(image, root, probe, Path(scratch)))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {f"{n} by plain": medians[n] / medians["plain"] for n in ("booted", "restored")}
    words = ", ".join(f"{name} {value:.2f}" for name, value in {**medians, **ratios}.items())
    print(f"(b) {image.name}, s to SSH: {words}", flush=True)
    return {**found, **ratios}


def wall(work: Callable[[], None]) -> float:
    """Wall seconds of ``work``."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


class QemuCpu:
    """CPU seconds of the QEMU processes below this one, sampled while they live."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> QemuCpu:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            for entry in Path("/proc").glob("[0-9]*/stat"):
                try:
                    text = entry.read_text()
                except OSError:
                    continue  # it ended meanwhile
                name, fields = text[text.index("(") + 1 :].rsplit(")", 1)
                if name.startswith("qemu-system"):
                    values = fields.split()
                    self._seen[int(entry.parent.name)] = int(values[11]) + int(values[12])

    @property
    def seconds(self) -> float:
        """The sum over all that were seen."""
        return sum(self._seen.values()) / TICKS


def cpu_outside_qemu(chosen: list[str], kernels: int) -> float:
    """CPU seconds for each of ``kernels`` that one warm matrix spends outside QEMU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with QemuCpu() as qemu:
        run_vmtest(chosen)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (spent - qemu.seconds) / kernels


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--json", type=Path, default=PROJECT / ".vmtest" / "benchmark-matrix.json")
    parser.add_argument("--kernel", action="append")
    parser.add_argument("--suite", action="append", dest="suites", default=[])
    parser.add_argument("-k", dest="tests", metavar="EXPRESSION", default="", help="which tests")
    parser.add_argument("--only", choices=["a", "b"])
    parser.add_argument("--elf", action="store_true")
    # All suites, as in the real sample: the plain side once stopped at a marker of some.
    options = smoke.parse(parser, {**smoke.ONE_TEST, "suites": []})

    settings = configuration.load(PROJECT / "kernels.toml")
    kernels = select.select_kernels(settings.kernels, options.kernel or [], {})
    cache = default_cache()
    store = Store(cache)
    images = []
    for kernel in kernels:
        source = source_for(kernel, settings.archives)
        images.append(source.fetch(source.resolve(kernel, store), store))
    plain_images = {image.name: image.image if options.elf else packaged(image) for image in images}
    root = prepare_root(settings, cache)
    probe = accel.choose(images[0].image, cache)
    chosen = selection([kernel.name for kernel in kernels], options.suites, options.tests)
    if options.smoke:  # the objects, and no figure that cold caches could spoil
        subprocess.run([sys.executable, "-m", "vmtest", "build"], cwd=PROJECT, check=True)
    else:
        run_vmtest(chosen)  # warm: objects built, caches filled

    tests = [str(s.tests) for s in select.select_suites(settings.suites, options.suites)]
    objects = Path(tempfile.mkdtemp())
    for build in settings.objects:
        shutil.copyfile(build.path, objects / f"{build.name}.o")
    command = [
        "env",
        f"VMTEST_OBJECTS={objects}",
        f"PYTHONPATH={PROJECT}",
        "PYTHONDONTWRITEBYTECODE=1",
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "vmtest.guest.plugins.needs",  # the suites' marker
        *(["-k", options.tests] if options.tests else []),
        *tests,
    ]
    result: dict[str, object] = {
        "host": platform.platform(),
        "cpus": os.cpu_count(),
        "accelerator": probe.accelerator.value,
        "udev installed": any(map(shutil.which, ("udevadm", "udevd"))),
        "kernels": {image.name: image.release for image in images},
        "plain images": {name: path.name for name, path in plain_images.items()},
        "samples": options.samples,
    }
    if options.only != "b":
        if not options.smoke:  # else the sample itself is checked, whose figure means nothing
            for kernel_file in plain_images.values():
                run_plain(kernel_file, probe, command, check=True)
        ours, alone, plain = [], [], []
        for _ in range(options.samples):
            plain.append(
                sum(
                    wall(partial(run_plain, file, probe, command, check=options.smoke))
                    for file in plain_images.values()
                )
            )
            print(f"matrix: plain {plain[-1]:.1f} s", flush=True)
            began = time.monotonic()
            if options.smoke:  # one run for both figures
                result["cpu outside qemu"] = cpu_outside_qemu(chosen, len(kernels))
            else:
                run_vmtest(chosen)
            ours.append(time.monotonic() - began)
            print(f"matrix: vmtest {ours[-1]:.1f} s", flush=True)
            alone.append(wall(partial(run_vmtest, [*chosen, "--jobs", "1"])))
            load = os.getloadavg()[0]
            print(f"matrix: one VM at a time {alone[-1]:.1f} s (load {load:.1f})", flush=True)
        ratio = statistics.median(ours) / statistics.median(plain)
        one = statistics.median(alone) / statistics.median(plain)
        result["matrix"] = {"plain": plain, "vmtest": ours, "ratio": ratio}
        result["matrix, one VM at a time"] = {"vmtest": alone, "ratio": one}
        print(f"(a) warm matrix: {ratio:.2f} of the plain way, one VM at a time {one:.2f}")
        if not options.smoke:
            result["cpu outside qemu"] = cpu_outside_qemu(chosen, len(kernels))
        print(f"CPU outside QEMU: {result['cpu outside qemu']:.2f} s a kernel")
    if options.only != "a":
        boots = {}
        for image in images:
            bare = partial(run_plain, plain_images[image.name], probe, ["true"])
            boots[image.name] = boot_samples(options.samples, bare, image, root, probe)
        result["boot"] = boots
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"raw samples: {options.json}")


if __name__ == "__main__":
    main()

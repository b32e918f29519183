"""Which accelerator really works here: found by booting, remembered per host.

``/dev/kvm`` proves nothing: on a nested host it can open, create VMs, and QEMU
aborts or hangs all the same.  So a kernel is booted, without any user space,
until it asks for its root file system.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vmtest.errors import InfrastructureError, UsageError
from vmtest.host import interrupt
from vmtest.host.cache import age_of, locked, read_record, sha256_json, write_record
from vmtest.host.process import Supervised
from vmtest.model.kernels import Accelerator
from vmtest.model.text import last_line
from vmtest.vm.qemu import QEMU, confined, drop

KVM_DEVICE = Path("/dev/kvm")
KVM_DEADLINE = 10.0
"""Seconds within which a guest under KVM gets to its root file system, many times over."""
TCG_DEADLINE = 180.0
FAILURE_KEPT = 900.0
"""Seconds for which an accelerator that did not work is not tried again."""
MODULES = Path("/sys/module")
FIRMWARE = "qboot.rom"
"""Comes with QEMU; hands over to the kernel 0.25 s sooner than SeaBIOS under TCG."""

# The kernel without a root file system ends here; every kernel version says so.
_ARRIVED = b"Unable to mount root fs"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found: the accelerator to use, its boot's seconds, and why not KVM.

    ``firmware`` is the one that it booted with, "" for QEMU's default.
    """

    accelerator: Accelerator
    seconds: float
    why: str
    firmware: str = ""


_PROBE = TypeAdapter(Probe)


def choose(image: Path, cache: Path, wanted: str = "auto", *, anew: bool = False) -> Probe:
    """The accelerator for this host, by booting ``image`` the first time it is asked.

    ``wanted`` is auto, kvm or tcg.  What works is remembered until the host boots again,
    what does not for a quarter of an hour, and nothing where ``anew`` is true.  Raises
    UsageError for kvm where it does not work, InfrastructureError when QEMU is missing or
    boots nothing at all.
    """
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise InfrastructureError(
            f"{QEMU} is not installed; install it with: tox -e setup "
            "(or apt-get install --no-install-recommends qemu-system-x86)"
        )
    place = cache / "accel" / f"{sha256_json(_host(qemu))[:16]}.json"
    with locked(cache, "accel"):
        before = _remembered(read_record(place) or {})
        known = {} if anew else dict(before)
        if wanted == "kvm" and "kvm" in known and known["kvm"].why:
            del known["kvm"]  # asked for by name: it may work by now
        if len(known) < 2:
            known = _quickest(_probe_both(qemu, image, known), before)
            stamp = {"when": time.time()}
            found = {name: asdict(probe) for name, probe in known.items()} | stamp
            with suppress(OSError, InfrastructureError):  # a cache that can only be read
                write_record(place, found)
    return _choice(known, wanted)


def _remembered(found: Mapping[str, Any]) -> dict[str, Probe]:
    """The probes in a file of ours that still hold: none when it is damaged, no old failure."""
    try:
        probes = {name: _PROBE.validate_python(found[name]) for name in ("kvm", "tcg")}
    except (KeyError, ValueError):
        return {}
    age = age_of(found)
    fresh = age is not None and 0 <= age < FAILURE_KEPT
    return {name: probe for name, probe in probes.items() if fresh or not probe.why}


def _quickest(found: dict[str, Probe], before: Mapping[str, Probe]) -> dict[str, Probe]:
    """``found``, with the seconds of ``before`` where those are fewer.

    The host was busy the other time, and how busy it is stretches the time limits by itself.
    """
    return {
        name: replace(probe, seconds=min(probe.seconds, before[name].seconds))
        if name in before and not probe.why and not before[name].why
        else probe
        for name, probe in found.items()
    }


def _choice(probes: dict[str, Probe], wanted: str) -> Probe:
    kvm, tcg = probes["kvm"], probes["tcg"]
    if wanted == "tcg":
        if tcg.why:
            raise InfrastructureError(
                f"`accelerator` tcg: QEMU boots no kernel without KVM: {tcg.why}"
            )
        return replace(tcg, why="asked for")
    if not kvm.why:
        return kvm
    if wanted == "kvm":
        raise UsageError(
            f"`accelerator` kvm: KVM does not work here: {kvm.why}; use `accelerator` auto"
        )
    return replace(tcg, why=kvm.why)


def _host(qemu: str) -> dict[str, object]:
    """Everything that a probe's answer depends on; another boot of the host asks again."""
    status = Path(qemu).stat()
    return {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "qemu": [qemu, status.st_size, status.st_mtime_ns],
        "kvm": _kvm(KVM_DEVICE, MODULES),
    }


def _kvm(device: Path, modules: Path) -> list[object]:
    """What changes when KVM is set up anew: the device, and the parameters of its modules."""
    try:
        status = device.stat()
    except OSError:
        return []
    found: list[object] = [os.access(device, os.R_OK | os.W_OK), status.st_rdev, status.st_ctime_ns]
    for path in sorted(modules.glob("kvm*/parameters/*")):
        with suppress(OSError):  # some are root's alone
            found.append([str(path.relative_to(modules)), path.read_text()])
    return found


def _probe_both(qemu: str, image: Path, known: Mapping[str, Probe]) -> dict[str, Probe]:
    """Both, of which those that are ``known`` are not booted again."""
    kvm = known.get("kvm") or _probe(qemu, image, Accelerator.KVM, KVM_DEADLINE)
    tcg = known.get("tcg") or _probe(qemu, image, Accelerator.TCG, TCG_DEADLINE)
    if tcg.why and kvm.why:
        raise InfrastructureError(f"QEMU boots no kernel here: tcg: {tcg.why}; kvm: {kvm.why}")
    return {"kvm": kvm, "tcg": tcg}


def _probe(qemu: str, image: Path, accelerator: Accelerator, limit: float) -> Probe:
    """With the fast firmware where that boots, else with QEMU's own."""
    if accelerator is Accelerator.KVM:
        if not KVM_DEVICE.exists():
            return Probe(accelerator, 0.0, f"there is no {KVM_DEVICE}")
        if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
            why = f"{KVM_DEVICE} may not be opened by this user (add it to the group kvm)"
            return Probe(accelerator, 0.0, why)
    if _has_firmware(qemu, FIRMWARE):
        seconds, why = _boot(qemu, image, accelerator, limit, FIRMWARE)
        if not why:
            return Probe(accelerator, seconds, "", FIRMWARE)
    return Probe(accelerator, *_boot(qemu, image, accelerator, limit, ""))


def _has_firmware(qemu: str, name: str) -> bool:
    done = subprocess.run([qemu, "-L", "help"], capture_output=True, text=True, check=False)
    return any((Path(folder) / name).exists() for folder in done.stdout.splitlines())


def _boot(
    qemu: str, image: Path, accelerator: Accelerator, limit: float, firmware: str
) -> tuple[float, str]:
    """Seconds until the kernel wanted its root, and what went wrong ("" for nothing)."""
    cpu = "host" if accelerator is Accelerator.KVM else "max"
    argv = [qemu, "-nodefaults", "-no-reboot", "-display", "none", "-m", "512"]
    argv += ["-machine", f"q35,accel={accelerator}", "-cpu", cpu, "-serial", "stdio"]
    argv += confined(drop().option).split()
    if firmware:
        argv += ["-bios", firmware]
    argv += ["-kernel", str(image), "-append", "console=ttyS0 panic=-1 quiet"]
    folder = Path(tempfile.mkdtemp(prefix="vmtest-probe-"))
    started = time.monotonic()
    process = Supervised.start(argv, os.environ, folder)
    output = b""
    with interrupt.current().ending(process.let_go), _ended(process):
        while (left := started + limit - time.monotonic()) > 0:
            if not select.select([process.descriptor], [], [], left)[0]:
                continue
            data = os.read(process.descriptor, 1 << 16)
            output += data
            if _ARRIVED in output:
                return time.monotonic() - started, ""
            if not data:
                return 0.0, f"QEMU ended: {_last_words(output)}"
        return 0.0, f"no answer from a guest within {limit:.0f} s ({_last_words(output)})"


@contextmanager
def _ended(process: Supervised) -> Iterator[None]:
    try:
        yield
    finally:
        process.end()
        process.close()


def _last_words(output: bytes) -> str:
    return last_line(output.decode(errors="replace"))[:200] or "no output"

"""``vmtest doctor``: every requirement with its state and the exact cure."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.cli.common import dump
from vmtest.errors import VmtestError
from vmtest.host import packages
from vmtest.host import requirements as host
from vmtest.host.cache import find_tool, megabytes
from vmtest.host.debian import find_mirrors
from vmtest.host.virtme import find_vng
from vmtest.kernels import Store, default_cache, kconfig
from vmtest.matrix.slots import memory_available_mib
from vmtest.storage.verify import Verified, verify
from vmtest.vm import accel
from vmtest.vm.qemu import USER, drop, qemu_version

EXAMPLE = """Show what this host has, what it lacks, and how to fix that.

With --cache it also verifies the digest of every file in the cache.

Example: [bold]vmtest doctor --json[/bold]
"""

_NEEDED_DISK = 3 << 30
_NEEDED_MEMORY_MIB = 1500


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: its state in words, and the cure where it is not met."""

    name: str
    ok: bool
    state: str
    cure: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Verify every file in the cache by its digest.")
    ] = False,
) -> None:
    """Look, print, and exit 3 when something needed is missing."""
    with common.reported():
        findings = list(examine(default_cache()))
        if cache:
            findings += [_entry(verified) for verified in verify(default_cache())]
        if as_json:
            print(dump([asdict(finding) for finding in findings]))
        else:
            for finding in findings:
                common.say(f"{'ok  ' if finding.ok else 'MISS'} {finding.name:18} {finding.state}")
                if finding.cure:
                    common.say(f"     {'':18} -> {finding.cure}")
        raise typer.Exit(0 if all(f.ok for f in findings) else common.INFRASTRUCTURE)


def examine(cache: Path) -> Iterator[Finding]:
    """Every requirement of the host, one after the other."""
    here = packages.host()
    yield _host(here)
    yield Finding("python", sys.version_info >= (3, 11), sys.version.split()[0])
    yield _virtme_ng()
    yield _qemu(here)
    yield _user()
    yield from _tools(here)
    yield from _optional(here)
    yield _namespaces()
    yield _mirrors()
    yield _accelerator(cache)
    yield _kernels(cache)
    yield _disk(cache)
    memory = memory_available_mib()
    enough = memory > _NEEDED_MEMORY_MIB
    yield Finding(
        "memory",
        enough,
        f"{memory} MiB available",
        "" if enough else "close something: a VM takes 1 GiB and some",
    )


def _host(here: packages.Host) -> Finding:
    """What it is, and the shortest way to all that is missing on it."""
    lacking = [tool.package for tool in host.TOOLS if not find_tool(tool.command)]
    cure = ""
    if lacking and here.family is packages.DEBIAN:
        cure = "to install all that is missing: vmtest setup"
    elif lacking:
        cure = f"in a clone of vmtest: {packages.CONTAINER}; or {packages.cure(lacking, here)}"
    return Finding("host", True, here.name, cure)


def _namespaces() -> Finding:
    why = host.namespaces_refused()
    if why:
        return Finding("user namespaces", False, why, host.NAMESPACES_CURE)
    return Finding("user namespaces", True, "can be made")


def _mirrors() -> Finding:
    """Where Debian's kernels and the guest image would come from."""
    try:
        found = find_mirrors("debian")
    except VmtestError as error:
        return Finding("Debian mirror", False, "none is known", str(error))
    main = found.main or found.security
    return Finding("Debian mirror", True, f"{main.uri} ({main.source})" if main else "")


def _disk(cache: Path) -> Finding:
    cure = "make room, or set VMTEST_CACHE to a folder on another disk"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding("cache", False, f"cannot write {cache}: {error.strerror}", cure)
    free = shutil.disk_usage(cache).free
    enough = free > _NEEDED_DISK
    return Finding("cache", enough, f"{megabytes(free)} free in {cache}", "" if enough else cure)


def _entry(verified: Verified) -> Finding:
    name = f"cached {verified.kind}"
    if verified.damage is None:
        state = f"{verified.name} is whole ({megabytes(verified.size)})"
        return Finding(name, True, state)
    cure = "its next use removes it and makes it again; vmtest kernels prune only removes it"
    return Finding(name, False, str(verified.damage), cure)


def _virtme_ng() -> Finding:
    try:
        find_vng()
    except VmtestError as error:
        return Finding("virtme-ng", False, "missing", str(error))
    version = metadata.version("virtme-ng")
    numbers = tuple(int(part) for part in version.split(".")[:2])
    fine = numbers >= (1, 42)
    return Finding("virtme-ng", fine, version, "" if fine else "pip install 'virtme-ng>=1.42'")


def _qemu(here: packages.Host) -> Finding:
    version = qemu_version()
    cure = "" if version else packages.cure(["qemu-system-x86"], here)
    return Finding("qemu", bool(version), version or "missing", cure)


def _user() -> Finding:
    """Whose rights a guest has that breaks out of QEMU."""
    found = drop()
    state = f"{USER}: QEMU gives up root once it has opened its files"
    if not found.option:
        state = f"root: {found.why}" if found.why else "yours: you are not root"
    return Finding("QEMU's user", True, state)


def _tools(here: packages.Host) -> Iterator[Finding]:
    for tool in host.TOOLS:
        found = find_tool(tool.command)
        if found:
            yield Finding(tool.command, True, found)
        else:
            cure = packages.cure([tool.package], here)
            yield Finding(tool.command, False, f"missing: {tool.purpose}", cure)


def _optional(here: packages.Host) -> Iterator[Finding]:
    """What only some kernels or options need: said, and never missed."""
    for tool in host.OPTIONAL_TOOLS:
        found = find_tool(tool.command)
        cure = packages.cure([tool.package], here)
        state = f"not installed (optional: {tool.purpose}; {cure})"
        yield Finding(tool.command, True, found or state)
    lacking = host.missing_for_builds()
    state = "optional: tree kernels can be built"
    if lacking:
        state = f"not possible (optional: tree kernels); {packages.cure(lacking, here)}"
    yield Finding("kernel builds", True, state)
    state = "not installed in Rust (optional: for kernels without 9P; package virtiofsd)"
    yield Finding("virtiofsd", True, host.find_virtiofsd() or state)


def _kernels(cache: Path) -> Finding:
    """How those in the cache boot: what they mount of the host's, and what their root is."""
    ways: Counter[str] = Counter()
    for entry in Store(cache).entries():
        image = Store(cache).get(entry.key, entry.key)
        if image is None:
            continue
        try:
            share, filesystem = kconfig.way_of(image)
        except VmtestError:
            ways["cannot boot here (vmtest kernels list says why)"] += 1
        else:
            ways[f"{kconfig.SHARES[share]}, root on {filesystem}"] += 1
    said = "; ".join(f"{count} {way}" for way, count in ways.most_common())
    return Finding("kernels", True, f"in the cache: {said}" if said else "none in the cache")


def _accelerator(cache: Path) -> Finding:
    entries = Store(cache).entries()
    if not entries:
        state = "not tried: it takes a kernel to boot; run vmtest kernels fetch first"
        return Finding("accelerator", True, state)
    newest = entries[-1]
    try:
        probe = accel.choose(newest.path / newest.manifest.image, cache, anew=True)
    except VmtestError as error:
        return Finding("accelerator", False, "none works", str(error))
    seconds = f"a kernel boots to its root file system in {probe.seconds:.1f} s"
    why = f"; not kvm: {probe.why}" if probe.why else ""
    return Finding("accelerator", True, f"{probe.accelerator}: {seconds}{why}")

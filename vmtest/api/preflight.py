"""What a run needs of the host and of the project's files: told before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vmtest.api.inputs import parts_of_guest, parts_of_kernel
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host import packages
from vmtest.host import requirements as host
from vmtest.host.cache import find_tool
from vmtest.kernels import Store
from vmtest.model.kernels import AptSpec, Kernel
from vmtest.model.project import Config
from vmtest.rootfs.image import is_built
from vmtest.vm.qemu import QEMU

# virtme-ng takes any of them.
_VM = (("busybox", "busybox-static", "busybox.static"), ("file", "strings"))
_IMAGE = ("mmdebstrap", "sqfstar", "apt-get")
_KERNELS = ("apt-get", "dpkg-deb", "depmod")


def check_host(settings: Config, cache: Path, *, here: bool = True) -> None:
    """Raise InfrastructureError that names every tool which this host lacks for a run.

    What is in ``cache`` already needs no tool to make it; ``here`` says whether this host runs
    VMs.  Whatever only some kernels or objects need is told where these are made.
    """
    lacking = list(_lacking(settings, cache, here))
    lines = [f"  {tool.command}: {tool.purpose} (package {tool.package})" for tool in lacking]
    if lacking:
        machine, names = packages.host(), [tool.package for tool in lacking]
        debian = machine.family is packages.DEBIAN
        cure = "vmtest setup" if debian else packages.cure(names, machine)
        lines.append(f"to install all of it: {cure}")
    refused = host.namespaces_refused() if _builds_image(settings, cache) else ""
    if refused:
        lines.append(f"  a user namespace, which builds the guest image: {refused}")
        lines.append(f"to allow it: {host.NAMESPACES_CURE}")
    if lines:
        raise InfrastructureError("\n".join(["this host lacks what the run needs:", *lines]))


def check_files(settings: Config, kernels: Iterable[Kernel]) -> None:
    """Raise UsageError when a file that every guest needs is not there; it names all such files.

    It names the files of ``kernels`` that are missing as well.  Where only these are, the
    others run: each such kernel's own result says so.
    """
    lost = _lost(parts_of_guest(settings))
    if not lost:
        return
    lost += [path for kernel in kernels for path in _lost(parts_of_kernel(kernel))]
    lines = [f"  {path}" for path in dict.fromkeys(lost)]
    raise UsageError(
        "\n".join([f"{settings.file} names what is not there; correct it there:", *lines])
    )


def _lost(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _lacking(settings: Config, cache: Path, here: bool) -> Iterator[host.Tool]:
    emulator = host.Tool(QEMU, "qemu-system-x86", "runs the virtual machines")
    if here and not _is_there(emulator.command):
        yield emulator
    names = set()
    if here:
        names |= {any_of[0] for any_of in _VM if not any(map(_is_there, any_of))}
    others: list[str] = []
    if _builds_image(settings, cache):
        others += [*_IMAGE, *(["newuidmap"] if os.geteuid() else [])]
    apt = all(isinstance(kernel.spec, AptSpec) for kernel in settings.kernels)
    if apt and not Store(cache).entries():
        others += _KERNELS
    names |= {name for name in others if not _is_there(name)}
    yield from (tool for tool in host.TOOLS if tool.command in names)


def _is_there(tool: str) -> bool:
    return find_tool(tool) is not None


def _builds_image(settings: Config, cache: Path) -> bool:
    return settings.guest.root == "debian" and not is_built(settings.guest, cache)

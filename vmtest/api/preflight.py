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
from vmtest.vm.accel import QEMU

_VM = ("busybox", "file", "strings")
_IMAGE = ("mmdebstrap", "sqfstar", "apt-get")
_KERNELS = ("apt-get", "dpkg-deb", "depmod")
_COMPILER = "clang"
_OWN_BUILD = ("vmtest", "build")


def check_host(settings: Config, cache: Path) -> None:
    """Raise InfrastructureError that names every tool which this host lacks for a run.

    What is in ``cache`` already needs no tool to make it.
    """
    lacking = [tool for tool in _tools(settings, cache) if find_tool(tool.command) is None]
    lines = [f"  {tool.command}: {tool.purpose} (package {tool.package})" for tool in lacking]
    if lacking:
        here, names = packages.host(), [tool.package for tool in lacking]
        debian = here.family is packages.DEBIAN
        cure = "vmtest setup" if debian else packages.cure(names, here)
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


def _tools(settings: Config, cache: Path) -> Iterator[host.Tool]:
    yield host.Tool(QEMU, "qemu-system-x86", "runs the virtual machines")
    names = [*_VM]
    if _builds_image(settings, cache):
        names += [*_IMAGE, *(["newuidmap"] if os.geteuid() else [])]
    apt = any(isinstance(kernel.spec, AptSpec) for kernel in settings.kernels)
    if apt and not Store(cache).entries():
        names += _KERNELS
    if settings.build is not None and settings.build[:2] == _OWN_BUILD:
        names.append(_COMPILER)
    yield from (tool for tool in host.TOOLS if tool.command in names)


def _builds_image(settings: Config, cache: Path) -> bool:
    return settings.guest.root == "debian" and not is_built(settings.guest, cache)

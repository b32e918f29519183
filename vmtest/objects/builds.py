"""bpf/*.bpf.c -> objects, and which build of an object goes to which kernel.

``build_all`` is what ``vmtest build`` does; a project with its own way names
its own command in ``[build]`` of kernels.toml, which ``run_build`` runs.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host.files import FileContent, Files
from vmtest.model.project import ObjectFile
from vmtest.model.versions import KernelVersion, VersionRange

EM_BPF = 247
"""ELF machine number of BPF, from linux/elf-em.h."""


def choose(objects: Iterable[ObjectFile], version: KernelVersion) -> dict[str, Path]:
    """By name, the build that goes to a kernel of ``version``: the first whose range holds."""
    return {build.name: build.path for build in builds_for(objects, version)}


def modules_for(objects: Iterable[ObjectFile], version: KernelVersion) -> tuple[str, ...]:
    """The modules that the builds for a kernel of ``version`` want loaded, each once."""
    wanted = (name for build in builds_for(objects, version) for name in build.loading.modules)
    return tuple(dict.fromkeys(wanted))


def builds_for(objects: Iterable[ObjectFile], version: KernelVersion) -> tuple[ObjectFile, ...]:
    """The build of each object that goes to a kernel of ``version``, in their order."""
    chosen: dict[str, ObjectFile] = {}
    for build in objects:
        if build.kernels is None or version in build.kernels:
            chosen.setdefault(build.name, build)
    return tuple(chosen.values())


def parse_given(item: str) -> ObjectFile:
    """``NAME=PATH[@RANGE]`` of ``--object``; raises UsageError.

    What follows the last ``@`` is a range when it begins like one, else part of
    the path.
    """
    name, _, rest = item.partition("=")
    path, at, text = rest.rpartition("@")
    kernels = None
    if at and VersionRange.looks_like(text):
        try:
            kernels = VersionRange.parse(text)
        except ValueError as error:
            raise UsageError(f"`objects` {item}: {error}") from error
    else:
        path = rest
    if not (name and path):
        raise UsageError(
            f"`objects` {item}: write NAME=PATH, for example sendmsg=build/x.o, "
            "or NAME=PATH@RANGE, for example 'sendmsg=build/compat.o@<5.13'"
        )
    return ObjectFile(name, Path(path).absolute(), kernels)


def override(objects: Sequence[ObjectFile], given: Sequence[ObjectFile]) -> tuple[ObjectFile, ...]:
    """``objects`` with all builds of those named in ``given`` replaced; raises UsageError.

    No configured build of a given object stays, on any kernel: nobody shall take
    results of one for results of the other.
    """
    known = {build.name for build in objects}
    replaced = {build.name for build in given}
    for name in sorted(replaced - known):
        there = ", ".join(sorted(known)) or "none"
        raise UsageError(f'`objects` {name}: there is no [[object]] "{name}" (there are: {there})')
    return (*(build for build in objects if build.name not in replaced), *given)


def depend_on_version(objects: Iterable[ObjectFile], needed: Iterable[str]) -> bool:
    """Whether some kernel may have no build of an object that is ``needed``."""
    everywhere = {build.name for build in objects if build.kernels is None}
    return not everywhere.issuperset(needed)


def check_builds(
    objects: Sequence[ObjectFile], needed: Iterable[str], versions: Mapping[str, KernelVersion]
) -> None:
    """Raise UsageError for each kernel of ``versions`` without a build of a ``needed`` object."""
    wanted = sorted(set(needed))
    problems = []
    for kernel, version in versions.items():
        for name in wanted:
            if name in choose(objects, version):
                continue
            ranges = " and ".join(
                build.kernels.text for build in objects if build.name == name and build.kernels
            )
            problems.append(
                f'object "{name}": kernel {kernel} ({version}) is in the range of no build of it '
                f"({ranges})"
            )
    if problems:
        problems.append(
            "leave these kernels out with `kernels`, or name another build: "
            "[[object]] in kernels.toml, or `objects` NAME=PATH@RANGE"
        )
        raise UsageError("\n".join(problems))


def is_foreign_elf(path: Path) -> bool:
    """Whether ``path`` is an ELF file for another machine than BPF, such as the host's own."""
    try:
        with path.open("rb") as stream:
            header = stream.read(20)
    except OSError:
        return False
    return len(header) == 20 and header[:4] == b"\x7fELF" and _machine(header) != EM_BPF


def _machine(header: bytes) -> int:
    (machine,) = struct.unpack("<H" if header[5] == 1 else ">H", header[18:20])
    return int(machine)


def check_object(name: str, path: Path) -> None:
    """Raise UsageError unless ``path`` is a BPF object of this byte order."""
    try:
        with path.open("rb") as stream:
            header = stream.read(20)
    except FileNotFoundError:
        raise UsageError(
            f'object "{name}": {path} does not exist; does the [build] command make it?'
        ) from None
    except OSError as error:
        raise UsageError(f'object "{name}": cannot read {path}: {error.strerror}') from error
    _check_header(name, path, header)


def read_object(name: str, path: Path, files: Files) -> FileContent:
    """The object at ``path``, checked as by ``check_object``, as ``files`` has it."""
    try:
        content = files.read(path, "objects")
    except OSError:
        check_object(name, path)
        raise
    _check_header(name, path, content.data[:20])
    return content


def _check_header(name: str, path: Path, header: bytes) -> None:
    if len(header) < 20 or header[:4] != b"\x7fELF":
        raise UsageError(f'object "{name}": {path} is not an ELF file')
    machine = _machine(header)
    if machine != EM_BPF:
        raise UsageError(f'object "{name}": {path} is not a BPF object (ELF machine {machine})')
    if (header[5] == 1) != (sys.byteorder == "little"):
        raise UsageError(f'object "{name}": {path} has the other byte order; build it for bpfel')

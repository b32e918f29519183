"""bpf/*.bpf.c -> objects, and which build of an object goes to which kernel.

``build_all`` is what ``vmtest build`` does; a project with its own way names
its own command in ``[build]`` of kernels.toml, which ``run_build`` runs.
"""

from __future__ import annotations

import os
import platform
import shlex
import struct
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vmtest.errors import BuildError, InfrastructureError, UsageError
from vmtest.host import interrupt
from vmtest.host.files import FileContent, Files
from vmtest.model.project import ObjectFile
from vmtest.model.versions import KernelVersion, VersionRange

EM_BPF = 247
"""ELF machine number of BPF, from linux/elf-em.h."""

_ERROR_LINES = 10


def clang_argv(source: Path, target: Path, include: Path) -> list[str]:
    """The command that compiles ``source`` to ``target`` and notes its headers in ``target.d``."""
    return [
        "clang",
        "-O2",
        "-g",
        "-target",
        "bpf",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-MMD",
        "-MF",
        f"{target}.d",
        # The same bytes in every clone: a baseline and a bisect tell objects by their digest.
        f"-ffile-prefix-map={include.parent}={include.parent.name}",
        "-fdebug-compilation-dir=.",
        "-I",
        str(include),
        # <asm/types.h> of Debian and Ubuntu; clang's bpf target does not look there.
        "-idirafter",
        f"/usr/include/{platform.machine()}-linux-gnu",
        "-c",
        str(source),
        "-o",
        str(target),
    ]


def build_all(source: Path, target: Path) -> list[Path]:
    """Compile every ``*.bpf.c`` of ``source`` that is newer than its object in ``target``.

    ``source/mocks/a.bpf.c`` becomes ``target/mocks/a.bpf.o``; all of them find the headers of
    ``source/include``.  Returns all objects.  Raises BuildError with clang's words, UsageError
    when there is nothing to build, InfrastructureError without clang.
    """
    programs = sorted(source.rglob("*.bpf.c"))
    if not programs:
        raise UsageError(f"there is no *.bpf.c in {source}; run vmtest build where bpf/ is")

    def build(program: Path) -> Path:
        made = (target / program.relative_to(source)).with_suffix(".o")
        made.parent.mkdir(parents=True, exist_ok=True)
        if not _fresh(made):
            _compile(program, made, source / "include")
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(build, programs))


def _fresh(made: Path) -> bool:
    """Whether ``made`` is newer than everything it was made of."""
    notes = Path(f"{made}.d")
    if not (made.exists() and notes.exists()):
        return False
    names = notes.read_text().replace("\\\n", " ").partition(":")[2].split()
    built = made.stat().st_mtime_ns
    sources = [Path(name) for name in names]
    return all(path.exists() and path.stat().st_mtime_ns < built for path in sources)


def _compile(program: Path, made: Path, include: Path) -> None:
    # A folder of its own: several builds may run in one clone at a time, and readers of the
    # object see the whole of it or the old one.
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=f".{made.stem}-") as folder:
        # By the file system's clock, which dates the sources as well.
        begun = Path(folder).stat().st_mtime_ns
        partial = Path(folder) / made.name
        absolute = include.absolute()
        argv = clang_argv(program.absolute(), partial.absolute(), absolute)
        # clang copies the source lines, which the verifier's log shows, by the mapped names.
        where = absolute.parent.parent
        try:
            done = interrupt.run(argv, cwd=where)
        except FileNotFoundError:
            raise InfrastructureError(
                "clang is not installed and is needed to compile bpf/; "
                "install it with: tox -e setup (or apt-get install --no-install-recommends clang)"
            ) from None
        if done.returncode != 0:
            raise BuildError(f"{program}: clang failed:\n{_head(done.stderr)}")
        # As old as what it was made of: a source that was saved meanwhile is newer.
        os.utime(partial, ns=(begun, begun))
        Path(f"{partial}.d").rename(f"{made}.d")
        partial.rename(made)


def _head(text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) > _ERROR_LINES:
        left = len(lines) - _ERROR_LINES
        return "\n".join([*lines[:_ERROR_LINES], f"... and {left} more lines"])
    return "\n".join(lines)


def run_build(command: Sequence[str], directory: Path) -> None:
    """Run the ``[build]`` command in ``directory``; raises BuildError with its last words.

    ``vmtest`` itself is found even when its environment is not activated.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        done = interrupt.run(command, merged=True, cwd=directory, env={**os.environ, "PATH": path})
    except OSError as error:
        raise BuildError(
            f"kernels.toml: [build]: cannot run {shlex.join(command)}: {error.strerror}"
        ) from error
    if done.returncode == 3:
        raise InfrastructureError(_head(done.stdout))
    if done.returncode != 0:
        raise BuildError(
            f"kernels.toml: [build]: {shlex.join(command)} ended with status {done.returncode}:\n"
            f"{_head(done.stdout)}"
        )


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
            raise UsageError(f"--object {item}: {error}") from error
    else:
        path = rest
    if not (name and path):
        raise UsageError(
            f"--object {item}: write NAME=PATH, for example sendmsg=build/x.o, "
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
        raise UsageError(f'--object {name}: there is no [[object]] "{name}" (there are: {there})')
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
            "leave these kernels out with --kernel, or name another build: "
            "[[object]] in kernels.toml, or --object NAME=PATH@RANGE"
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
        raise UsageError(f'object "{name}": {path} is no BPF object (ELF machine {machine})')
    if (header[5] == 1) != (sys.byteorder == "little"):
        raise UsageError(f'object "{name}": {path} has the other byte order; build it for bpfel')

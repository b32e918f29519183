"""BPF programs in C, compiled with clang; and the project's own build command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from vmtest.errors import BuildCommandFailed, InfrastructureError, UsageError, os_words
from vmtest.host import interrupt
from vmtest.host.write import write_file

SOURCE = "bpf"
TARGET = "build"
"""The folders of ``vmtest build`` where nobody names others."""
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
        "-Wno-unused-parameter",  # a program takes its context, whether it looks at it or not
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


class ClangFailed(BuildCommandFailed):
    """clang took no ``program``; ``said`` is all that it wrote."""

    def __init__(self, program: Path, said: str) -> None:
        super().__init__(f"{program}: clang failed:\n{_head(said)}")
        self.program = program
        self.said = said


def build_all(source: Path, target: Path) -> list[Path]:
    """Compile every ``*.bpf.c`` of ``source`` that is newer than its object in ``target``.

    ``source/mocks/a.bpf.c`` becomes ``target/mocks/a.bpf.o``; all of them find the headers of
    ``source/include``.  Returns all objects.  Raises ClangFailed, UsageError when there is nothing
    to build, InfrastructureError without clang, OSError for a ``target`` that cannot be written.
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

    # A watch builds beside a stage that a save may end: clang ends with the build alone.
    scope = interrupt.current()
    with ThreadPoolExecutor(os.cpu_count(), "build", interrupt.work_for, (scope,)) as pool:
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
            done = interrupt.run(argv, cwd=where, env=_environment())
        except FileNotFoundError:
            raise InfrastructureError(
                "clang is not installed and is needed to compile bpf/; "
                "install it with: tox -e setup (or apt-get install --no-install-recommends clang)"
            ) from None
        if done.returncode != 0:
            raise ClangFailed(program, done.stderr)
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


def run_build(command: Sequence[str], directory: Path, log: Path) -> Sequence[Path]:
    """Run the ``[build]`` command in ``directory``; raises BuildCommandFailed with its last words.

    It gets the user's PATH.  ``vmtest`` is this one, even when its environment is not activated;
    what else is in that environment comes last, so that no tool of ours hides the user's.
    When it fails with more than a few lines, all of them are in ``log``.  Returns the objects that
    it is known to make: those of ``vmtest build``, which is done here and starts no other Python.
    """
    if folders := _own_build(command):
        return _build_here(f"kernels.toml: [build]: {shlex.join(command)}", folders, directory, log)
    ours = [sys.executable, "-m", "vmtest"]
    argv = [*ours, *command[1:]] if command[0] == "vmtest" else list(command)
    try:
        done = interrupt.run(argv, merged=True, cwd=directory, env=_environment())
    except OSError as error:
        raise BuildCommandFailed(
            f"kernels.toml: [build]: cannot run {shlex.join(command)}: {error.strerror}"
        ) from error
    if done.returncode == 0:
        return ()
    said = _tail(done.stdout, log)
    if done.returncode == 3:
        raise InfrastructureError(said)
    raise BuildCommandFailed(
        f"kernels.toml: [build]: {shlex.join(command)} ended with status {done.returncode}:\n{said}"
    )


def _environment() -> dict[str, str]:
    """The user's, with the folder of our own tools behind all others of PATH."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
    return {**os.environ, "PATH": path}


def _own_build(command: Sequence[str]) -> tuple[Path, Path] | None:
    """Source and target of a ``vmtest build`` with no more to it than their options."""
    folders = {"--source": Path(SOURCE), "--target": Path(TARGET)}
    options = command[2:]
    if tuple(command[:2]) != ("vmtest", "build") or len(options) % 2:
        return None
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option not in folders:
            return None
        folders[option] = Path(value)
    return folders["--source"], folders["--target"]


def _build_here(
    what: str, folders: tuple[Path, Path], directory: Path, log: Path
) -> Sequence[Path]:
    """What run_build does for ``vmtest build``; ``what`` begins its errors."""
    try:
        return build_all(*(directory / folder for folder in folders))
    except ClangFailed as error:
        name = os.path.relpath(error.program, directory)
        where = _kept(error.said, log) if len(error.said.splitlines()) > _ERROR_LINES else ""
        said = f"{what}: {name}: clang failed{where}:\n{_head(error.said)}"
        raise BuildCommandFailed(said) from error
    except UsageError as error:
        raise BuildCommandFailed(f"{what}: {error}") from error
    except InfrastructureError as error:
        raise InfrastructureError(f"{what}: {error}") from error
    except OSError as error:
        raise InfrastructureError(f"{what}: {os_words(error)}") from error


def _kept(text: str, log: Path) -> str:
    """Words that say where ``text`` is, which has been written to ``log``."""
    with suppress(OSError):  # the words of the command that failed matter more
        log.parent.mkdir(exist_ok=True)
        write_file(log, text)
        return f"; all of it: {log}"
    return ""


def _tail(text: str, log: Path) -> str:
    """The last lines of ``text``, which is in ``log`` as a whole if it is longer."""
    lines = text.strip().splitlines()
    if len(lines) <= _ERROR_LINES:
        return "\n".join(lines)
    left = f"... {len(lines) - _ERROR_LINES} lines before{_kept(text, log)}"
    return "\n".join([left, *lines[-_ERROR_LINES:]])

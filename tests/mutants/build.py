"""Mutants -> objects: which objects of the payload a mutant changes, and to what."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import code
from tests.mutants.operators import Mutant
from vmtest.errors import BuildCommandFailed, UsageError
from vmtest.objects import builds as objects
from vmtest.objects import compile

_HANG = 60.0
"""Seconds after which clang will not come back."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One object: its name in kernels.toml, its source and all that was read (in bpf/).

    ``digest`` is of its code, ``inputs`` of every byte that clang has read.
    """

    name: str
    source: str
    reads: frozenset[str]
    digest: str
    inputs: str


@dataclass(frozen=True, slots=True)
class Built:
    """A mutant's objects that are not the original's, by name; ``error`` when clang refused."""

    objects: Mapping[str, bytes]
    signature: str
    error: str = ""


def source_of(name: str, path: Path, programs: Path) -> str:
    """The file below ``programs`` that ``path`` is compiled from; raises UsageError.

    ``build/mocks/a.bpf.o`` comes from ``mocks/a.bpf.c`` and not from ``a.bpf.c``.
    """
    wanted = path.with_suffix(".c")
    found = [
        below
        for each in programs.rglob(wanted.name)
        if (below := each.relative_to(programs)).parts == wanted.parts[-len(below.parts) :]
    ]
    if not found:
        raise UsageError(
            f'object "{name}" ({path}): there is no {wanted.name} in {programs} to mutate; '
            f"leave its suites out, or build it from there"
        )
    return str(max(found, key=lambda below: len(below.parts)))


class Kept:
    """What clang made of earlier texts, in ``folder``: compiling is a large part of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._used: set[str] = set()

    def get(self, key: str) -> tuple[str, bytes] | None:
        """The error ("" for none) and the object."""
        self._used.add(key)
        try:
            error, data = (self._folder / key).read_bytes().split(b"\n", 1)
        except FileNotFoundError:
            return None
        return error.decode(), zlib.decompress(data)

    def put(self, key: str, error: str, data: bytes) -> None:
        """Keep; whole or not at all."""
        new = self._folder / f"{key}.new"
        new.write_bytes(error.encode() + b"\n" + zlib.compress(data, 1))
        new.rename(self._folder / key)

    def prune(self) -> None:
        """Throw away what nobody has asked for."""
        for path in self._folder.iterdir():
            if path.name not in self._used:
                path.unlink()


class Workshop:
    """A copy of bpf/ in which one mutant at a time is compiled."""

    def __init__(self, programs: Path, folder: Path, kept: Kept | None = None) -> None:
        self._kept = kept
        shutil.rmtree(folder, ignore_errors=True)
        self._tree = folder / "bpf"
        self._out = folder / "out"
        shutil.copytree(programs, self._tree)
        self._out.mkdir()

    def survey(self, name: str, source: str) -> tuple[Unit, bytes]:
        """The unmutated object ``name`` and what it is made of; raises BuildCommandFailed."""
        error, data = self._compile(source)
        if error:
            raise BuildCommandFailed(f"{source}: clang failed:\n{error}")
        notes = (self._out / "object.o.d").read_text().replace("\\\n", " ").partition(":")[2]
        tree = self._tree.resolve()
        read = [Path(entry).resolve() for entry in notes.split()]
        inside = frozenset(str(p.relative_to(tree)) for p in read if p.is_relative_to(tree))
        inputs = hashlib.sha256(subprocess.check_output(["clang", "--version"]))
        # The flags, too.
        for path in [Path(__file__), Path(objects.__file__), *sorted(read)]:
            inputs.update(path.read_bytes())
        return Unit(name, source, inside, code.digest(data), inputs.hexdigest()), data

    def build(self, mutant: Mutant, units: Sequence[Unit]) -> Built:
        """Compile what ``mutant`` reaches; units that come out unchanged are left out."""
        file = self._tree / mutant.file
        text = file.read_bytes()
        mutated = mutant.apply(text)
        changed: dict[str, bytes] = {}
        digests: list[str] = []
        file.write_bytes(mutated)
        try:
            for unit in units:
                if mutant.file not in unit.reads:
                    continue
                error, data = self._made(unit, mutant.file, mutated)
                if error:
                    return Built({}, "", error)
                digest = code.digest(data)
                if digest != unit.digest:
                    changed[unit.name] = data
                    digests.append(f"{unit.name}:{digest}")
        finally:
            file.write_bytes(text)
        return Built(changed, " ".join(digests))

    def _made(self, unit: Unit, file: str, text: bytes) -> tuple[str, bytes]:
        """The object of ``unit`` with ``file`` reading ``text``, out of what was kept if there."""
        if self._kept is None:
            return self._compile(unit.source)
        named = f"{unit.inputs} {unit.source} {file}\n".encode()
        key = hashlib.sha256(named + text).hexdigest()
        found = self._kept.get(key)
        if found is None:
            found = self._compile(unit.source)
            self._kept.put(key, *found)
        return found

    def _compile(self, source: str) -> tuple[str, bytes]:
        """Clang's first error ("" for none) and the object."""
        target = self._out / "object.o"
        argv = compile.clang_argv(self._tree / source, target, self._tree / "include")
        # A mutant may leave a variable unused or compare nonsense: that is its nature. But a
        # function that nobody declares is no program.
        argv += ["-Wno-everything", "-Werror=implicit-function-declaration"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_HANG)
        except subprocess.TimeoutExpired:
            return "clang did not come back", b""
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error:" in line]
            return (errors or done.stderr.splitlines() or ["clang failed"])[0], b""
        return "", target.read_bytes()

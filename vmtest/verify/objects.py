"""Which objects ``vmtest verify`` loads, and their payload.

Objects go into the guest under numbers: what a file is called cannot matter there,
and two of one name are two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host.files import FileContent, Files, tar
from vmtest.matrix.payload import module_list
from vmtest.model.loads import LoadResult, Reason, Verdict
from vmtest.model.project import ObjectFile
from vmtest.model.versions import KernelVersion
from vmtest.objects.builds import builds_for, check_object, is_foreign_elf, read_object
from vmtest.rootfs.cilium import OtherLoader
from vmtest.verify.ahead import loader_member
from vmtest.verify.process import Order, Wanted
from vmtest.vm.guest_code import guest_code

OBJECT_LIMIT = 64 << 20
"""Bytes of one object beyond which it is not loaded."""
TOTAL_LIMIT = 256 << 20
"""Bytes of all objects together that a guest's memory has room for."""


@dataclass(frozen=True, slots=True)
class Given:
    """One object to load: ``build.name`` is its row, ``tail`` where it is in another folder."""

    build: ObjectFile
    tail: Path


def configured(objects: Sequence[ObjectFile], directory: Path) -> tuple[Given, ...]:
    """The ``[[object]]`` of a project in ``directory``; builds of one object share a row."""
    return tuple(Given(build, _below(build.path, directory)) for build in objects)


def expand(
    arguments: Sequence[str], objects: Sequence[ObjectFile], directory: Path
) -> tuple[Given, ...]:
    """The objects that ``OBJECT|DIR|GLOB ...`` mean, relative to ``directory``.

    The name of an ``[[object]]`` of ``objects`` means its builds, each on its kernels.  A file
    that is an ``[[object]]`` too is loaded as that says, on every kernel.  In a folder it is
    every ``*.o`` but those for another machine.  Raises UsageError for an argument that means
    nothing, and when nothing of it can be loaded.
    """
    known = {build.path.resolve(): build for build in reversed(objects)}
    found: dict[Path, Given] = {}
    for argument in arguments:
        if builds := named(argument, objects, directory):
            for build in builds:
                found.setdefault(build.path.resolve(), Given(build, _below(build.path, directory)))
            continue
        for path, tail in _meant(argument, directory, objects):
            own = known.get(path.resolve())
            name = path.relative_to(directory) if path.is_relative_to(directory) else path
            build = ObjectFile(str(name), path)
            if own is not None:
                build = replace(build, required=own.required, loading=own.loading)
            found.setdefault(path.resolve(), Given(build, tail))
    reasons = [_unloadable(given.build) for given in found.values()]
    if all(reasons):
        raise UsageError("\n".join(reason.text for reason in reasons if reason))
    return tuple(found.values())


def named(argument: str, objects: Sequence[ObjectFile], directory: Path) -> tuple[ObjectFile, ...]:
    """The builds of the ``[[object]]`` of that name; none where a file is called that."""
    if (directory / argument).is_file():
        return ()
    return tuple(build for build in objects if build.name == argument)


def _meant(
    argument: str, directory: Path, objects: Sequence[ObjectFile]
) -> list[tuple[Path, Path]]:
    path = directory / argument
    if path.is_dir():
        below = [p for p in sorted(path.rglob("*.o")) if p.is_file() and not is_foreign_elf(p)]
        if not below:
            raise UsageError(f"{argument}: has no BPF object (*.o) in it; build first")
        return [(p, p.relative_to(path)) for p in below]
    if path.exists():
        return [(path, Path(path.name))]
    if not any(magic in argument for magic in "*?["):
        there = ", ".join(dict.fromkeys(build.name for build in objects))
        configured = f", or an [[object]] of kernels.toml ({there})" if there else ""
        raise UsageError(
            f"{argument}: does not exist; name an object, a folder of objects, or a pattern"
            f"{configured}"
        )
    try:
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:
        raise UsageError(f"{argument}: {error}; write for example 'build/**/*.o'") from error
    files = [p for p in matches if p.is_file()]
    if not files:
        raise UsageError(f"{argument}: matches no file; build first, or quote the pattern")
    return [(p, Path(p.name)) for p in files]


def in_folder(given: Sequence[Given], folder: Path) -> tuple[Given, ...]:
    """The objects of ``folder`` that go with ``given``: at the same place, else of the same name.

    Raises UsageError when there is none.
    """
    found = []
    for one in given:
        for path in (folder / one.tail, folder / one.tail.name):
            if path.is_file():
                found.append(replace(one, build=replace(one.build, path=path)))
                break
    if not found:
        first = given[0].tail
        raise UsageError(f"`against` {folder}: has none of these objects (not {first}, for one)")
    return tuple(found)


def _below(path: Path, directory: Path) -> Path:
    return path.relative_to(directory) if path.is_relative_to(directory) else Path(path.name)


@dataclass(frozen=True, slots=True)
class Load:
    """One kernel's objects: the archive with them, the order, and what cannot be loaded.

    ``objects`` and ``others`` have name and sha256 of those asked for and of those
    compared with; ``against`` names the latter, "" without any.
    """

    archive: bytes
    order: Order
    refused: tuple[LoadResult, ...]
    objects: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...] = ()
    against: str = ""


def pack_objects(
    given: Sequence[Given],
    others: Sequence[Given],
    version: KernelVersion,
    order: Order,
    against: str = "",
    config: Path | None = None,
    files: Files | None = None,
    loaders: Sequence[OtherLoader] = (),
) -> Load:
    """What goes into a guest of ``version``; ``order`` says all but the objects.

    ``loaders`` are those of ``order``, in its order.
    ``config`` is the kernel's, which the guest gets: what a missing kconfig is told by.
    ``files`` reads the objects, for every kernel of a run.

    Raises UsageError for an object that is not there, when none can be loaded at all,
    and when all together are too much.
    """
    files = files or Files()
    members: dict[str, FileContent | bytes] = {}
    wanted: list[Wanted] = []
    refused: list[LoadResult] = []
    digests: dict[bool, dict[str, str]] = {False: {}, True: {}}
    size = 0
    for other, some in ((False, given), (True, others)):
        for build in builds_for((one.build for one in some), version):
            why = _unloadable(build)
            if why is not None and not other:
                refused.append(_refused(build, why))
            if why is not None:
                continue
            member = f"objects/{len(wanted):03d}.o"
            content = read_object(build.name, build.path, files)
            members[member], digests[other][build.name] = content, content.sha256
            size += len(content.data)
            wanted.append(
                Wanted(build.name, member, build.loading, build.required, other, build.path)
            )
    if not any(not one.other for one in wanted):
        words = [f"{one.object}: {one.line}" for one in refused]
        raise UsageError("\n".join(words) or f"no object is for kernel {version}")
    if size > TOTAL_LIMIT:
        raise UsageError(
            f"these objects have {size >> 20} MiB together, more than {TOTAL_LIMIT >> 20}; "
            "verify them in two runs"
        )
    if config is not None:
        order = replace(order, config="config")
    modules = [*order.modules, *(name for one in wanted for name in one.loading.modules)]
    members |= _programs(loaders)
    members |= module_list(list(dict.fromkeys(modules)))
    return Load(
        tar({**guest_code(files), **members}),
        replace(order, objects=tuple(wanted)),
        tuple(refused),
        tuple(sorted(digests[False].items())),
        tuple(sorted(digests[True].items())),
        against,
    )


def _programs(loaders: Sequence[OtherLoader]) -> dict[str, FileContent | bytes]:
    """The members of a payload that are ``loaders``."""
    return {
        loader_member(number): FileContent(one.data, True, hashlib.sha256(one.data).hexdigest())
        for number, one in enumerate(loaders)
    }


def _unloadable(build: ObjectFile) -> Reason | None:
    """Why ``build`` need not even be tried."""
    if not build.path.exists():
        check_object(build.name, build.path)  # raises: nobody can say anything of it
    try:
        check_object(build.name, build.path)
    except UsageError as error:
        return Reason(
            "object", str(error), "give an object that clang -target bpf made", "its ELF header"
        )
    size = build.path.stat().st_size
    if size > OBJECT_LIMIT:
        return Reason(
            "object",
            f'object "{build.name}": {size >> 20} MiB, more than {OBJECT_LIMIT >> 20}',
            "strip its DWARF: llvm-strip -g keeps BTF",
            f"its size is {size} bytes",
        )
    return None


def _refused(build: ObjectFile, why: Reason) -> LoadResult:
    return LoadResult(
        build.name,
        "",
        Verdict.OPEN_FAILED,
        line=why.text,
        reason=why,
        required=build.required,
    )

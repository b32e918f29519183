"""Program types that are told on the command line (``--type``), checked before anything boots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from vmtest.config.schema import check_program_type
from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.objects.inspect import ProgramInfo, inspect
from vmtest.objects.sections import attach_types_of
from vmtest.verify.objects import Given

METAVAR = "[OBJECT:]PROGRAM=TYPE[:ATTACH]"
HELP = "a program's type, where libbpf cannot see it from the section's name."
"""How a command line shows the option."""
_FORM = "[OBJECT:]PROGRAM=TYPE[:ATTACH], for example auth=xdp or mesh.bpf.o:auth=xdp"
# The kernel refuses these without an attach type: bpf_prog_load_check_attach().
_WANT_ATTACH = ("cgroup_sock_addr", "cgroup_sockopt")


@dataclass(frozen=True, slots=True)
class Told:
    """One ``--type``: ``text`` as it was written, ``object`` is "" for all of them.

    ``program`` is a name or a glob, ``kind`` is ``TYPE[:ATTACH]`` in libbpf's names.
    """

    text: str
    object: str
    program: str
    kind: str

    @property
    def closeness(self) -> tuple[bool, bool]:
        """How much it says of where it holds: a name is closer than a glob, both than nothing."""
        return self.object != "", not _is_glob(self.program)


def parse(given: Sequence[str]) -> tuple[Told, ...]:
    """What ``--type`` says, each ``[OBJECT:]PROGRAM=TYPE[:ATTACH]``.

    Raises UsageError for another form, and for a type that libbpf does not know.
    """
    return tuple(map(_parsed, given))


def _parsed(text: str) -> Told:
    # The name of an object may hold anything, that of a type has no "=".
    place, separator, kind = text.rpartition("=")
    object_, colon, program = place.rpartition(":")
    if not (separator and program and kind) or (colon and not object_):
        raise UsageError(f"`types` {text}: write {_FORM}")
    try:
        check_program_type(kind)
    except ValueError as error:
        raise UsageError(f"`types` {text}: {error}") from error
    return Told(text, object_, program, kind)


def told_to(given: Sequence[Given], told: Sequence[Told], folder: Path) -> tuple[Given, ...]:
    """``given`` with the types of ``told``, which win over those of kernels.toml.

    An OBJECT is a row's name, a path relative to ``folder``, a pattern for one of both, or the
    name of a file that only one object has.  Raises UsageError for an object or a program that is
    not there, for one that is told two types, and for a type that needs an attach type.
    """
    if not told:
        return tuple(given)
    places = {one: _meant(one, given, folder) for one in told}
    programs = {path: _programs(path) for path in {one.build.path for one in given}}
    for one, objects in places.items():
        _check_program(one, [programs[o.build.path] for o in objects])
    return tuple(
        _with_types(one, [t for t in told if one in places[t]], programs[one.build.path])
        for one in given
    )


def of_other_builds(others: Sequence[Given], given: Sequence[Given]) -> tuple[Given, ...]:
    """``others``, the builds to compare with, with the types of the rows that they belong to."""
    types = {one.build.name: one.build.loading.types for one in given}
    return tuple(
        _typed(one, types[one.build.name]) if types.get(one.build.name) else one for one in others
    )


def _meant(told: Told, given: Sequence[Given], folder: Path) -> list[Given]:
    if not told.object:
        return list(given)
    path = (folder / told.object).resolve()
    found = [
        one
        for one in given
        if fnmatchcase(one.build.name, told.object)
        or one.build.name == told.object
        or one.build.path.resolve() == path
    ]
    if found:
        return found
    found = [one for one in given if told.object in _short_names(one)]
    names = sorted({one.build.name for one in found})
    if len(names) > 1:
        raise UsageError(
            f"`types` {told.text}: {told.object} may be any of {', '.join(names)}; write one of "
            "these"
        )
    if not found:
        rows = sorted({one.build.name for one in given})
        raise UsageError(
            f'`types` {told.text}: there is no object "{told.object}"'
            f"{suggestion(told.object, rows)}"
        )
    return found


def _short_names(given: Given) -> tuple[str, ...]:
    file = given.build.path.name
    return file, file.removesuffix(".o"), file.removesuffix(".o").removesuffix(".bpf")


def _programs(path: Path) -> tuple[ProgramInfo, ...] | None:
    """The programs of an object; None where nobody on the host can say."""
    try:
        return tuple(info for info in inspect(path).programs if info.type != "function")
    except UsageError:
        return None


def _check_program(told: Told, of: Iterable[tuple[ProgramInfo, ...] | None]) -> None:
    names: set[str] = set()
    for programs in of:
        if programs is None:
            return  # a guest's libbpf may read it
        names |= {info.name for info in programs}
    if not any(_fits(told, name) for name in names):
        raise UsageError(
            f'`types` {told.text}: there is no program "{told.program}"'
            f"{suggestion(told.program, names)}"
        )


def _with_types(
    given: Given, told: Sequence[Told], programs: tuple[ProgramInfo, ...] | None
) -> Given:
    if programs is None:
        return _typed(given, {one.program: one.kind for one in told})
    types = {}
    for info in programs:
        fitting = [one for one in told if _fits(one, info.name)]
        if fitting:
            types[info.name] = _kind(given, info, fitting)
    return _typed(given, types)


def _kind(given: Given, info: ProgramInfo, fitting: Sequence[Told]) -> str:
    """The type of a program by the closest of those that fit it; there is at least one."""
    closest = max(one.closeness for one in fitting)
    by_kind = {one.kind: one for one in fitting if one.closeness == closest}
    if len(by_kind) > 1:
        said = " and ".join(f"`types` {one.text}" for one in by_kind.values())
        raise UsageError(
            f"{said}: give {info.name} of {given.build.name} different types; remove one of them"
        )
    ((kind, told),) = by_kind.items()
    if kind in _WANT_ATTACH and info.type != kind:
        raise UsageError(
            f"`types` {told.text}: a {kind} program needs an attach type; write "
            f"{told.text}:ATTACH, with one of {', '.join(attach_types_of(kind))}"
        )
    return kind


def _typed(given: Given, types: Mapping[str, str]) -> Given:
    loading = given.build.loading
    loading = replace(loading, types={**loading.types, **types})
    return replace(given, build=replace(given.build, loading=loading))


def _fits(told: Told, program: str) -> bool:
    return told.program == program or fnmatchcase(program, told.program)


def _is_glob(program: str) -> bool:
    return any(magic in program for magic in "*?[")

"""kernels.toml -> ``Config``: strictly validated, all problems at once, no I/O beyond the file.

pydantic finds what is wrong; this module says it in the terms of the file, with
place and cure.  Whether a path exists is not asked here (``vmtest build`` may
be about to make it).
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from vmtest.config.extras import of_extras
from vmtest.config.schema import (
    SOURCES,
    ArchiveTable,
    BuildTable,
    DefaultsTable,
    DnfTable,
    FileTables,
    FlakyTable,
    GuestTable,
    KernelTable,
    KnownFailureTable,
    KnownSplatTable,
    ObjectTable,
    OciTable,
    PackageTable,
    Strict,
    SuiteTable,
    TreeTable,
    is_path,
    libbpf_choice,
)
from vmtest.config.suggest import suggestion
from vmtest.config.suites import suite_of, wrong_roots
from vmtest.errors import ConfigError, UsageError
from vmtest.model.kernels import (
    MAINLINE,
    AptArchive,
    AptSpec,
    Archive,
    ArchiveSpec,
    DnfArchive,
    DnfSpec,
    GuestSpec,
    Kernel,
    KernelSpec,
    Limits,
    MainlineArchive,
    MainlineSpec,
    OciArchive,
    OciSpec,
    PackageFile,
    PackageSpec,
    PathSpec,
    TreeSpec,
)
from vmtest.model.project import Config, FlakyTest, KnownFailure, KnownSplat, ObjectFile
from vmtest.model.versions import unique


def with_libbpf(config: Config, given: Sequence[str], directory: Path) -> Config:
    """``config`` with the libbpf of ``--libbpf`` in the place of its own; raises UsageError.

    Paths are relative to ``directory``.
    """
    try:
        libbpf_choice(list(given))
    except ValueError as error:
        raise UsageError(f"`libbpf` {' '.join(given)}: {error}") from error
    chosen = tuple(str(directory / Path(one)) if is_path(one) else one for one in given)
    return replace(config, guest=replace(config.guest, libbpf=chosen))


def find(start: Path) -> Path:
    """kernels.toml in ``start`` or the nearest folder above it; raises UsageError."""
    for folder in (start, *start.parents):
        candidate = folder / "kernels.toml"
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"there is no kernels.toml in {start} nor above it; "
        "`vmtest init` writes one, `vmtest docs kernels-toml` explains it, `config` FILE names one"
    )


def builtin(directory: Path) -> Config:
    """The matrix that comes with vmtest, for a project in ``directory`` without a kernels.toml."""
    text = (files("vmtest") / "default_kernels.toml").read_text(encoding="utf-8")
    return parse(text, directory / "kernels.toml")


def load(file: Path) -> Config:
    """Read ``file``; raises ConfigError with every problem, or UsageError when unreadable."""
    file = file.absolute()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist; name another with `config` FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {file}: {reason}; check its permissions") from error
    return parse(text, file)


def parse(text: str, file: Path) -> Config:
    """Turn the ``text`` of ``file`` into a Config; raises ConfigError with every problem."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers that Python does not read
        last = len(text.rstrip().splitlines())
        why = str(error).replace("(at end of document)", f"(at line {last}, the last)")
        raise ConfigError([f"{file.name}: is not valid TOML: {why}"]) from error
    problems: list[str] = []
    try:
        parsed = FileTables.model_validate(data)
    except ValidationError as error:
        problems = [_explain(e, data, file) for e in error.errors()]
        try:
            parsed = FileTables.model_validate(_without(data, error.errors()))
        except ValidationError:
            raise ConfigError(problems) from error
    problems += _cross_check(parsed, file)
    if problems:
        raise ConfigError(problems)
    return _convert(parsed, file)


# What is wrong must not count as missing, too.
_INSTEAD = {"version": "*", "url": "https://example.org/x", "sha256": "0" * 64, "mainline": "v1.0"}


def _without(data: Mapping[str, Any], errors: Sequence[Any]) -> dict[str, Any]:
    """``data`` without the keys that ``errors`` are about, to find what else is wrong."""
    rest = copy.deepcopy(dict(data))
    for error in errors:
        *path, key = error["loc"]
        table: Any = rest
        try:
            for part in path:
                table = table[part]
            if error["type"] != "missing":
                table.update({key: _INSTEAD[key]}) if key in _INSTEAD else table.pop(key, None)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # within a list or a union: there is no key to take away
    return rest


def _convert(parsed: FileTables, file: Path) -> Config:
    base = file.parent
    guest = parsed.guest
    root = guest.root
    if root not in ("debian", "host"):
        root = str(base / Path(root).expanduser())
    return Config(
        file=file,
        kernels=tuple(_kernel(kernel, parsed.defaults, base) for kernel in parsed.kernel),
        suites=tuple(suite_of(suite, base) for suite in parsed.suite),
        objects=tuple(
            ObjectFile(o.name, base / o.path, o.kernels, o.required, o.loading)
            for o in parsed.object
        ),
        archives=_archives(parsed, base),
        guest=GuestSpec(
            root,
            guest.suite,
            tuple(guest.packages),
            tuple(base / w for w in guest.wheels),
            tuple(str(base / Path(v).expanduser()) if is_path(v) else v for v in guest.libbpf),
            unique((*guest.requirements, *of_extras(guest.extras, base / "pyproject.toml"))),
            guest.pytest or "",
            base / "pyproject.toml" if guest.extras else None,
        ),
        build=None if parsed.build is None else tuple(parsed.build.command),
        known_failures=tuple(
            KnownFailure(known.test, known.reason, known.kernels, known.until, known.strict)
            for known in parsed.known_failure
        ),
        known_splats=tuple(
            KnownSplat(known.pattern, known.reason, known.kernels, known.until)
            for known in parsed.known_splat
        ),
        flaky=tuple(
            FlakyTest(one.test, one.reason, one.kernels, one.until, one.limit)
            for one in parsed.flaky
        ),
        defaults=Kernel(
            name="",
            spec=AptSpec("", "*"),
            memory_mib=parsed.defaults.memory,
            cpus=parsed.defaults.cpus,
            limits=Limits(
                boot=parsed.defaults.boot_timeout,
                silence=parsed.defaults.silence_timeout,
                total=parsed.defaults.suite_timeout,
                stall=parsed.defaults.stall_timeout,
            ),
            retries=parsed.defaults.retries,
        ),
    )


def _archives(parsed: FileTables, base: Path) -> dict[str, Archive]:
    """The archives by their names, in the order of the kinds."""
    archives: dict[str, Archive] = {}
    for name, apt in parsed.apt.items():
        archives[name] = AptArchive(
            name=name,
            suites=tuple(apt.suites),
            mirror=apt.mirror,
            security_mirror=apt.security_mirror,
            keyring=None if apt.keyring is None else base / apt.keyring,
            check_valid_until=apt.check_valid_until,
            max_index_age=apt.max_index_age,
            distribution=apt.distribution,
            components=tuple(apt.components),
            flavour=apt.flavour,
        )
    for name, dnf in parsed.dnf.items():
        archives[name] = DnfArchive(
            name=name,
            suites=tuple(dnf.repositories),
            mirror=dnf.mirror,
            mirror_list=dnf.mirror_list,
            keyring=None if dnf.keyring is None else base / dnf.keyring,
            signed=dnf.signed,
            kernel=dnf.kernel,
            max_index_age=dnf.max_index_age,
        )
    for name, oci in parsed.oci.items():
        archives[name] = OciArchive(
            name, (oci.image,), tags=oci.tags, max_index_age=oci.max_index_age
        )
    if any(kernel.mainline is not None for kernel in parsed.kernel):
        archives.setdefault(MAINLINE, MainlineArchive())
    return archives


def _kernel(kernel: KernelTable, defaults: DefaultsTable, base: Path) -> Kernel:
    spec: KernelSpec
    if kernel.path is not None:
        spec = PathSpec(
            base / kernel.path,
            None if kernel.modules is None else base / kernel.modules,
            None if kernel.config is None else base / kernel.config,
        )
    elif kernel.package is not None:
        spec = PackageSpec(
            tuple(
                PackageFile(f.url if f.url is not None else base / (f.path or ""), f.sha256)
                for f in kernel.package
            )
        )
    elif kernel.mainline is not None:
        spec = MainlineSpec(MAINLINE, kernel.mainline)
    elif kernel.tree is not None:
        fragment = kernel.tree.config
        spec = TreeSpec(
            base / kernel.tree.path.expanduser(),
            kernel.tree.rev,
            None if fragment is None else base / fragment,
        )
    else:
        table, archive = _archive_of(kernel)
        assert archive is not None and kernel.version is not None  # _cross_check
        spec = _ASKS[table](archive, kernel.version, tuple(kernel.suites))

    def chosen(key: str) -> Any:
        own = getattr(kernel, key)
        return getattr(defaults, key) if own is None else own

    return Kernel(
        name=kernel.name,
        spec=spec,
        tags=unique(kernel.tags),
        gate=kernel.gate,
        memory_mib=chosen("memory"),
        cpus=chosen("cpus"),
        limits=Limits(
            boot=chosen("boot_timeout"),
            silence=chosen("silence_timeout"),
            total=chosen("suite_timeout"),
            stall=chosen("stall_timeout"),
        ),
        cmdline=tuple(kernel.cmdline),
        retries=chosen("retries"),
    )


_ASKS: Mapping[str, type[ArchiveSpec]] = {spec.table: spec for spec in (AptSpec, DnfSpec, OciSpec)}
"""The kinds of archives, by the key of a ``[[kernel]]``."""

_ONLY_FOR = {
    tuple(_ASKS): ("version", "suites"),
    ("path",): ("modules", "config"),
}


def _archive_of(kernel: KernelTable) -> tuple[str, str | None]:
    """The kind and the name of the archive that a kernel is from."""
    for table in _ASKS:
        if (name := getattr(kernel, table)) is not None:
            return table, name
    return "", None


def _unknown_homes(parsed: FileTables, file: Path) -> Iterator[str]:
    """The paths that begin with the home folder of a user who is not known."""
    paths = [("[guest]: root", parsed.guest.root)]
    paths += [("[guest]: libbpf", one) for one in parsed.guest.libbpf if is_path(one)]
    trees = [(kernel.name, kernel.tree) for kernel in parsed.kernel if kernel.tree is not None]
    paths += [(f'kernel "{name}": tree: path', str(tree.path)) for name, tree in trees]
    for place, path in paths:
        try:
            Path(path).expanduser()
        except RuntimeError:
            home = path.partition("/")[0]
            yield (
                f'{file.name}: {place} = "{path}": the home folder {home} is not known; '
                "write the path in full"
            )


def _cross_check(parsed: FileTables, file: Path) -> Iterator[str]:
    """What concerns more than one key; yields a problem a time."""
    yield from _unknown_homes(parsed, file)
    for kernel in parsed.kernel:
        place = f'{file.name}: kernel "{kernel.name}"'
        sources = [key for key in SOURCES if getattr(kernel, key) is not None]
        if len(sources) != 1:
            found = " and ".join(sources) or "none"
            yield f"{place}: needs exactly one of {', '.join(SOURCES)} (has {found})"
            continue
        for allowed, keys in _ONLY_FOR.items():
            for key in keys:
                if sources[0] not in allowed and getattr(kernel, key):
                    yield (
                        f'{place}: "{key}" goes with {" and ".join(allowed)}, not with '
                        f"{sources[0]}; remove it"
                    )
        for number, package in enumerate(kernel.package or (), 1):
            where = f"{place}: package number {number}"
            if (package.path is None) == (package.url is None):
                yield f"{where}: needs exactly one of path and url"
            elif package.url is not None and package.sha256 is None:
                yield f"{where}: needs the sha256 of what is at its url"
        yield from _archive_problems(kernel, parsed, place)
    for name in unique(name for table in _ASKS for name in getattr(parsed, table)):
        tables = [f"[{table}.{name}]" for table in _ASKS if name in getattr(parsed, table)]
        if name == MAINLINE:
            yield f"{file.name}: {tables[0]}: mainline is the name of upstream's; choose another"
        if len(tables) > 1:
            yield f"{file.name}: {' and '.join(tables)} have one name; rename one"
    yield from _repeated("kernel", [kernel.name for kernel in parsed.kernel], file)
    yield from _repeated("suite", [suite.name for suite in parsed.suite], file)
    yield from _repeated("suite tests", [str(suite.tests) for suite in parsed.suite], file)
    for what, tests in (("known_failure", parsed.known_failure), ("flaky", parsed.flaky)):
        known = [f"{k.test} ({k.kernels.text if k.kernels else 'all'})" for k in tests]
        yield from _repeated(what, known, file)
    splats = [f"{k.pattern} ({k.kernels.text if k.kernels else 'all'})" for k in parsed.known_splat]
    yield from _repeated("known_splat", splats, file)
    yield from wrong_roots(parsed.suite, file)
    names = {build.name for build in parsed.object}
    for wanted in parsed.suite:
        for name in wanted.objects:
            if name not in names:
                hint = suggestion(name, names)
                yield f'{file.name}: suite "{wanted.name}": there is no [[object]] "{name}"{hint}'


def _archive_problems(kernel: KernelTable, parsed: FileTables, place: str) -> Iterator[str]:
    """What is wrong about the archive that a kernel is from."""
    table, archive = _archive_of(kernel)
    if archive is None:
        return
    if kernel.version is None:
        yield f'{place}: needs a version, for example version = "6.12.*"'
    archives = getattr(parsed, table)
    if archive not in archives:
        yield f"{place}: there is no [{table}.{archive}]{suggestion(archive, archives)}"
        return
    found = archives[archive]
    match found:
        case DnfTable():
            known = found.repositories
        case OciTable():
            known = [found.image]
        case _:
            known = found.suites
    for suite in kernel.suites:
        if suite not in known:
            hint = suggestion(suite, known)
            yield f'{place}: [{table}.{archive}] has no suite "{suite}"{hint}'


def _repeated(what: str, names: Sequence[str], file: Path) -> Iterator[str]:
    for name in unique(names):
        if names.count(name) > 1:
            yield f'{file.name}: {what} "{name}" stands {names.count(name)} times; keep one'


_ARCHIVES: Mapping[str, type[Strict]] = {"apt": ArchiveTable, "dnf": DnfTable, "oci": OciTable}
_TABLES: Mapping[str, type[Strict]] = {
    "defaults": DefaultsTable,
    "guest": GuestTable,
    "build": BuildTable,
    "kernel": KernelTable,
    "suite": SuiteTable,
    "object": ObjectTable,
    "known_failure": KnownFailureTable,
    "known_splat": KnownSplatTable,
    "flaky": FlakyTable,
}

_LISTS = {
    "kernel": "name",
    "suite": "name",
    "object": "name",
    "known_failure": "test",
    "known_splat": "pattern",
    "flaky": "test",
}
"""The tables of which there are many, and the key that tells one from the others."""


_TO_ADD = {"schema": ": add schema = 1", "kernel": ": add a [[kernel]]"}
"""The cure for what every file has to have."""


def _explain(error: Any, data: Mapping[str, Any], file: Path) -> str:
    """One pydantic error in the terms of the file."""
    location: tuple[int | str, ...] = error["loc"]
    place, keys, table = _place(location, data)
    prefix = ": ".join([file.name, *([place] if place else [])])
    key = ".".join(str(part) for part in keys)
    match error["type"]:
        case "extra_forbidden":
            return f'{prefix}: unknown key "{key}"{suggestion(str(keys[-1]), _keys(table))}'
        case "missing":
            return (
                f'{prefix}: the key "{key}" is missing{_TO_ADD.get(key, "") if not place else ""}'
            )
        case "value_error" if str(error["ctx"]["error"]).startswith(repr(error["input"])):
            return f"{prefix}: {key} = {error['ctx']['error']}"
        case "value_error":
            return f"{prefix}: {key} = {error['input']!r} {error['ctx']['error']}"
        case "literal_error" if key == "schema":
            return (
                f"{prefix}: schema = {error['input']!r} is not known; this vmtest reads schema = 1"
            )
        case "int_type" | "bool_type" | "string_type" | "list_type":
            return f"{prefix}: {key} = {error['input']!r} {_kind(error['type'], error['input'])}"
    why = error["msg"][:1].lower() + error["msg"][1:]
    if why.startswith("input should be "):
        return (
            f"{prefix}: {key} = {error['input']!r} must be {why.removeprefix('input should be ')}"
        )
    return f"{prefix}: {key} = {error['input']!r}: {why}"


def _kind(wanted: str, value: object) -> str:
    """What kind of value is wanted, and how this one would be written."""
    match wanted, value:
        case "int_type", str() if value.strip().isdecimal():
            return f"is not a number but text; write {value.strip()} without quotes"
        case "int_type", _:
            return "is not a whole number; write for example 2"
        case "bool_type", _:
            return "is neither true nor false; write one of them without quotes"
        case "string_type", int() | float() if not isinstance(value, bool):
            return f'is not text; write "{value}"'
        case "string_type", _:
            return "is not text; write it in quotes"
        case "list_type", str():
            return f'is not a list; write ["{value}"]'
        case "list_type", dict():
            return "is one table, and there may be many; write its name in double brackets"
    return "is not a list; write it in brackets"


def _keys(table: type[Strict]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _place(
    location: tuple[int | str, ...], data: Mapping[str, Any]
) -> tuple[str, tuple[int | str, ...], type[Strict]]:
    """The table's words, the keys within it, and its model."""
    first = location[0] if location else ""
    if first in _ARCHIVES and len(location) > 2:
        return f"[{first}.{location[1]}]", location[2:], _ARCHIVES[str(first)]
    if first in _LISTS and len(location) > 2:
        number = location[1]
        assert isinstance(number, int)
        entry = data[str(first)][number]
        name = entry.get(_LISTS[str(first)]) if isinstance(entry, dict) else None
        label = f'{first} "{name}"' if isinstance(name, str) else f"[[{first}]] number {number + 1}"
        if location[2] == "tree" and len(location) > 3:
            return f"{label}: tree", location[3:], TreeTable
        if location[2] == "package" and len(location) > 4:
            return f"{label}: package number {int(location[3]) + 1}", location[4:], PackageTable
        return label, location[2:], _TABLES[str(first)]
    if first in _TABLES and len(location) > 1:
        return f"[{first}]", location[1:], _TABLES[str(first)]
    return "", location, FileTables

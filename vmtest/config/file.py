"""kernels.toml -> ``Config``: strictly validated, all problems at once, no I/O beyond the file.

pydantic finds what is wrong; this module says it in the terms of the file, with
place and cure.  Whether a path exists is not asked here (``vmtest build`` may
be about to make it).
"""

from __future__ import annotations

import copy
import difflib
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    StrictBool,
    StrictInt,
    ValidationError,
)

from vmtest.errors import ConfigError, UsageError
from vmtest.model.kernels import (
    AptArchive,
    AptSpec,
    GuestSpec,
    Kernel,
    KernelSpec,
    KernelVersion,
    KnownFailure,
    Limits,
    Loading,
    MainlineSpec,
    Network,
    ObjectFile,
    PackageFile,
    PackageSpec,
    PathSpec,
    Suite,
    TreeSpec,
    VersionRange,
    unique,
)
from vmtest.objects.sections import ATTACH_TYPES, PROGRAM_TYPES, attach_types_of, types_of

SOURCES = ("apt", "path", "package", "mainline", "tree")
"""The keys that say where a kernel comes from; a ``[[kernel]]`` has exactly one."""

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h)$")
_SIZE = re.compile(r"^(\d+)\s*(M|G|MiB|GiB)$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
_PATTERN = re.compile(r"^(\*|v?\d+(\.\d+)*(\.\*)?|v?\d+\.\d+\S*)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: object) -> object:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is no duration; write for example "30s", "5m" or "1h"')
    return float(match.group(1)) * _SECONDS[match.group(2)]


def _memory(value: object) -> object:
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is no size; write for example "512M" or "2G"')
    mib = int(match.group(1)) * (1024 if match.group(2).startswith("G") else 1)
    if mib < 256:
        raise ValueError("is too small: a guest needs 256M and more")
    return mib


def _name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError("is no name: letters, digits and . _ + - are allowed")
    return value


def _version(value: str) -> str:
    if not _PATTERN.match(value):
        raise ValueError('is no version; write "6.12.*" for the newest 6.12, "6.12.117" or "*"')
    return value


def _range(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("is no version range; write for example '>=5.10,<6.13'")
    return VersionRange.parse(value)


def _test_pattern(value: str) -> str:
    if "::" not in value:
        raise ValueError("names no test; write FILE::TEST, for example 'test_net.py::test_v6_*'")
    return value


def check_program_type(value: str) -> str:
    """``value`` if it is ``TYPE[:ATTACH]`` in libbpf's names; raises ValueError."""
    kind, colon, attach = value.partition(":")
    if kind not in PROGRAM_TYPES:
        of_section = types_of(kind)[0]
        meant = f' (did you mean "{of_section}"?)' if of_section else ""
        raise ValueError(
            f'there is no program type "{kind}"{meant or suggestion(kind, PROGRAM_TYPES)}'
        )
    if colon and attach not in ATTACH_TYPES:
        among = attach_types_of(kind) or ATTACH_TYPES
        raise ValueError(f'there is no attach type "{attach}"{suggestion(attach, among)}')
    return value


def _reason(value: str) -> str:
    if not value.strip():
        raise ValueError("says nothing; write why the test fails, best with a link")
    return value.strip()


def _date(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    elif isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError('is no date; write for example "2026-12-31"')


def _url(value: str) -> str:
    if not re.match(r"https?://[^\s/]+/\S+$", value):
        raise ValueError("is no address; write it as https://HOST/FILE")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("is no sha256: it has 64 hexadecimal digits")
    return value.lower()


def _tag(value: str) -> str:
    if not re.fullmatch(r"v\d+\.\d+(\.\d+)?(-rc\d+)?", value):
        raise ValueError('is no tag of a kernel; write it as "v6.6.17" or "v6.7-rc2"')
    return value


def _option(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has a line break or another control character")
    try:
        words = shlex.split(value)
    except ValueError:
        raise ValueError("has a quote that is not closed") from None
    # virtme-ng takes the options one by one from its own command line.
    if any(word.startswith("-") or '"' in word for word in words):
        raise ValueError('no option of the kernel begins with - or holds "')
    return value


def _network(value: object) -> object:
    cards = {False: Network.NONE, True: Network.CLOSED, "outbound": Network.OUTBOUND}
    if not isinstance(value, bool | str) or value not in cards:
        raise ValueError('is no network card; write false, true or "outbound"')
    return cards[value]


def _libbpf(value: object) -> object:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError('does not name a libbpf; write a version ("1.5"), "newest" or a path')
    for one in given:
        if not _is_libbpf(one):
            raise ValueError(
                f'{one!r} does not name a libbpf; write "1.5", "newest" or "dist/libbpf.so.1"'
            )
        if given.count(one) > 1:
            raise ValueError(f"names {one!r} twice; keep one")
    return given


def _is_libbpf(text: str) -> bool:
    return text == "newest" or bool(re.fullmatch(r"1\.\d+", text)) or is_path(text)


def is_path(libbpf: str) -> bool:
    """Whether a ``[guest] libbpf`` is the path of a file, and no version."""
    return "/" in libbpf or ".so" in libbpf


Duration = Annotated[float, BeforeValidator(_duration)]
Memory = Annotated[int, BeforeValidator(_memory)]
Name = Annotated[str, AfterValidator(_name)]
Version = Annotated[str, AfterValidator(_version)]
Url = Annotated[str, AfterValidator(_url)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Tag = Annotated[str, AfterValidator(_tag)]
Option = Annotated[str, AfterValidator(_option)]
Range = Annotated[VersionRange, BeforeValidator(_range)]
TestPattern = Annotated[str, AfterValidator(_test_pattern)]
ProgramType = Annotated[str, AfterValidator(check_program_type)]
Reason = Annotated[str, AfterValidator(_reason)]
Card = Annotated[Network, BeforeValidator(_network)]
Day = Annotated[date, BeforeValidator(_date)]
Libbpf = Annotated[list[str], BeforeValidator(_libbpf)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Defaults(_Strict):
    memory: Memory = 1024
    cpus: PositiveInt = 1
    boot_timeout: Duration = 30.0
    suite_timeout: Duration = 300.0
    silence_timeout: Duration = 60.0


class _Guest(_Strict):
    root: str = "debian"
    suite: str = "trixie"
    packages: list[str] = []
    wheels: list[Path] = []
    libbpf: Libbpf = []


class _Archive(_Strict):
    suites: Annotated[list[str], Field(min_length=1)]
    mirror: str | None = None
    security_mirror: str | None = None
    keyring: Path | None = None
    check_valid_until: bool = True
    max_index_age: Duration = 3600.0


class _Build(_Strict):
    command: Annotated[list[str], Field(min_length=1)]


class _Package(_Strict):
    path: Path | None = None
    url: Url | None = None
    sha256: Sha256 | None = None


class _Tree(_Strict):
    path: Path
    rev: Annotated[str, Field(min_length=1)] | None = None
    config: Path | None = None


class _Kernel(_Strict):
    name: Name
    apt: str | None = None
    path: Path | None = None
    package: Annotated[list[_Package], Field(min_length=1)] | None = None
    mainline: Tag | None = None
    tree: _Tree | None = None
    version: Version | None = None
    suites: list[str] = []
    modules: Path | None = None
    config: Path | None = None
    tags: list[Name] = []
    gate: bool = True
    cmdline: list[Option] = []
    memory: Memory | None = None
    cpus: PositiveInt | None = None
    boot_timeout: Duration | None = None
    suite_timeout: Duration | None = None
    silence_timeout: Duration | None = None


class _Suite(_Strict):
    name: Name
    tests: Path
    objects: list[str] = []
    network: Card = Network.NONE


class _InnerMap(_Strict):
    type: str
    key_size: NonNegativeInt
    value_size: NonNegativeInt
    max_entries: PositiveInt = 1


class _Object(_Strict):
    name: Name
    path: Path
    kernels: Range | None = None
    required: bool = True
    types: dict[str, ProgramType] = {}
    max_entries: dict[str, PositiveInt | Literal["cpus"]] = {}
    globals: dict[str, StrictBool | StrictInt] = {}
    inner_maps: dict[str, _InnerMap] = {}
    skip: list[str] = []
    modules: list[Name] = []

    @property
    def loading(self) -> Loading:
        """How it wants to be loaded."""
        return Loading(
            types=self.types,
            max_entries=self.max_entries,
            globals=self.globals,
            inner_maps={name: inner.model_dump() for name, inner in self.inner_maps.items()},
            skip=tuple(self.skip),
            modules=tuple(self.modules),
        )


class _KnownFailure(_Strict):
    test: TestPattern
    kernels: Range | None = None
    reason: Reason
    until: Day | None = None


class _File(_Strict):
    # "schema" is a method of BaseModel, hence the alias.
    version: Literal[1] = Field(alias="schema")
    defaults: _Defaults = _Defaults()
    guest: _Guest = _Guest()
    apt: dict[str, _Archive] = {}
    build: _Build | None = None
    kernel: Annotated[list[_Kernel], Field(min_length=1)]
    suite: list[_Suite] = []
    object: list[_Object] = []
    known_failure: list[_KnownFailure] = []


@dataclass(frozen=True, slots=True)
class Config:
    """A valid kernels.toml; every path in it is absolute, relative to the file's folder."""

    file: Path
    kernels: tuple[Kernel, ...]
    suites: tuple[Suite, ...]
    objects: tuple[ObjectFile, ...]
    archives: Mapping[str, AptArchive]
    guest: GuestSpec
    build: tuple[str, ...] | None
    known_failures: tuple[KnownFailure, ...] = ()
    defaults: Kernel = field(default_factory=lambda: Kernel("", AptSpec("", "*")))
    """What ``[defaults]`` makes of a kernel that says nothing itself: no source, no name."""

    @property
    def directory(self) -> Path:
        """The project's folder: where kernels.toml is."""
        return self.file.parent


def with_libbpf(config: Config, given: Sequence[str], directory: Path) -> Config:
    """``config`` with the libbpf of ``--libbpf`` in the place of its own; raises UsageError.

    Paths are relative to ``directory``.
    """
    try:
        _libbpf(list(given))
    except ValueError as error:
        raise UsageError(f"--libbpf {' '.join(given)}: {error}") from error
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
        "write one (docs/configuration.md), or name one with --config FILE"
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
        raise UsageError(f"{file} does not exist; name another with --config FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {file}: {reason}; check its permissions") from error
    return parse(text, file)


def parse(text: str, file: Path) -> Config:
    """Turn the ``text`` of ``file`` into a Config; raises ConfigError with every problem."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file.name}: is not valid TOML: {error}"]) from error
    problems: list[str] = []
    try:
        parsed = _File.model_validate(data)
    except ValidationError as error:
        problems = [_explain(e, data, file) for e in error.errors()]
        try:
            parsed = _File.model_validate(_without(data, error.errors()))
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


def _convert(parsed: _File, file: Path) -> Config:
    base = file.parent
    guest = parsed.guest
    root = guest.root
    if root not in ("debian", "host"):
        root = str(base / Path(root).expanduser())
    return Config(
        file=file,
        kernels=tuple(_kernel(kernel, parsed.defaults, base) for kernel in parsed.kernel),
        suites=tuple(
            Suite(suite.name, base / suite.tests, tuple(suite.objects), suite.network)
            for suite in parsed.suite
        ),
        objects=tuple(
            ObjectFile(o.name, base / o.path, o.kernels, o.required, o.loading)
            for o in parsed.object
        ),
        archives={
            name: AptArchive(
                name=name,
                suites=tuple(archive.suites),
                mirror=archive.mirror,
                security_mirror=archive.security_mirror,
                keyring=None if archive.keyring is None else base / archive.keyring,
                check_valid_until=archive.check_valid_until,
                max_index_age=archive.max_index_age,
            )
            for name, archive in parsed.apt.items()
        },
        guest=GuestSpec(
            root,
            guest.suite,
            tuple(guest.packages),
            tuple(base / w for w in guest.wheels),
            tuple(str(base / Path(v).expanduser()) if is_path(v) else v for v in guest.libbpf),
        ),
        build=None if parsed.build is None else tuple(parsed.build.command),
        known_failures=tuple(
            KnownFailure(known.test, known.reason, known.kernels, known.until)
            for known in parsed.known_failure
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
            ),
        ),
    )


def _kernel(kernel: _Kernel, defaults: _Defaults, base: Path) -> Kernel:
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
        spec = MainlineSpec(kernel.mainline)
    elif kernel.tree is not None:
        fragment = kernel.tree.config
        spec = TreeSpec(
            base / kernel.tree.path.expanduser(),
            kernel.tree.rev,
            None if fragment is None else base / fragment,
        )
    else:
        assert kernel.apt is not None and kernel.version is not None  # _cross_check
        spec = AptSpec(kernel.apt, kernel.version, tuple(kernel.suites))

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
        ),
        cmdline=tuple(kernel.cmdline),
    )


_ONLY_FOR = {"apt": ("version", "suites"), "path": ("modules", "config")}


def _cross_check(parsed: _File, file: Path) -> Iterator[str]:
    """What concerns more than one key; yields a problem a time."""
    for kernel in parsed.kernel:
        place = f'{file.name}: kernel "{kernel.name}"'
        sources = [key for key in SOURCES if getattr(kernel, key) is not None]
        if len(sources) != 1:
            found = " and ".join(sources) or "none"
            yield f"{place}: needs exactly one of {', '.join(SOURCES)} (has {found})"
            continue
        for source, keys in _ONLY_FOR.items():
            for key in keys:
                if source not in sources and getattr(kernel, key):
                    yield f'{place}: "{key}" goes with {source}, not with {sources[0]}; remove it'
        for number, package in enumerate(kernel.package or (), 1):
            where = f"{place}: package number {number}"
            if (package.path is None) == (package.url is None):
                yield f"{where}: needs exactly one of path and url"
            elif package.url is not None and package.sha256 is None:
                yield f"{where}: needs the sha256 of what is at its url"
        if kernel.apt is None:
            continue
        if kernel.version is None:
            yield f'{place}: needs a version, for example version = "6.12.*"'
        if kernel.apt not in parsed.apt:
            yield f"{place}: there is no [apt.{kernel.apt}]{suggestion(kernel.apt, parsed.apt)}"
            continue
        for suite in kernel.suites:
            known = parsed.apt[kernel.apt].suites
            if suite not in known:
                hint = suggestion(suite, known)
                yield f'{place}: [apt.{kernel.apt}] has no suite "{suite}"{hint}'
    yield from _repeated("kernel", [kernel.name for kernel in parsed.kernel], file)
    yield from _repeated("suite", [suite.name for suite in parsed.suite], file)
    yield from _repeated("suite tests", [str(suite.tests) for suite in parsed.suite], file)
    known = [f"{k.test} ({k.kernels.text if k.kernels else 'all'})" for k in parsed.known_failure]
    yield from _repeated("known_failure", known, file)
    names = {build.name for build in parsed.object}
    for wanted in parsed.suite:
        for name in wanted.objects:
            if name not in names:
                hint = suggestion(name, names)
                yield f'{file.name}: suite "{wanted.name}": there is no [[object]] "{name}"{hint}'


def _repeated(what: str, names: Sequence[str], file: Path) -> Iterator[str]:
    for name in unique(names):
        if names.count(name) > 1:
            yield f'{file.name}: {what} "{name}" stands {names.count(name)} times; keep one'


def suggestion(word: str, known: Sequence[str] | Mapping[str, object] | set[str]) -> str:
    """`` (did you mean "x"?)`` when ``known`` has something close, else what there is."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (there are: {', '.join(sorted(known))})" if known else ""


_TABLES: Mapping[str, type[_Strict]] = {
    "defaults": _Defaults,
    "guest": _Guest,
    "build": _Build,
    "kernel": _Kernel,
    "suite": _Suite,
    "object": _Object,
    "known_failure": _KnownFailure,
}


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
            return f'{prefix}: the key "{key}" is missing'
        case "value_error":
            return f"{prefix}: {key} = {error['input']!r} {error['ctx']['error']}"
        case "literal_error" if key == "schema":
            return (
                f"{prefix}: schema = {error['input']!r} is not known; this vmtest reads schema = 1"
            )
    return f"{prefix}: {key} = {error['input']!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _keys(table: type[_Strict]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _place(
    location: tuple[int | str, ...], data: Mapping[str, Any]
) -> tuple[str, tuple[int | str, ...], type[_Strict]]:
    """The table's words, the keys within it, and its model."""
    first = location[0] if location else ""
    if first == "apt" and len(location) > 2:
        return f"[apt.{location[1]}]", location[2:], _Archive
    if first in ("kernel", "suite", "object", "known_failure") and len(location) > 2:
        number = location[1]
        assert isinstance(number, int)
        entry = data[str(first)][number]
        key = "test" if first == "known_failure" else "name"
        name = entry.get(key) if isinstance(entry, dict) else None
        label = f'{first} "{name}"' if isinstance(name, str) else f"[[{first}]] number {number + 1}"
        if location[2] == "tree" and len(location) > 3:
            return f"{label}: tree", location[3:], _Tree
        if location[2] == "package" and len(location) > 4:
            return f"{label}: package number {int(location[3]) + 1}", location[4:], _Package
        return label, location[2:], _TABLES[str(first)]
    if first in _TABLES and len(location) > 1:
        return f"[{first}]", location[1:], _TABLES[str(first)]
    return "", location, _File


def select_kernels(
    kernels: Sequence[Kernel],
    patterns: Sequence[str],
    versions: Mapping[str, KernelVersion],
) -> tuple[Kernel, ...]:
    """The kernels that ``--kernel`` patterns mean, in the order of the file.

    A pattern is an exact name, ``tag:NAME`` or a version range.  ``versions``
    has what the resolved kernels are; one that could not be resolved counts as
    within a range when nothing says otherwise, so that it is never lost
    silently.  No pattern means ``tag:default``, or all when nothing carries it.
    Raises UsageError for a pattern that means nothing.
    """
    if not patterns:
        tagged = tuple(kernel for kernel in kernels if "default" in kernel.tags)
        return tagged or tuple(kernels)
    chosen: set[str] = set()
    for pattern in patterns:
        found = _matching(kernels, pattern, versions)
        if not found:
            names = ", ".join(kernel.name for kernel in kernels)
            raise UsageError(
                f"--kernel {pattern}: no kernel is within this range (there are: {names})"
            )
        chosen.update(found)
    return tuple(kernel for kernel in kernels if kernel.name in chosen)


def _matching(
    kernels: Sequence[Kernel], pattern: str, versions: Mapping[str, KernelVersion]
) -> set[str]:
    names = {kernel.name for kernel in kernels}
    tags = {tag for kernel in kernels for tag in kernel.tags}
    if pattern.startswith("tag:"):
        tag = pattern.removeprefix("tag:")
        if tag not in tags:
            raise UsageError(
                f'--kernel {pattern}: no kernel has the tag "{tag}"{suggestion(tag, tags)}'
            )
        return {kernel.name for kernel in kernels if tag in kernel.tags}
    if VersionRange.looks_like(pattern):
        try:
            wanted = VersionRange.parse(pattern)
        except ValueError as error:
            raise UsageError(f"--kernel {pattern}: {error}") from error
        return {name for name in names if name not in versions or versions[name] in wanted}
    if pattern not in names:
        raise UsageError(
            f'--kernel {pattern}: there is no kernel "{pattern}"{suggestion(pattern, names)}'
        )
    return {pattern}


def packaged(config: Config, pattern: str) -> Kernel | None:
    """The kernel that ``--kernel ARCHIVE/VERSION`` means, or None when ``pattern`` is not that.

    It need not be in the file; it has its ``[defaults]``.  Raises UsageError for an archive
    that is not there.
    """
    archive, separator, version = pattern.partition("/")
    if not separator or pattern.startswith("tag:"):
        return None
    if archive not in config.archives:
        raise UsageError(
            f"--kernel {pattern}: there is no [apt.{archive}]{suggestion(archive, config.archives)}"
        )
    return replace(config.defaults, name=version, spec=AptSpec(archive, version))


def needs_versions(patterns: Sequence[str]) -> bool:
    """Whether ``select_kernels`` has to know what the kernels resolve to."""
    return any(VersionRange.looks_like(pattern) for pattern in patterns)


def select_suites(suites: Sequence[Suite], names: Sequence[str]) -> tuple[Suite, ...]:
    """The suites called ``names`` in the order of the file, all without any; raises UsageError."""
    known = {suite.name for suite in suites}
    for name in names:
        if name not in known:
            raise UsageError(f'--suite {name}: there is no suite "{name}"{suggestion(name, known)}')
    return tuple(suite for suite in suites if not names or suite.name in names)

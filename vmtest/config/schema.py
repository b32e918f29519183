"""The schema of kernels.toml: one class a table, one type a kind of value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

import packaging.specifiers
from pathspec import GitIgnoreSpec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)

from vmtest.config.requirement import parse_requirement
from vmtest.config.suggest import suggestion
from vmtest.model.kernels import Network, Signed
from vmtest.model.project import Loading
from vmtest.model.text import size_of
from vmtest.model.versions import VersionRange
from vmtest.objects.sections import ATTACH_TYPES, PROGRAM_TYPES, attach_types_of, types_of

SOURCES = ("apt", "dnf", "oci", "path", "package", "mainline", "tree")
"""The keys that say where a kernel comes from; a ``[[kernel]]`` has exactly one."""

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h)$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
_PATTERN = re.compile(r"^(\*|v?\d+(\.\d+)*(\.\*)?|v?\d+\.\d+\S*)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: object) -> object:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is not a duration; write for example "30s", "5m" or "1h"')
    return float(match.group(1)) * _SECONDS[match.group(2)]


def _memory(value: object) -> object:
    size = size_of(value, ("M", "G")) if isinstance(value, str) else None
    if size is None:
        raise ValueError('is not a size; write for example "512M" or "2G"')
    if size < 256 << 20:
        raise ValueError("is too small: a guest needs 256M and more")
    return size >> 20


def _name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError("is not a valid name: letters, digits and . _ + - are allowed")
    return value


def _version(value: str) -> str:
    if series := re.fullmatch(r"(\d+(?:\.\d+)*)\.[xX]", value):
        raise ValueError(f'is not a version; write "{series[1]}.*"')
    if not _PATTERN.match(value):
        raise ValueError('is not a version; write "6.12.*" for the newest 6.12, "6.12.117" or "*"')
    return value


def _range(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("is not a version range; write for example '>=5.10,<6.13'")
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


def _share(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError("must lie between 0 and 1; write for example 0.1 for one in ten")
    return value


def _cause(value: str) -> str:
    if not value.strip():
        raise ValueError("says nothing; write why the kernel complains, best with a link")
    return value.strip()


def _splat_pattern(value: str) -> str:
    if not value.strip(" *?"):
        raise ValueError(
            "matches every complaint; write a part of its text or of its fingerprint, for example "
            "'WARNING in check_it'"
        )
    if not value.isprintable():
        raise ValueError("has a line break or another control character; a complaint is one line")
    return value.strip()


def _date(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    elif isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError('is not a date; write for example "2026-12-31"')


def _url(value: str) -> str:
    if not re.match(r"https?://[^\s/]+/\S+$", value):
        raise ValueError("is not an address; write it as https://HOST/FILE")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("is not a sha256, which has 64 hexadecimal digits")
    return value.lower()


def _tag(value: str) -> str:
    if re.fullmatch(r"v\d+\.\d+(\.\d+)?(-rc\d+)?", value):
        return value
    if re.fullmatch(r"\*|v?\d+(\.\d+)?\.\*", value):
        return value.removeprefix("v")
    raise ValueError(
        'is not a tag of the kernel; write it as "v6.6.17" or "v6.7-rc2", or "6.6.*" for the '
        "newest of a series"
    )


def _git_pattern(value: str) -> str:
    try:
        GitIgnoreSpec.from_lines([value])
    except ValueError as error:
        raise ValueError(
            'is not a pattern as in a .gitignore, for example "data/*.json"'
        ) from error
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
        raise ValueError('is not a network; write false, true or "outbound"')
    return cards[value]


def libbpf_choice(value: object) -> object:
    """The list of libbpf versions and paths that ``value`` names; raises ValueError."""
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


def _requirement(value: str) -> str:
    parse_requirement(value)
    return value


def _pytest(value: str) -> str:
    """The requirement that ``value``, a version, a pattern or a specifier, means."""
    compared = value if re.match(r"\s*[<>=!~]", value) else f"=={value}"
    try:
        return f"pytest{packaging.specifiers.SpecifierSet(compared)}"
    except packaging.specifiers.InvalidSpecifier as error:
        raise ValueError('is not a version; write "8.*", "8.4.2" or ">=8.3,<9"') from error


def is_path(libbpf: str) -> bool:
    """Whether a ``[guest] libbpf`` is the path of a file, and no version."""
    return "/" in libbpf or ".so" in libbpf


def _lower(kind: str, example: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9.-]*", value):
            raise ValueError(f"is not {kind}; write it as {example}")
        return value

    return check


def _component(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w./+-]*", value):
        raise ValueError('is not a component of an archive; write for example "main"')
    return value


def _image(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.\[\]:-]+(/[a-z0-9._-]+)+", value):
        raise ValueError("is not an image without a tag; write it as HOST/NAME/IMAGE")
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(
            f'is not a regular expression: {error}; write for example ".*-main"'
        ) from None
    return value


def _architectures(value: object) -> object:
    if value != ["amd64"]:
        raise ValueError('vmtest boots x86-64 kernels only; write ["amd64"], or leave it out')
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["30s", "5m"]}),
]
Memory = Annotated[
    int,
    BeforeValidator(_memory),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\s*[MG](iB)?$", "examples": ["512M", "2G"]}),
]
Name = Annotated[str, AfterValidator(_name)]
Version = Annotated[str, AfterValidator(_version)]
Url = Annotated[str, AfterValidator(_url)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Tag = Annotated[str, AfterValidator(_tag)]
GitPattern = Annotated[str, AfterValidator(_git_pattern)]
Option = Annotated[str, AfterValidator(_option)]
Range = Annotated[
    VersionRange,
    BeforeValidator(_range),
    WithJsonSchema({"type": "string", "examples": [">=6.1,<6.13", "<5.16"]}),
]
TestPattern = Annotated[str, AfterValidator(_test_pattern)]
ProgramType = Annotated[str, AfterValidator(check_program_type)]
Why = Annotated[str, AfterValidator(_reason)]
Cause = Annotated[str, AfterValidator(_cause)]
SplatPattern = Annotated[str, AfterValidator(_splat_pattern)]
Card = Annotated[
    Network,
    BeforeValidator(_network),
    WithJsonSchema({"enum": [False, True, "outbound"], "default": False}),
]
Flavour = Annotated[str, AfterValidator(_lower("a flavour", '"generic", "azure" or "rt"'))]
Distribution = Annotated[
    str, AfterValidator(_lower("a distribution", 'ID in its /etc/os-release: "debian", "ubuntu"'))
]
Image = Annotated[str, AfterValidator(_image)]
Regex = Annotated[str, AfterValidator(_regex)]
Component = Annotated[str, AfterValidator(_component)]
Architectures = Annotated[list[str], BeforeValidator(_architectures)]
Count = Annotated[StrictInt, Field(gt=0)]
Size = Annotated[StrictInt, Field(ge=0)]
Retries = Annotated[StrictInt, Field(ge=0, le=10)]
Day = Annotated[date, BeforeValidator(_date)]
Share = Annotated[float, BeforeValidator(_share), Field(gt=0, lt=1)]
Requirement = Annotated[str, AfterValidator(_requirement)]
Pytest = Annotated[str, AfterValidator(_pytest)]
Libbpf = Annotated[
    list[str],
    BeforeValidator(libbpf_choice),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "examples": ["1.5", "newest", ["1.1", "1.5"]],
        }
    ),
]


class Strict(BaseModel):
    """A table in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class DefaultsTable(Strict):
    """``[defaults]``: each kernel's machine and limits, where it has none of its own."""

    memory: Memory = 1024
    cpus: Count = 1
    boot_timeout: Duration = 30.0
    suite_timeout: Duration = 300.0
    silence_timeout: Duration = 60.0
    stall_timeout: Duration = 20.0
    retries: Retries = 1


class GuestTable(Strict):
    """``[guest]``: the user space of the VMs; guest.lock beside the file has its exact wheels."""

    root: str = "debian"
    suite: str = "trixie"
    packages: list[str] = []
    wheels: list[Path] = []
    requirements: list[Requirement] = []
    extras: list[str] = []
    pytest: Pytest | None = None
    libbpf: Libbpf = []


class ArchiveTable(Strict):
    """``[apt.NAME]``: an archive of .deb packages."""

    suites: Annotated[list[str], Field(min_length=1)]
    mirror: str | None = None
    security_mirror: str | None = None
    keyring: Path | None = None
    check_valid_until: StrictBool = True
    max_index_age: Duration = 3600.0
    distribution: Distribution = "debian"
    components: Annotated[list[Component], Field(min_length=1)] = ["main"]
    architectures: Architectures = ["amd64"]
    flavour: Flavour = "generic"


class DnfTable(Strict):
    """``[dnf.NAME]``: repositories of .rpm packages."""

    repositories: Annotated[list[Component | Literal["."]], Field(min_length=1)] = ["."]
    mirror: str | None = None
    mirror_list: str | None = None
    keyring: Path | None = None
    signed: Signed = "metadata"
    kernel: Name = "kernel"
    max_index_age: Duration = 3600.0


class OciTable(Strict):
    """``[oci.NAME]``: the tags of a container image."""

    image: Image
    tags: Regex = ".*"
    max_index_age: Duration = 3600.0


class BuildTable(Strict):
    """``[build]``: the command that makes the objects."""

    command: Annotated[list[str], Field(min_length=1)]


class PackageTable(Strict):
    """One file of ``package`` of a ``[[kernel]]``: a local path, or a URL and its digest."""

    path: Path | None = None
    url: Url | None = None
    sha256: Sha256 | None = None


class TreeTable(Strict):
    """``tree = {...}`` of a ``[[kernel]]``: a kernel's source tree."""

    path: Path
    rev: Annotated[str, Field(min_length=1)] | None = None
    config: Path | None = None


class KernelTable(Strict):
    """``[[kernel]]``: a kernel, with exactly one source."""

    name: Name
    apt: str | None = None
    dnf: str | None = None
    oci: str | None = None
    path: Path | None = None
    package: Annotated[list[PackageTable], Field(min_length=1)] | None = None
    mainline: Tag | None = None
    tree: TreeTable | None = None
    version: Version | None = None
    suites: list[str] = []
    modules: Path | None = None
    config: Path | None = None
    tags: list[Name] = []
    gate: StrictBool = True
    cmdline: list[Option] = []
    memory: Memory | None = None
    cpus: Count | None = None
    boot_timeout: Duration | None = None
    suite_timeout: Duration | None = None
    silence_timeout: Duration | None = None
    stall_timeout: Duration | None = None
    retries: Retries | None = None


class SuiteTable(Strict):
    """``[[suite]]``: tests for pytest in the guest."""

    name: Name
    tests: Path
    objects: list[str] = []
    network: Card = Network.NONE
    root: Path | None = None
    pythonpath: list[Path] = []
    include: list[GitPattern] = []
    exclude: list[GitPattern] = []


class InnerMapTable(Strict):
    """``inner_maps.NAME`` of an ``[[object]]``: the template of a map of maps."""

    type: str
    key_size: Size
    value_size: Size
    max_entries: Count = 1


class ObjectTable(Strict):
    """``[[object]]``: a build of a BPF object, and how to load it."""

    name: Name
    path: Path
    kernels: Range | None = None
    required: StrictBool = True
    types: dict[str, ProgramType] = {}
    max_entries: dict[str, Count | Literal["cpus"]] = {}
    globals: dict[str, StrictBool | StrictInt] = {}
    inner_maps: dict[str, InnerMapTable] = {}
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


class KnownFailureTable(Strict):
    """``[[known_failure]]``: tests that are expected to fail on some kernels."""

    test: TestPattern
    kernels: Range | None = None
    reason: Why
    until: Day | None = None
    strict: StrictBool = True


class FlakyTable(Strict):
    """``[[flaky]]``: tests that fail sometimes; they run again."""

    test: TestPattern
    kernels: Range | None = None
    reason: Why
    until: Day | None = None
    limit: Share | None = None


class KnownSplatTable(Strict):
    """``[[known_splat]]``: complaints of some kernels that do not count."""

    pattern: SplatPattern
    kernels: Range | None = None
    reason: Cause
    until: Day | None = None


class FileTables(Strict):
    """The whole of kernels.toml."""

    # "schema" is a method of BaseModel, hence the alias.
    version: Literal[1] = Field(alias="schema")
    defaults: DefaultsTable = DefaultsTable()
    guest: GuestTable = GuestTable()
    apt: dict[str, ArchiveTable] = {}
    dnf: dict[str, DnfTable] = {}
    oci: dict[str, OciTable] = {}
    build: BuildTable | None = None
    kernel: Annotated[list[KernelTable], Field(min_length=1)]
    suite: list[SuiteTable] = []
    object: list[ObjectTable] = []
    known_failure: list[KnownFailureTable] = []
    known_splat: list[KnownSplatTable] = []
    flaky: list[FlakyTable] = []

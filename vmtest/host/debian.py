"""Debian's archive as seen from this host: where it is, whom it trusts, how versions sort.

Kernels and guest images come from the mirror this host already uses.  No mirror is
named here: it is read from the host's apt configuration, from kernels.toml or
from the environment.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from vmtest.errors import UsageError
from vmtest.host.cache import find_tool
from vmtest.model.kernels import AptArchive
from vmtest.model.secrets import without_secrets
from vmtest.model.versions import PackageVersion

KEYRINGS = Path("/usr/share/keyrings")
"""Where packages put the keys of distributions."""
TEMPLATES = Path("/usr/share/python-apt/templates")
"""Where python-apt-common has what it knows of distributions."""
_KEYRING_PACKAGES = {"ubuntu": "ubuntu-keyring"}
_HOST_OPTIONS = re.compile(
    r"Acquire::(https?|socks5?h?|ftp|ForceIPv4|ForceIPv6|Proxy[\w-]*|Queue-Mode)(::|\s)",
    re.IGNORECASE,
)


# --- versions ---------------------------------------------------------------------------


def _order(character: str) -> int:
    if character == "~":
        return -1
    if character.isalpha():
        return ord(character)
    return ord(character) + 256


def _compare_numbers(left: str, right: str) -> int:
    """As numbers, of any length: Python reads no number of over 4300 digits."""
    one, two = left.lstrip("0"), right.lstrip("0")
    return len(one) - len(two) or (one > two) - (one < two)


def _compare_part(left: str, right: str) -> int:
    while left or right:
        left_text, right_text = re.match(r"[^0-9]*", left), re.match(r"[^0-9]*", right)
        assert left_text is not None and right_text is not None
        a, b = left_text.group(), right_text.group()
        for index in range(max(len(a), len(b))):
            one = _order(a[index]) if index < len(a) else 0
            two = _order(b[index]) if index < len(b) else 0
            if one != two:
                return one - two
        left, right = left[len(a) :], right[len(b) :]
        left_digits, right_digits = re.match(r"[0-9]*", left), re.match(r"[0-9]*", right)
        assert left_digits is not None and right_digits is not None
        if difference := _compare_numbers(left_digits.group(), right_digits.group()):
            return difference
        left, right = left[left_digits.end() :], right[right_digits.end() :]
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class DebianVersion(PackageVersion):
    """A package version, ordered as dpkg orders them (deb-version(7))."""

    def compare(self, other: Self) -> int:
        """Negative, zero or positive, as dpkg --compare-versions decides."""
        return (
            self.epoch - other.epoch
            or _compare_part(self.upstream, other.upstream)
            or _compare_part(self.revision, other.revision)
        )

    def __hash__(self) -> int:
        # 1.0 equals 1.00 and 0:1.0-0: zeros that lead a number must not count, nor a 0 itself.
        parts = (re.sub(r"(?<![0-9])0+", "", part) for part in (self.upstream, self.revision))
        return hash((self.epoch, *parts))


# --- package indexes --------------------------------------------------------------------


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822 text; keys in lower case, continuation lines joined by newline."""
    fields: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0] in " \t" and key:
            fields[key] += "\n" + line[1:]
        else:
            name, colon, value = line.partition(":")
            if colon:
                key = name.strip().lower()
                fields[key] = value.strip()
    if fields:
        yield fields


# --- the host's mirrors -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mirror:
    """A place to fetch suites from, and the keys that sign them.

    ``signed_by`` is what apt's ``Signed-By`` takes: a path, a fingerprint or a key
    block; ``source`` says where this was read, for error messages.
    """

    uri: str
    signed_by: str
    source: str


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The archive of the releases and that of their security updates, where known."""

    main: Mirror | None
    security: Mirror | None

    def of(self, suite: str) -> Mirror | None:
        """The mirror that holds ``suite``."""
        return self.security if is_security(suite) else self.main


def is_security(suite: str) -> bool:
    """Whether ``suite`` lives on the security mirror."""
    return suite.endswith("-security") or suite.endswith("/updates")


@dataclass(frozen=True, slots=True)
class _Source:
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str
    origin: str


def _deb822_sources(text: str, origin: str) -> Iterator[_Source]:
    for fields in paragraphs(text):
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            yield _Source(
                uri,
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", "").strip(),
                origin,
            )


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>\S.*)$")


def _one_line_sources(text: str, origin: str) -> Iterator[_Source]:
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.partition("#")[0].strip())
        if match is None:
            continue
        uri, *rest = match["rest"].split()
        if not rest:
            continue
        options = dict(
            (key.lower(), value)
            for key, equals, value in (o.partition("=") for o in (match["options"] or "").split())
            if equals
        )
        signed_by = options.get("signed-by", "").replace(",", " ")
        yield _Source(uri, (rest[0],), tuple(rest[1:]), signed_by, origin)


def _sources(etc: Path) -> Iterator[_Source]:
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if file.suffix == ".sources":
            yield from _deb822_sources(text, str(file))
        elif file.suffix == ".list":
            yield from _one_line_sources(text, str(file))


def _address(uri: str) -> str:
    """The first mirror of a list of mirrors in a file, as cloud images have; else ``uri``."""
    if not uri.startswith("mirror+file:"):
        return uri
    try:
        text = Path(urlsplit(uri).path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return uri
    return next((words[0] for words in map(str.split, text.splitlines()) if words), uri)


def _is_of(distribution: str, source: _Source) -> bool:
    """Whether this is the distribution's own archive and not a third party's for it."""
    if "main" not in source.components or source.uri.startswith("cdrom:"):
        return False
    tail = urlsplit(_address(source.uri)).path.rstrip("/").rpartition("/")[2]
    by_name = re.fullmatch(rf"{re.escape(distribution)}(-security)?(\.list)?", tail) is not None
    return by_name or f"{distribution}-archive" in source.signed_by


def default_keyring(distribution: str) -> str:
    """The file in which packages of a distribution bring its keys; empty where it is not here."""
    places = (KEYRINGS / f"{distribution}-archive-keyring.{end}" for end in ("gpg", "pgp"))
    return next((str(path) for path in places if path.is_file()), "")


def mirror_variables(distribution: str) -> tuple[str, str]:
    """The environment variables that name a distribution's mirror and its security mirror."""
    name = re.sub(r"[^A-Z0-9]", "_", distribution.upper())
    return f"VMTEST_{name}_MIRROR", f"VMTEST_{name}_SECURITY_MIRROR"


def host_is(distribution: str, os_release: Path = Path("/etc/os-release")) -> bool:
    """Whether this host is the distribution itself (a derivative has archives of its own)."""
    try:
        lines = os_release.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(
        line.replace('"', "").replace("'", "").strip() == f"ID={distribution}" for line in lines
    )


def host_mirrors(etc: Path = Path("/etc/apt"), distribution: str = "debian") -> Mirrors:
    """The mirrors that this host's apt fetches a distribution from, each None without one."""
    main: Mirror | None = None
    security: Mirror | None = None
    for source in _sources(etc):
        if not _is_of(distribution, source) or not source.suites:
            continue
        mirror = Mirror(
            source.uri, source.signed_by or default_keyring(distribution), source.origin
        )
        if all(is_security(suite) for suite in source.suites):
            security = security or mirror
        elif not any(is_security(suite) for suite in source.suites):
            main = main or mirror
        else:
            main, security = main or mirror, security or mirror
    return Mirrors(main, security)


def template_mirrors(distribution: str) -> Mirrors:
    """The mirrors of a distribution that the package python-apt-common names, if it is here.

    Every Ubuntu has it, and with it Debian's mirrors.
    """
    file = TEMPLATES / f"{distribution.capitalize()}.info"
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Mirrors(None, None)
    keys = default_keyring(distribution)
    main: Mirror | None = None
    security: Mirror | None = None
    for fields in paragraphs(text):
        suite = fields.get("suite", "")
        # "BaseURI" alone may be where other architectures are.
        uri = fields.get("baseuri-amd64") or fields.get("baseuri", "")
        official = fields.get("official", "true").lower() != "false"
        packages = fields.get("repositorytype", "deb") == "deb"
        if not suite or not official or not packages or not re.match(r"https?://", uri):
            continue
        if is_security(suite):
            if distribution == "debian" and not urlsplit(uri).path.strip("/"):
                # Both work at Debian's; proxies and caches know what its installer writes.
                uri = f"{uri.rstrip('/')}/debian-security"
            security = security or Mirror(uri, keys, str(file))
        else:
            main = main or Mirror(uri, keys, str(file))
    return Mirrors(main, security)


def find_mirrors(
    archive: str,
    mirror: str | None = None,
    security_mirror: str | None = None,
    keyring: Path | None = None,
    *,
    distribution: str = "debian",
    environment: Mapping[str, str] | None = None,
    etc: Path = Path("/etc/apt"),
    os_release: Path = Path("/etc/os-release"),
) -> Mirrors:
    """The mirrors of the archive called ``archive`` in kernels.toml, which is ``distribution``'s.

    The environment goes before kernels.toml, and that before the configuration of a
    host of that distribution; another host, and one whose apt does not name its own
    distribution, may have its mirrors from python-apt-common.  Only Debian keeps security updates
    on a mirror of their own.
    Raises UsageError with the cure when none of them names one, or when there are no keys to
    check signatures with.
    """
    env = os.environ if environment is None else environment
    if keyring is not None and not keyring.is_file():
        raise UsageError(f"kernels.toml: [apt.{archive}] keyring: {keyring}: no such file")
    host = known_mirrors(distribution, etc, os_release)
    variables = mirror_variables(distribution)
    if distribution != "debian" and (mirror or env.get(variables[0])):
        host = replace(host, security=None)  # whoever names a mirror has everything there
    wanted: list[Mirror | None] = []
    keys = ("mirror", "security_mirror")
    configured = (mirror, security_mirror)
    for key, variable, uri, known in zip(
        keys, variables, configured, (host.main, host.security), strict=True
    ):
        if env.get(variable):
            wanted.append(Mirror(env[variable], "", f"${variable}"))
        elif uri:
            wanted.append(Mirror(uri, "", f"kernels.toml: [apt.{archive}] {key}"))
        else:
            wanted.append(known)
    main, security = (
        None if one is None else replace(one, signed_by=_keys_of(distribution, keyring, known))
        for one, known in zip(wanted, (host.main, host.security), strict=True)
    )
    if distribution != "debian":
        security = security or main
    _check_mirrors(archive, distribution, Mirrors(main, security))
    return Mirrors(main, security)


def known_mirrors(
    distribution: str,
    etc: Path = Path("/etc/apt"),
    os_release: Path = Path("/etc/os-release"),
) -> Mirrors:
    """What the host knows of a distribution: its own apt's, else those of python-apt-common."""
    own = Mirrors(None, None)
    if host_is(distribution, os_release):
        own = host_mirrors(etc, distribution)
    return own if own != Mirrors(None, None) else template_mirrors(distribution)


def _keys_of(distribution: str, keyring: Path | None, known: Mirror | None) -> str:
    """What checks signatures: the user's keys, those of the host's source, a package's."""
    if keyring is not None:
        return str(keyring)
    return (known.signed_by if known else "") or default_keyring(distribution)


def _check_mirrors(archive: str, distribution: str, found: Mirrors) -> None:
    """Raise UsageError with the cure where there is no mirror, no key, or no address."""
    known = [one for one in (found.main, found.security) if one is not None]
    if not known:
        variables = " and ".join(mirror_variables(distribution))
        raise UsageError(
            f"kernels.toml: [apt.{archive}]: no {distribution.capitalize()} mirror is known on "
            f"this host; set mirror and security_mirror there, or {variables} in the "
            f"environment{_templates_hint(distribution)}"
        )
    package = _KEYRING_PACKAGES.get(distribution, f"{distribution}-archive-keyring")
    if any(not one.signed_by for one in known):
        raise UsageError(
            f"kernels.toml: [apt.{archive}]: no keyring to check the signatures of {distribution} "
            f"with; install the package {package} or set keyring there"
        )
    for one in known:
        if not one.uri.strip() or any(c.isspace() for c in one.uri):
            raise UsageError(
                f"{one.source}: {without_secrets(one.uri)!r} is not the address of a mirror"
            )
        named = one.source.startswith(("$", "kernels.toml"))  # apt knows what its own sources mean
        if named and not _SCHEME.match(one.uri):
            raise UsageError(
                f"{one.source}: {without_secrets(one.uri)!r} is not a URL; write the address of a "
                "folder with dists/ and pool/, such as https://HOST/debian"
            )


def _templates_hint(distribution: str) -> str:
    if distribution not in ("debian", "ubuntu") or TEMPLATES.is_dir():
        return ""
    return "; where the host has apt, installing the package python-apt-common is enough"


def mirrors_of(archive: AptArchive) -> Mirrors:
    """The mirrors of an archive on this host; raises what :func:`find_mirrors` raises."""
    return find_mirrors(
        archive.name,
        archive.mirror,
        archive.security_mirror,
        archive.keyring,
        distribution=archive.distribution,
    )


def sources_text(mirror: Mirror, suite: str, components: Sequence[str] = ("main",)) -> str:
    """A deb822 source for one suite, amd64 only."""
    signed_by = mirror.signed_by
    if "\n" in signed_by:  # a key block: its lines are continuation lines
        signed_by = "\n " + "\n ".join(signed_by.strip().split("\n"))
    return (
        f"Types: deb\nURIs: {mirror.uri}\nSuites: {suite}\nComponents: {' '.join(components)}\n"
        f"Architectures: amd64\nSigned-By: {signed_by}\n"
    )


# --- the host's apt options -------------------------------------------------------------


def host_options(dump: str | None = None) -> list[str]:
    """The lines of the host's apt configuration that say how to reach a network.

    Proxies, certificates, address families: no hooks, no sources, nothing that
    weakens the checks of signatures.  ``dump`` is the output of ``apt-config dump``, read
    from the host when None.
    """
    if dump is None:
        tool = find_tool("apt-config")
        if tool is None:
            return []
        done = subprocess.run(
            [tool, "dump"], capture_output=True, text=True, check=False, env=clean_environment()
        )
        dump = done.stdout
    return [line for line in dump.splitlines() if _HOST_OPTIONS.match(line)]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for apt and its kin: English messages, no configuration from outside."""
    env = {k: v for k, v in os.environ.items() if k != "APT_CONFIG" and not k.startswith("LC_")}
    env |= {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return env | dict(extra or {})

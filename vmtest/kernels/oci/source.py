"""Kernels from the tags of a container image; skopeo talks to the registry and checks digests."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from vmtest.errors import KernelUnavailable
from vmtest.host import attempts, interrupt
from vmtest.host.cache import (
    disk_full,
    ensure,
    read_json,
    remove_tree,
    require_tool,
    sha256_json,
    write_text,
)
from vmtest.host.debian import DebianVersion, clean_environment
from vmtest.host.tarstream import TooLarge
from vmtest.kernels.archive.candidates import Candidate, rank
from vmtest.kernels.archive.kept import Index, KeptIndex, SuiteUnreadable
from vmtest.kernels.archive.source import ArchiveSource, from_store
from vmtest.kernels.files import growing
from vmtest.kernels.files.download import DOWNLOAD_LIMIT
from vmtest.kernels.oci.layout import fill
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.store import Manifest, Store
from vmtest.model.kernels import (
    Kernel,
    KernelImage,
    LockedSpec,
    OciArchive,
    OciSpec,
    Progress,
    Resolved,
)
from vmtest.model.text import last_line
from vmtest.model.versions import KernelVersion, PackageVersion

_SPACE = 2 << 30
_ASK_LIMIT = 60.0
_T = TypeVar("_T")

_EXAMPLES = 6
_ATTEMPTS = 3
_PAUSE = 1.0
_REFUSES = re.compile(
    r"manifest unknown|name unknown|not found|unauthorized|denied|"
    r"invalid(?! status code from registry (?:429|5))|"
    r"does not match|no space left",
    re.I,
)
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?/")


@dataclass(frozen=True, slots=True, eq=False)
class ImageTag(PackageVersion):
    """A tag that begins with a kernel's version; what follows decides as in Debian's versions."""

    @property
    def upstream(self) -> str:
        """``6.6`` of ``6.6-main``; of a release candidate ``6.7-rc2``."""
        return str(KernelVersion.parse(self.text)) if "rc" in self.text else self._numbers

    @property
    def _numbers(self) -> str:
        found = re.match(r"v?([\d.]*\d)", self.text)
        return found[1] if found else self.text

    def compare(self, other: Self) -> int:
        """Negative, zero or positive: the kernel's version, then the rest."""
        mine, theirs = (KernelVersion.parse(one.text) for one in (self, other))
        if mine != theirs:
            return 1 if mine > theirs else -1
        return DebianVersion(self.text).compare(DebianVersion(other.text))

    def __hash__(self) -> int:
        return hash(KernelVersion.parse(self.text))


class Refused(Exception):
    """skopeo failed.

    ``final`` when the registry said no, and would again; ``late`` when a time limit passed.
    """

    def __init__(self, why: str, *, final: bool, late: bool = False) -> None:
        super().__init__(why)
        self.final = final
        self.late = late


def _skopeo(image: str, command: str, *arguments: str) -> list[str]:
    """The command of skopeo that asks for ``image``."""
    tool = require_tool("skopeo", "skopeo", "to read container images")
    # As with every client of registries, one on this host itself may do without TLS.
    plain = ["--src-tls-verify=false" if command == "copy" else "--tls-verify=false"]
    options = plain if _LOOPBACK.match(image) else []
    amd64 = ["--override-arch", "amd64", "--override-os", "linux"]
    return [tool, *amd64, command, *options, *arguments]


def _retried(what: str, ask: Callable[[], _T]) -> _T:
    """What ``ask`` gives, asked again a little later where the registry failed and did not refuse.

    ``what`` is asked for, as a message says it.  Raises Refused, with the number of attempts.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return ask()
        except Refused as refused:
            if refused.final or refused.late:
                raise
            attempts.again(what, str(refused), attempt, _ATTEMPTS)
        interrupt.current().pause(_PAUSE * attempt)
    try:
        return ask()
    except Refused as refused:
        raise Refused(f"{refused} ({_ATTEMPTS} attempts)", final=refused.final) from refused


def _ask(image: str, command: str, *arguments: str) -> str:
    """What skopeo prints; raises Refused."""
    what = f"asking the registry of {image} ({command})"
    return _retried(what, lambda: _ask_once(image, command, *arguments))


def _ask_once(image: str, command: str, *arguments: str) -> str:
    argv = _skopeo(image, command, *arguments)
    try:
        done = interrupt.run(argv, env=clean_environment(), timeout=_ASK_LIMIT)
    except subprocess.TimeoutExpired:
        why = f"the registry took over {_ASK_LIMIT:.0f} s"
        raise Refused(why, final=False, late=True) from None
    if done.returncode != 0:
        raise _refused(done.stderr)
    return done.stdout


def _copy(image: str, source: str, place: Path) -> None:
    """Have skopeo download ``source`` into ``place``; raises Refused."""

    def copy() -> None:
        remove_tree(place)  # what another attempt left
        _copy_once(image, source, place)

    _retried(f"downloading {source}", copy)


def _copy_once(image: str, source: str, place: Path) -> None:
    log = place.with_suffix(".log")
    argv = _skopeo(image, "copy", source, f"oci:{place}")
    try:
        status = growing.run(argv, place, log, env=clean_environment(), limit=DOWNLOAD_LIMIT)
    except growing.Stalled as stalled:
        raise Refused(str(stalled), final=False, late=True) from None
    except TooLarge as error:
        raise Refused(str(error), final=True) from None
    if status != 0:
        raise _refused(log.read_text(encoding="utf-8", errors="replace"))


def _refused(text: str) -> Refused:
    why = re.sub(r'^time="[^"]*" level=\w+ msg="?', "", last_line(text)).rstrip('"')
    why = why.replace('\\"', '"')
    return Refused(why[:300] or "skopeo says nothing", final=bool(_REFUSES.search(why)))


@dataclass(frozen=True, slots=True)
class TagIndex(KeptIndex):
    """The tags of an image that are kernels; making one does no I/O."""

    cache: Path
    suite: str
    tags: str

    @property
    def directory(self) -> Path:
        """Where they are kept."""
        return self.cache / "oci" / f"tags-{sha256_json([self.suite])[:12]}"

    def _update(self) -> None:
        place = ensure(self.directory)
        try:
            listed = _ask(self.suite, "list-tags", f"docker://{self.suite}")
            tags = [str(tag) for tag in json.loads(listed)["Tags"]]
        except Refused as error:
            raise self._failure(str(error), transient=not error.final) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._failure(f"its tags cannot be read: {error}", transient=False) from error
        write_text(place / "tags.json", json.dumps(tags))
        self._refreshed()

    def _lists(self) -> list[Path]:
        return sorted(self.directory.glob("tags.json"))

    def _read(self, note: str) -> Index:
        tags = [tag for file in self._lists() for tag in _tags_in(file)]
        found = [
            Candidate(tag, ImageTag(tag), self.suite, (), signed=True)
            for tag in tags
            if re.fullmatch(self.tags, tag) and _is_version(tag)
        ]
        return Index(self.suite, tuple(sorted(found, key=rank)), note, frozenset(tags))


def _tags_in(file: Path) -> list[str]:
    tags = read_json(file)
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        return tags
    raise SuiteUnreadable(f"{file} is damaged; remove it, and it is made again", transient=False)


def _is_version(tag: str) -> bool:
    try:
        KernelVersion.parse(tag)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class OciSource(ArchiveSource):
    """The tags of one image."""

    archive: OciArchive

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """The newest tag that ``kernel`` means, and the digest that the registry has for it.

        Raises KernelUnavailable with the nearest tags, and for a registry that does not answer.
        """
        found = ArchiveSource.resolve(self, kernel, store)
        if found.digest:
            return found  # from the store
        tag = found.version.text
        try:
            manifest = _ask(self._image, "inspect", "--raw", f"docker://{self._image}:{tag}")
        except Refused as error:
            why = f"{self._image}:{tag}: {error}"
            before = store.recall(self._question(spec_of(kernel, OciSpec)))
            if before is not None:
                return from_store(kernel, before, store, f"{why}; the stored kernel is used")
            raise KernelUnavailable(
                f"{kernel.name}: {why}; check image in {self.archive.label} and the network"
            ) from error
        digest = hashlib.sha256(manifest.encode()).hexdigest()
        key = self._key(tag, digest)
        cached = store.get(key) is not None
        return replace(found, key=key, digest=digest, cached=cached)

    def by_digest(self, kernel: Kernel, locked: LockedSpec) -> Resolved:
        """The image that was locked, by its digest: its tag may have been moved since."""
        return Resolved(
            kernel=kernel,
            version=KernelVersion.parse(locked.version),
            key=locked.key,
            origin=locked.origin,
            digest=locked.digest,
        )

    def stored(self, candidate: Candidate, store: Store) -> KernelImage | None:
        """What the store has of a tag, which may have been moved since."""
        found = (store.root / "kernels").glob(f"{self._key(candidate.release)}*")
        return next(filter(None, (store.get(place.name) for place in found)), None)

    def _key(self, tag: str, digest: str = "") -> str:
        return f"oci-{self.archive.name}-{tag}-{digest[:12]}"

    @property
    def _image(self) -> str:
        return self.archive.suites[0]

    def _states(
        self, suites: Iterable[str], store: Store
    ) -> tuple[Sequence[TagIndex], dict[str, str]]:
        return [TagIndex(store.root, suite, self.archive.tags) for suite in suites], {}

    def _remark(self, indexes: Sequence[Index]) -> str:
        if not indexes or any(index.candidates for index in indexes):
            return ""
        tags = sorted(tag for index in indexes for tag in index.flavours)
        versions = [tag for tag in tags if _is_version(tag)]
        label = self.archive.label
        if versions:
            why = f'{label} tags = "{self.archive.tags}" fits none of its tags that are kernels'
        else:
            why = f"{label}: none of its {len(tags)} tags begins with a kernel's version"
        examples = ", ".join((versions or tags)[-_EXAMPLES:])
        return f"{why} (there are: {examples})" if examples else why

    def _variant(self) -> list[str]:
        return [self._image]

    def _stays(self) -> bool:
        return False  # a tag can be moved

    def _download(self, resolved: Resolved, store: Store, progress: Progress | None) -> KernelImage:
        name = resolved.kernel.name

        def bring(entry: Path) -> Manifest:
            place = entry.parent / "image"
            source = f"docker://{self._image}@sha256:{resolved.digest}"
            try:
                _copy(self._image, source, place)
            except Refused as error:
                if "no space left" in str(error):
                    raise disk_full(entry, f"{name}: downloading {source}") from error
                raise KernelUnavailable(
                    f"{name}: downloading {resolved.origin} failed: {error}; nothing was stored: "
                    f"check the network and the registry (kernels.toml: [oci.{self.archive.name}] "
                    f"image) and try again"
                ) from error
            return fill(place, entry, name=name, digest=resolved.digest, origin=resolved.origin)

        return store.add(resolved.key, bring, name=name, need=_SPACE)

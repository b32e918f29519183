"""Upstream kernels as Ubuntu builds them, by virtme-ng's own download.

virtme-ng counts whatever it finds in its folder as complete, so it is given an empty one
each time, and what it brought is compared with the archive's list of checksums.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import (
    disk_errors,
    disk_full,
    ensure,
    require_tool,
    sha256_file,
    sha256_json,
)
from vmtest.host.tarstream import TooLarge
from vmtest.kernels.archive.candidates import Candidate, rank
from vmtest.kernels.archive.kept import Index, KeptIndex
from vmtest.kernels.archive.source import ArchiveSource
from vmtest.kernels.files import growing
from vmtest.kernels.files.download import DownloadFailed, download
from vmtest.kernels.files.unpack import fill_from
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.store import Manifest, Store
from vmtest.model.kernels import (
    Archive,
    Kernel,
    KernelImage,
    MainlineArchive,
    MainlineSpec,
    Progress,
    Resolved,
)
from vmtest.model.secrets import without_secrets
from vmtest.model.versions import KernelVersion, PackageVersion, is_pattern

MIRROR_VARIABLE = "VMTEST_MAINLINE_MIRROR"
"""The environment variable that names another place than virtme-ng's."""

_LARGEST_LIST = 64 << 20
_SPACE = 3 << 30
_FETCH = """
import sys
from virtme_ng import mainline
mainline.BASE_URL = sys.argv[2]
mainline.KernelDownloader(sys.argv[1])
"""
_LINK = re.compile(r"""href=["'](?:\./)?(v\d+\.\d+(?:\.\d+)?(?:-rc\d+)?)/?["']""")
_CHECKSUM = re.compile(r"^([0-9a-f]{64}) [ *](\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class TagVersion(PackageVersion):
    """A tag of upstream's, in upstream's order: v6.7-rc2 is older than v6.7."""

    @property
    def upstream(self) -> str:
        """``6.6.17`` of ``v6.6.17``."""
        return self.text.removeprefix("v")

    def compare(self, other: Self) -> int:
        """Negative, zero or positive, by the numbers."""
        mine, theirs = (KernelVersion.parse(one.text) for one in (self, other))
        return (mine > theirs) - (mine < theirs)

    def __hash__(self) -> int:
        return hash(KernelVersion.parse(self.text))


@dataclass(frozen=True, slots=True)
class TagList(KeptIndex):
    """The archive's list of tags, a page with a link each; making one does no I/O."""

    cache: Path
    suite: str
    base: str

    @property
    def directory(self) -> Path:
        """Where it is kept."""
        return self.cache / "mainline" / f"tags-{sha256_json([self.base])[:12]}"

    def _update(self) -> None:
        place = ensure(self.directory)
        new = place / "new.html"
        try:
            with disk_errors(self.cache, "mainline: reading the list of tags"):
                download(f"{self.base}/", new, self.suite, limit=_LARGEST_LIST)
        except DownloadFailed as error:
            raise self._failure(error.why, transient=not error.refused) from error
        if not _tags(new):
            new.unlink()
            raise self._failure(
                f"{without_secrets(self.base)} has no list of tags", transient=False
            )
        new.rename(place / "tags.html")
        self._refreshed()

    def _lists(self) -> list[Path]:
        return sorted(self.directory.glob("tags.html"))

    def _read(self, note: str) -> Index:
        found = [
            Candidate(tag, TagVersion(tag), self.suite, (), signed=True, named=_key(tag))
            for file in self._lists()
            for tag in _tags(file)
        ]
        return Index(self.suite, tuple(sorted(found, key=rank)), note)


def _tags(listing: Path) -> set[str]:
    return set(_LINK.findall(listing.read_text(encoding="utf-8", errors="replace")))


def _key(tag: str) -> str:
    return f"mainline-{tag}"


def _base() -> str:
    from virtme_ng.mainline import BASE_URL  # 0.2 s of imports that no other command needs

    return str(os.environ.get(MIRROR_VARIABLE, BASE_URL)).rstrip("/")


@dataclass(frozen=True, slots=True)
class MainlineSource(ArchiveSource):
    """Builds of upstream's tags."""

    archive: Archive = field(default_factory=MainlineArchive)

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """What a tag is, without asking anybody; what a pattern means, from the list of tags.

        Raises KernelUnavailable, with the nearest, for a pattern that means nothing.
        """
        version = spec_of(kernel, MainlineSpec).version
        if is_pattern(version):
            return ArchiveSource.resolve(self, kernel, store)
        image = store.get(_key(version))
        return Resolved(
            kernel=kernel,
            version=KernelVersion.parse(version) if image is None else image.version,
            key=_key(version),
            origin=f"mainline {version}",
            cached=image is not None,
            digest="" if image is None else image.digest,
        )

    def _states(
        self, suites: Iterable[str], store: Store
    ) -> tuple[Sequence[TagList], dict[str, str]]:
        return [TagList(store.root, suite, _base()) for suite in suites], {}

    def _download(self, resolved: Resolved, store: Store, progress: Progress | None) -> KernelImage:
        return store.add(
            resolved.key,
            lambda entry: _fill(entry, resolved, progress),
            name=resolved.kernel.name,
            need=_SPACE,
        )


def _fill(entry: Path, resolved: Resolved, progress: Progress | None) -> Manifest:
    name, version = resolved.kernel.name, resolved.key.removeprefix(_key(""))
    base = _base()
    require_tool("dpkg", "dpkg", "to unpack mainline kernels")
    home = entry.parent / "home"
    home.mkdir()
    _run_virtme_ng(home, name, version, base, progress)
    files = sorted(home.rglob("*.deb"))
    digests = {file.name: sha256_file(file) for file in files}
    note = _check(home, name, f"{base}/{version}", digests)
    # Beside "generic" older builds hold a kernel for low latency, which virtme-ng passes over.
    chosen = [file for file in files if "lowlatency" not in file.name]
    manifest = fill_from(
        chosen,
        entry,
        name=name,
        digest=sha256_json(sorted(digests[file.name] for file in chosen)),
        origin=resolved.origin,
    )
    return replace(manifest, note="; ".join(filter(None, (manifest.note, note))))


def _run_virtme_ng(
    home: Path, name: str, version: str, base: str, progress: Progress | None
) -> None:
    """Have virtme-ng download into ``home``, where it takes its cache to be."""
    log = home / "virtme-ng.log"

    def report() -> None:
        if progress is not None:
            done = sum(file.stat().st_size for file in home.rglob("*.deb"))
            progress(done, done)  # virtme-ng does not say how much is to come

    argv = [sys.executable, "-c", _FETCH, version, base]
    environment = {**os.environ, "HOME": str(home)}
    try:
        if growing.run(argv, home, log, env=environment, seen=report) == 0:
            return
        text = log.read_text(encoding="utf-8", errors="replace")
        why = _reason(text)
    except (growing.Stalled, TooLarge) as stalled:
        text = why = str(stalled)
    if "No space left" in text:
        raise disk_full(home, f"{name}: downloading {version}")
    why, base = without_secrets(why), without_secrets(base)
    raise KernelUnavailable(
        f"{name}: virtme-ng could not download {version} from {base}: {why}; nothing was "
        f"stored: check the version, the network and the proxy settings, or name a mirror "
        f"in {MIRROR_VARIABLE}"
    )


def _reason(text: str) -> str:
    """Why a Python program ended, in a line of bearable length."""
    lines = [line for line in text.splitlines() if line.strip()] or ["it says nothing"]
    last = re.sub(r"^(?:(?:\w+\.)+\w+|\w+(?:Error|Exception|Timeout)): ", "", lines[-1])
    cause = re.search(r"Caused by \w+\((?:.*?: )?[\"']?(.*?)[\"']?\)\)?$", last)
    cause = cause or re.match(r"\('(.*?)', \w+\(", last)  # an exception of words and another
    return (cause.group(1) if cause else last)[:200].strip()


def _check(home: Path, name: str, url: str, digests: Mapping[str, str]) -> str:
    """Compare with the archive's CHECKSUMS; returns a note for the user when it has none.

    Raises KernelUnavailable for a file that is not as it says.
    """
    listing = home / "CHECKSUMS"
    for place in (f"{url}/amd64", url):  # in the order in which virtme-ng looks
        try:
            download(f"{place}/CHECKSUMS", listing, name, limit=_LARGEST_LIST)
        except DownloadFailed as error:
            if error.absent:
                continue
            raise  # files are not taken unchecked because a server did not answer
        known = {n: digest for digest, n in _CHECKSUM.findall(listing.read_text(errors="replace"))}
        for file, digest in digests.items():
            wanted = known.get(Path(file).name)
            if wanted != digest:
                raise KernelUnavailable(
                    f"{name}: {place}/{file} is damaged: its sha256 is {digest} and CHECKSUMS says "
                    f"{wanted or 'nothing of it'}; nothing was stored: try again"
                )
        return ""
    return "its archive has no CHECKSUMS: only checked by unpacking"

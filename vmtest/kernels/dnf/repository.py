"""One repository of .rpm packages: its list of packages, checked and kept, and its files.

The chain is the key, repomd.xml, primary.xml, the package.  Where a distribution signs its
packages and not repomd.xml, the key vouches for each package instead.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vmtest.errors import InfrastructureError, KernelUnavailable
from vmtest.host import attempts
from vmtest.host.cache import (
    disk_errors,
    ensure,
    locked,
    remove_tree,
    require_space,
    safe_name,
    scratch,
    sha256_json,
)
from vmtest.host.packed import DAMAGED, check_unpacked
from vmtest.host.tarstream import TooLarge
from vmtest.kernels.archive.candidates import Package
from vmtest.kernels.archive.kept import Index, PackageIndex, SuiteUnreadable
from vmtest.kernels.dnf.index import find_candidates, kernels, primary_of, read_packages
from vmtest.kernels.dnf.signature import check_metadata, check_package
from vmtest.kernels.files.download import DOWNLOAD_LIMIT, DownloadFailed, download
from vmtest.model.kernels import DnfArchive, Progress

_INDEX_SPACE = 200 << 20
_LARGEST_LIST = 16 << 20
_LARGEST_PRIMARY = 1 << 30
_ALGORITHMS = {"sha": "sha1", "sha1": "sha1", "md5": "md5"}
_STRONG = ("sha224", "sha256", "sha384", "sha512")
_IN_METALINK = re.compile(r"<url\b[^>]*>\s*(\S+?)/repodata/repomd\.xml\s*</url>")


@dataclass(frozen=True, slots=True)
class Repository(PackageIndex):
    """The state of one repository; making one does no I/O.

    ``mirror`` is the URL of the archive, None where its mirror list says where it is; ``keys``
    are what signs it.
    """

    cache: Path
    suite: str
    archive: DnfArchive
    mirror: str | None
    keys: tuple[bytes, ...]

    @property
    def directory(self) -> Path:
        """Where it keeps its state."""
        signed = [self.archive.signed, hashlib.sha256(b"".join(self.keys)).hexdigest()]
        made_of = sha256_json([self.mirror, self.archive.mirror_list, self.suite, *signed])
        return self.cache / "dnf" / f"{safe_name(self.suite)[:40]}-{made_of[:12]}"

    def download(
        self,
        packages: tuple[Package, ...],
        into: Path,
        name: str,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Download ``packages`` into the empty folder ``into``, checked against the index.

        Where the key signs packages, that too.  Raises KernelUnavailable, and
        InfrastructureError for a full disk.
        """
        bases = self._bases(into, name)
        total = sum(package.size for package in packages)
        files: list[Path] = []
        done = 0
        for package in packages:
            target = into / f"{safe_name(package.name)}.rpm"

            def show(now: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(min(before + now, total), total)

            with disk_errors(into, f"{name}: downloading {package.name}"):
                self._from_any(bases, package.place, target, name, show)
            self._check(package, target, name)
            done += package.size
            files.append(target)
        return files

    def _check(self, package: Package, file: Path, name: str) -> None:
        what = f"{name}: {package.name} {package.version} from {self.suite}"
        algorithm = _ALGORITHMS.get(package.checksum, package.checksum)
        found = _digest(file, algorithm)
        if found != package.sha256:
            raise KernelUnavailable(
                f"{what} is damaged: its {algorithm} is {found[:16]}... and the repository says "
                f"{package.sha256[:16]}...; nothing was stored: try again, or another mirror"
            )
        if self.archive.signed == "metadata":
            return
        if why := check_package(file, self.keys):
            raise KernelUnavailable(
                f"{what} cannot be trusted: {why}; nothing was stored: check keyring in "
                f"{self.archive.label}"
            )

    # --- where ---

    def _bases(self, folder: Path, name: str) -> list[str]:
        """The URLs under which the repository is, best first; raises DownloadFailed."""
        if self.mirror is not None:
            return [_below(self.mirror, self.suite)]
        assert self.archive.mirror_list is not None
        listing = folder / "mirrors"
        download(self.archive.mirror_list, listing, name, limit=_LARGEST_LIST)
        text = listing.read_text(encoding="utf-8", errors="replace")
        listing.unlink()
        found = _IN_METALINK.findall(text) or [
            line.strip() for line in text.splitlines() if re.match(r"(https?|file)://", line)
        ]
        if not found:
            why = "there is no mirror in it"
            raise DownloadFailed(name, self.archive.mirror_list, why, refused=True)
        return [_below(base, self.suite) for base in found if base.startswith(("http", "file"))]

    def _from_any(
        self,
        bases: list[str],
        place: str,
        target: Path,
        name: str,
        progress: Progress | None = None,
        limit: int = DOWNLOAD_LIMIT,
    ) -> str:
        """Download ``place`` from the first of ``bases`` that has it; returns that one."""
        for number, base in enumerate(bases, 1):
            try:
                download(f"{base}/{place}", target, name, progress, limit)
                return base
            except DownloadFailed as error:
                if number == len(bases):
                    raise
                what = f"{name}: downloading {place} from mirror {number} of {len(bases)}"
                attempts.again(what, error.why, number, len(bases))
        raise AssertionError("a repository without an address")

    # --- the index ---

    def _update(self) -> None:
        what = f"{self.suite}: reading the index"
        require_space(self.cache, _INDEX_SPACE, what)
        lock = f"dnf-{self.directory.name}-update"
        with locked(self.cache, lock), scratch(self.cache, lock) as folder:
            try:
                with disk_errors(self.cache, what):
                    primary = self._fetch(folder)
            except DownloadFailed as error:
                raise self._failure(error.why, transient=not error.refused) from error
            except ValueError as error:
                raise self._failure(str(error), transient=False) from error
            place = ensure(self.directory / "lists")
            for old in place.iterdir():
                remove_tree(old)
            primary.rename(place / primary.name)
        self._refreshed()

    def _fetch(self, folder: Path) -> Path:
        """The list of packages, checked; raises DownloadFailed, and ValueError for a bad one."""
        repomd = folder / "repomd.xml"
        base = self._from_any(
            self._bases(folder, self.suite),
            "repodata/repomd.xml",
            repomd,
            self.suite,
            limit=_LARGEST_LIST,
        )
        if self.archive.signed != "packages":
            self._check_signature(base, repomd)
        href, algorithm, checksum = primary_of(repomd)
        if algorithm not in _STRONG:
            raise ValueError(f"its repomd.xml has no strong checksum of its packages ({algorithm})")
        ending = "".join(Path(href).suffixes[-2:])
        if not re.fullmatch(r"\.xml(\.(gz|xz|zst|bz2))?", ending):
            raise ValueError(f"its list of packages is packed in a way that is not known: {href}")
        primary = folder / f"primary{ending}"
        download(f"{base}/{href}", primary, self.suite, limit=_LARGEST_PRIMARY)
        if (found := _digest(primary, algorithm)) != checksum:
            raise ValueError(
                f"its list of packages is not the one that repomd.xml names: its {algorithm} is "
                f"{found[:16]}... and not {checksum[:16]}..."
            )
        try:
            check_unpacked(primary)
        except (*DAMAGED, TooLarge) as error:
            raise ValueError(f"its list of packages cannot be read: {error}") from error
        _kernels_in(primary, self.archive.kernel, 0, 0)  # one that cannot be read is not kept
        return primary

    def _check_signature(self, base: str, repomd: Path) -> None:
        signature = repomd.with_name("repomd.xml.asc")
        try:
            download(f"{base}/repodata/repomd.xml.asc", signature, self.suite, limit=_LARGEST_LIST)
        except DownloadFailed as error:
            if not error.refused:
                raise
            raise ValueError(
                f"its repomd.xml is not signed ({error.why}); if its packages are, set "
                f'signed = "packages" in {self.archive.label}'
            ) from error
        if why := check_metadata(signature, repomd, self.keys):
            raise ValueError(f"its signature cannot be trusted: {why}")

    def _lists(self) -> list[Path]:
        return sorted((self.directory / "lists").glob("primary.xml*"))

    def _read(self, note: str) -> Index:
        kernel = self.archive.kernel
        packages: list[tuple[Package, tuple[str, ...]]] = []
        for file in self._lists():
            status = file.stat()
            try:
                packages += _kernels_in(file, kernel, status.st_mtime_ns, status.st_size)
            except ValueError as error:
                raise SuiteUnreadable(str(error), transient=False) from error
        found = find_candidates(packages, self.suite, kernel)
        return Index(self.suite, tuple(found), note, frozenset(kernels(packages)))


def _below(base: str, suite: str) -> str:
    return base.rstrip("/") if suite == "." else f"{base.rstrip('/')}/{suite.strip('/')}"


def _digest(file: Path, algorithm: str) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except ValueError as error:
        raise InfrastructureError(f"{file.name}: Python has no checksum {algorithm}") from error


@lru_cache(maxsize=32)
def _kernels_in(
    file: Path, kernel: str, mtime: int, size: int
) -> tuple[tuple[Package, tuple[str, ...]], ...]:
    del mtime, size  # another file by them
    return tuple(read_packages(file, kernel))

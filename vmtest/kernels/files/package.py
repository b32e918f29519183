"""Kernels from .deb and .rpm files, by path or by URL: any distribution's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import require_space, sha256_file, sha256_json
from vmtest.kernels.files.download import download
from vmtest.kernels.files.unpack import fill_from
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.store import Manifest, Store
from vmtest.model.kernels import Kernel, KernelImage, PackageFile, PackageSpec, Progress, Resolved
from vmtest.model.secrets import without_secrets
from vmtest.model.versions import KernelVersion

_GROWS = 8
"""What a package of uncompressed modules takes, unpacked, of its own size at the most."""
_DEB_VERSION = re.compile(r"_(\d+\.\d+[^_]*)_")
_ANY_VERSION = re.compile(r"(?<![\d.])\d+\.\d+\S*")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Package files; nothing but image, config and modules is taken out of them."""

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """Look at the files that are here; those behind a URL are known by their sha256.

        Until it is in the store, the version is the one in the files' names.  Raises
        KernelUnavailable for a file that is missing or not the one that was meant.
        """
        spec = spec_of(kernel, PackageSpec)
        digest = sha256_json(sorted(_digest(kernel, file) for file in spec.files))
        key = f"package-{digest[:20]}"
        image = store.get(key)
        more = f" and {len(spec.files) - 1} more" if len(spec.files) > 1 else ""
        return Resolved(
            kernel=kernel,
            version=_named_version(kernel, spec) if image is None else image.version,
            key=key,
            origin=f"package {file_name(spec.files[0])}{more}",
            cached=image is not None,
            digest=digest,
        )

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Download and unpack what ``resolved`` names; see :class:`Source`."""
        kernel = resolved.kernel
        found = store.take(resolved.key, kernel.name)
        if found is not None:
            return found
        local = [
            file.place
            for file in spec_of(kernel, PackageSpec).files
            if isinstance(file.place, Path)
        ]
        return store.add(
            resolved.key,
            lambda entry: self._fill(entry, resolved, progress),
            name=kernel.name,
            need=_GROWS * sum(path.stat().st_size for path in local),
        )

    def _fill(self, entry: Path, resolved: Resolved, progress: Progress | None) -> Manifest:
        return fill_from(
            _files(entry.parent / "download", resolved.kernel, progress),
            entry,
            name=resolved.kernel.name,
            digest=resolved.digest,
            origin=resolved.origin,
        )


def file_name(file: PackageFile) -> str:
    """The last part of a file's path or URL."""
    if isinstance(file.place, Path):
        return file.place.name
    return unquote(urlsplit(file.place).path).rpartition("/")[2] or file.place


def _files(folder: Path, kernel: Kernel, progress: Progress | None) -> Iterator[Path]:
    """The files one after the other, each checked; a downloaded one goes when it was read."""
    folder.mkdir()
    before = 0
    for file in spec_of(kernel, PackageSpec).files:
        if isinstance(file.place, Path):
            _digest(kernel, file)  # it may have changed since it was resolved
            yield file.place
            continue
        part = folder / file_name(file)

        def told(done: int, total: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, before + total)

        download(file.place, part, kernel.name, told)
        before += part.stat().st_size
        require_space(folder, _GROWS * part.stat().st_size, f"{kernel.name}: unpacking {part.name}")
        _compare(kernel, file, sha256_file(part))
        yield part
        part.unlink()


def _digest(kernel: Kernel, file: PackageFile) -> str:
    """The sha256 of a file: of one that is here computed, of one elsewhere as it was given."""
    if not isinstance(file.place, Path):
        assert file.sha256 is not None  # kernels.toml requires it
        return file.sha256
    try:
        found = sha256_file(file.place)
    except OSError as error:
        raise KernelUnavailable(
            f"{kernel.name}: {file.place}: {error.strerror}; correct package in kernels.toml"
        ) from error
    _compare(kernel, file, found)
    return found


def _compare(kernel: Kernel, file: PackageFile, found: str) -> None:
    if file.sha256 not in (None, found):
        place = without_secrets(str(file.place))
        raise KernelUnavailable(
            f"{kernel.name}: {place}: its sha256 is {found} and not {file.sha256}: it is "
            f"damaged, or another file by now; nothing was stored: get it again, or correct "
            f"sha256 in kernels.toml"
        )


def _named_version(kernel: Kernel, spec: PackageSpec) -> KernelVersion:
    for pattern in (_DEB_VERSION, _ANY_VERSION):
        for file in spec.files:
            if match := pattern.search(file_name(file)):
                return KernelVersion.parse(match.group(match.lastindex or 0))
    raise KernelUnavailable(
        f"{kernel.name}: the name {file_name(spec.files[0])} tells no kernel version; "
        f"name the package with the kernel's image first, by the name that its maker gave it"
    )

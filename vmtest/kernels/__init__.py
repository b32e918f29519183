"""Where kernels come from: one module a source, all behind :class:`Source`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from vmtest.errors import UsageError
from vmtest.kernels.archive.source import ArchiveSource
from vmtest.kernels.debian.source import AptSource
from vmtest.kernels.dnf.source import DnfSource
from vmtest.kernels.files.package import PackageSource
from vmtest.kernels.files.path import PathSource
from vmtest.kernels.lock.source import LockedSource
from vmtest.kernels.mainline import MainlineSource
from vmtest.kernels.oci.source import OciSource
from vmtest.kernels.source import Source
from vmtest.kernels.store.store import Store, default_cache
from vmtest.kernels.tree.source import TreeSource
from vmtest.model.kernels import (
    AptArchive,
    AptSpec,
    Archive,
    ArchiveSpec,
    DnfArchive,
    DnfSpec,
    Kernel,
    LockedSpec,
    MainlineArchive,
    MainlineSpec,
    OciArchive,
    OciSpec,
    PackageSpec,
    PathSpec,
    TreeSpec,
)

__all__ = ["AptArchive", "Source", "Store", "archive_source", "default_cache", "source_for"]

Archives = Mapping[str, Archive]


def archive_source(archive: Archive) -> ArchiveSource:
    """The source that reads ``archive``."""
    match archive:
        case AptArchive():
            return AptSource(archive)
        case DnfArchive():
            return DnfSource(archive)
        case OciArchive():
            return OciSource(archive)
        case MainlineArchive():
            return MainlineSource(archive)
    raise TypeError(f"{archive!r} is of a kind that nothing reads")


def _archived(kernel: Kernel, archives: Archives) -> Source:
    assert isinstance(kernel.spec, ArchiveSpec)
    try:
        return archive_source(archives[kernel.spec.archive])
    except KeyError:
        known = ", ".join(sorted(archives)) or "none"
        wanted = f"[{kernel.spec.table}.{kernel.spec.archive}]"
        raise UsageError(
            f'kernels.toml: kernel "{kernel.name}": there is no {wanted} (there are: {known})'
        ) from None


def _locked(kernel: Kernel, archives: Archives) -> Source:
    assert isinstance(kernel.spec, LockedSpec)
    return LockedSource(source_for(replace(kernel, spec=kernel.spec.exact), archives))


_SOURCES: Mapping[type, Callable[[Kernel, Archives], Source]] = {
    AptSpec: _archived,
    DnfSpec: _archived,
    OciSpec: _archived,
    PathSpec: lambda kernel, archives: PathSource(),
    PackageSpec: lambda kernel, archives: PackageSource(),
    MainlineSpec: lambda kernel, archives: MainlineSource(),
    TreeSpec: lambda kernel, archives: TreeSource(),
    LockedSpec: _locked,
}


def source_for(kernel: Kernel, archives: Archives) -> Source:
    """The source that ``kernel`` comes from; raises UsageError for an unknown archive."""
    return _SOURCES[type(kernel.spec)](kernel, archives)

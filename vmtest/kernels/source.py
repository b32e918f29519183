"""The protocol behind which every place that kernels come from stands."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Kernel, KernelImage, LockedSpec, Progress, Resolved

_Spec = TypeVar("_Spec")


class Source(Protocol):
    """A place kernels come from."""

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """Say what ``kernel`` means today, without downloading it.

        Raises KernelUnavailable, with the nearest versions where there are any.
        """

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Bring a resolved kernel into ``store`` and return it, at once when it is there.

        ``progress`` is called with bytes done and bytes in all, from the calling
        thread; an exception it raises ends the download and leaves nothing
        behind.  Raises KernelUnavailable, or InfrastructureError for a full disk.
        """


@runtime_checkable
class ByDigest(Protocol):
    """A source that has kernels by their digest, whatever a name means by now."""

    def by_digest(self, kernel: Kernel, locked: LockedSpec) -> Resolved:
        """What was locked, to be fetched by its digest; asks nobody."""


def spec_of(kernel: Kernel, kind: type[_Spec]) -> _Spec:
    """What ``kernel`` was named by, which is a ``kind``; raises TypeError for another one."""
    if not isinstance(kernel.spec, kind):
        raise TypeError(f"{kernel.name}: {kernel.spec!r} is not for this source")
    return kernel.spec

"""Kernels as kernels.lock pins them: exactly that one, or an error."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vmtest.errors import KernelUnavailable
from vmtest.kernels.source import ByDigest, Source, spec_of
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Kernel, KernelImage, LockedSpec, Progress, Resolved
from vmtest.model.versions import KernelVersion


@dataclass(frozen=True, slots=True)
class LockedSource:
    """The source that a locked kernel comes from, held to what was locked."""

    source: Source

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """What was locked: from the store, without asking anybody, or as its source has it.

        Raises KernelUnavailable, with the nearest where there are any, when it is gone from
        both, or is another thing by now.
        """
        spec = spec_of(kernel, LockedSpec)
        stored = store.get(spec.key)
        if stored is not None and stored.digest == spec.digest:
            return Resolved(
                kernel=kernel,
                version=KernelVersion.parse(spec.version),
                key=spec.key,
                origin=spec.origin,
                cached=True,
                digest=spec.digest,
            )
        if isinstance(self.source, ByDigest):
            return self.source.by_digest(kernel, spec)
        try:
            found = self.source.resolve(replace(kernel, spec=spec.exact), store)
        except KernelUnavailable as error:
            raise KernelUnavailable(f"{error}; kernels.lock pins it: {_cure(kernel)}") from error
        if found.digest:  # else only fetching it tells
            _compare(kernel, found.digest, found.origin)
        return replace(found, kernel=kernel)

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Bring it into the store; raises KernelUnavailable when it is not what was locked."""
        kernel = resolved.kernel
        unlocked = replace(resolved, kernel=replace(kernel, spec=spec_of(kernel, LockedSpec).exact))
        image = store.take(resolved.key, kernel.name)
        if image is None:
            image = self._fetched(unlocked, store, progress)
        _compare(kernel, image.digest, image.origin)
        return image

    def _fetched(self, unlocked: Resolved, store: Store, progress: Progress | None) -> KernelImage:
        try:
            return self.source.fetch(unlocked, store, progress)
        except KernelUnavailable as error:
            if not isinstance(self.source, ByDigest):
                raise
            # Nobody was asked before whether it is still there.
            cure = _cure(unlocked.kernel)
            raise KernelUnavailable(f"{error}; kernels.lock pins it: {cure}") from error


def _compare(kernel: Kernel, digest: str, origin: str) -> None:
    spec = spec_of(kernel, LockedSpec)
    if digest != spec.digest:
        raise KernelUnavailable(
            f"{kernel.name}: kernels.lock pins {spec.version} ({spec.origin}) with the sha256 "
            f"{spec.digest[:12]}, and {origin} has {digest[:12]} by now; {_cure(kernel)}"
        )


def _cure(kernel: Kernel) -> str:
    return f"lock another with: vmtest kernels lock --kernel {kernel.name}"

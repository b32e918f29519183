"""Kernels from an archive's suites: which there are, what a request means, bringing it here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import InfrastructureError, KernelUnavailable, UsageError, VmtestError
from vmtest.kernels.archive.candidates import Candidate, matching, nearest, releases
from vmtest.kernels.archive.kept import Index, KeptIndex, PackageIndex, SuiteUnreadable
from vmtest.kernels.files.unpack import fill_from
from vmtest.kernels.source import spec_of
from vmtest.kernels.store.store import Manifest, Resolution, Store
from vmtest.model.kernels import Archive, ArchiveSpec, Kernel, KernelImage, Progress, Resolved
from vmtest.model.versions import KernelVersion, check_version, is_pattern

_ELF_SPACE = 100 << 20


@dataclass(frozen=True, slots=True)
class Offer:
    """What suites hold: one candidate a distinct package version, oldest first, bootable or not.

    ``notes`` say which suites could not be read, and which indexes are old.
    """

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]

    def nearest(self, version: str) -> str:
        """The bootable neighbours of ``version``, in words."""
        return _nearest(list(self.candidates), version, "nearest bootable")


class OutOfOrder(UsageError):
    """The first of two versions is the newer one."""


@dataclass(frozen=True, slots=True)
class PackageRange:
    """The kernels between two versions, oldest first, each pinned to a package and a suite.

    ``gone`` are those that the indexes have and that cannot boot, ``left_out`` those that only a
    download would bring, where none was wanted.
    """

    kernels: tuple[Kernel, ...]
    gone: tuple[Kernel, ...]
    left_out: tuple[Kernel, ...] = ()


class ArchiveSource(ABC):
    """The suites of one archive, whatever reads them."""

    __slots__ = ()

    archive: Archive

    # --- what kinds of archives differ in ---

    @abstractmethod
    def _states(
        self, suites: Iterable[str], store: Store
    ) -> tuple[Sequence[KeptIndex], dict[str, str]]:
        """The indexes of ``suites``, and why the others have none; raises UsageError."""

    def _remark(self, indexes: Sequence[Index]) -> str:
        """Why ``indexes`` that were read have no kernel at all, where that can be told."""
        return ""

    def _variant(self) -> list[str]:
        """What tells two archives of one name apart in what the store remembers."""
        return []

    def _stays(self) -> bool:
        """Whether an exact version is the same kernel for ever, so that nobody need be asked."""
        return True

    def _release(self, candidate: Candidate) -> str | None:
        """The release that the packages hold, None where only they tell."""
        return candidate.release

    def stored(self, candidate: Candidate, store: Store) -> KernelImage | None:
        """What the store has of ``candidate``, None without it."""
        return store.get(candidate.key)

    # --- the source ---

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        """The newest kernel that ``kernel`` means, over all suites that can be read.

        Raises KernelUnavailable with the nearest versions, and UsageError when no
        mirror is known; in both cases a kernel in the store that was resolved for
        the same request before is returned instead, and the note says so.
        """
        spec = spec_of(kernel, ArchiveSpec)
        check_version(spec.version)
        suites = self._suites(spec)
        before = store.recall(self._question(spec))
        if before is not None and before.version == spec.version and self._stays():
            return from_store(kernel, before, store, "")  # pinned to a package: nothing to ask
        try:
            indexes, failed = self._indexes(suites, store, refresh=True)
        except VmtestError as error:
            if before is not None:
                return from_store(kernel, before, store, f"{error}; the stored kernel is used")
            if isinstance(error, UsageError):
                raise
            raise KernelUnavailable(
                f"{kernel.name}: {error}; or bring the kernel with: vmtest image import FILE"
            ) from error
        failures = "; ".join(filter(None, (_failures(failed), self._remark(indexes))))
        offered = [c for index in indexes for c in index.candidates]
        found = matching(offered, spec.version)
        best = found[-1] if found else None
        if failed and before is not None:
            known = KernelVersion.parse(before.version)
            if best is None or best.missing or known > best.kernel_version:
                return from_store(kernel, before, store, f"{failures}; the stored kernel is used")
        if before is not None and (best is None or best.missing):
            gone = f"{before.version} is no longer in the index; the stored kernel is used"
            return from_store(kernel, before, store, gone)
        if best is None:
            raise KernelUnavailable(self._no_match(kernel, spec, suites, offered, failures))
        if best.missing:
            raise KernelUnavailable(
                f"{kernel.name}: {spec.version} ({best.suite}): {best.missing}; "
                f"{_nearest(offered, spec.version, 'nearest bootable')}"
            )
        stale = [index.note for index in indexes if index.suite == best.suite]
        stored = store.get(best.key)
        cached = stored is not None
        resolved = Resolved(
            kernel=kernel,
            version=best.kernel_version,
            key=best.key,
            origin=self._origin(best),
            size=0 if cached else best.size,
            cached=cached,
            note="; ".join(filter(None, (failures if is_pattern(spec.version) else "", *stale))),
            digest=best.digest or (stored.digest if stored is not None else ""),
        )
        if cached:
            self._remember(resolved, store)
        return resolved

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        """Download and unpack what ``resolved`` names; see :class:`Source`.

        When that cannot be had and the request was a pattern, the kernel that the
        same request led to before is returned, and its note says so.
        """
        kernel = resolved.kernel
        image = store.take(resolved.key, kernel.name)
        if image is None:
            try:
                image = self._download(resolved, store, progress)
            except KernelUnavailable as error:
                stored = self._stored_before(resolved, store)
                if stored is None:
                    raise
                return replace(stored, note=f"{error}; the stored kernel is used")
        self._remember(resolved, store)
        return replace(image, note="; ".join(filter(None, (image.note, resolved.note))))

    def _download(self, resolved: Resolved, store: Store, progress: Progress | None) -> KernelImage:
        name = resolved.kernel.name
        with store.mending(resolved.key):
            candidate, state = self._find(resolved, store)
        return store.add(
            resolved.key,
            lambda entry: self._fill(entry, name, candidate, state, progress),
            name=name,
            need=candidate.size + candidate.installed + _ELF_SPACE,
        )

    def _stored_before(self, resolved: Resolved, store: Store) -> KernelImage | None:
        spec = spec_of(resolved.kernel, ArchiveSpec)
        before = store.recall(self._question(spec)) if is_pattern(spec.version) else None
        return None if before is None else store.take(before.key, resolved.kernel.name)

    # --- what there is ---

    def offer(self, store: Store, suites: tuple[str, ...] = ()) -> Offer:
        """Every kernel in the archive's suites, or in those of them named ``suites``.

        Raises KernelUnavailable when no suite can be read.
        """
        indexes, failed = self._indexes(
            self._suites(self.archive.ask("*", suites)), store, refresh=True
        )
        if not indexes:
            raise KernelUnavailable(
                f"{self.archive.label}: {_failures(failed)}; check the network, the mirror "
                f"and the suites in kernels.toml"
            )
        notes = [_failures(failed), self._remark(indexes), *(i.note for i in indexes)]
        found = releases(c for index in indexes for c in index.candidates)
        return Offer(tuple(found), tuple(filter(None, notes)))

    def pin(self, candidate: Candidate, like: Kernel, name: str = "") -> Kernel:
        """``like`` with exactly this candidate: its package version and its suite."""
        spec = self.archive.ask(candidate.version.text, (candidate.suite,))
        return replace(like, name=name or candidate.version.text, spec=spec)

    def between(
        self, first: str, last: str, like: Kernel, store: Store, *, cached: bool = False
    ) -> PackageRange:
        """Every bootable kernel from ``first`` to ``last``, both included, oldest first.

        Both are written as ``version`` in kernels.toml is; a pattern means its newest.
        Each is ``like`` pinned to a package version and a suite, and called by its upstream
        version, or by the package's where one upstream version was packaged more than
        once.  With ``cached`` there are none but those of the store.  Raises
        KernelUnavailable, with the nearest, for an end that cannot boot or
        is not there, UsageError for what is not a version, and OutOfOrder.
        """
        everything = self.offer(store)
        offer = everything
        if cached:
            here = (c for c in offer.candidates if self.stored(c, store) is not None)
            offer = Offer(tuple(here), offer.notes)
        low, high = (self._end(offer, version, cached) for version in (first, last))
        if high.version < low.version:
            raise OutOfOrder(f"{_written(first, low)} is newer than {_written(last, high)}")
        inside = [c for c in everything.candidates if low.version <= c.version <= high.version]
        there = [c for c in inside if not c.missing and c in offer.candidates]
        often = Counter(c.version.upstream for c in there)
        kernels = [
            self.pin(c, like, c.version.upstream if often[c.version.upstream] == 1 else "")
            for c in there
        ]
        gone = [self.pin(c, like) for c in inside if c.missing]
        rest = [self.pin(c, like) for c in inside if not c.missing and c not in there]
        return PackageRange(tuple(kernels), tuple(gone), tuple(rest))

    def _end(self, offer: Offer, version: str, cached: bool) -> Candidate:
        found = matching(offer.candidates, version)
        if found and not found[-1].missing:
            return found[-1]
        place = "cache holds" if cached else "suites hold"
        why = found[-1].missing if found else f"the {place} no such kernel"
        raise KernelUnavailable(
            "; ".join([f"{version}: {why}", offer.nearest(version), *offer.notes])
        )

    # --- suites ---

    def _suites(self, spec: ArchiveSpec) -> tuple[str, ...]:
        suites = spec.suites or self.archive.suites
        if not suites:
            raise UsageError(
                f"kernels.toml: {self.archive.label}: suites is empty; "
                f'name some, for example suites = ["trixie-backports"]'
            )
        return suites

    def _indexes(
        self, suites: tuple[str, ...], store: Store, *, refresh: bool
    ) -> tuple[list[Index], dict[str, str]]:
        states, failed = self._states(suites, store)

        def read(state: KeptIndex) -> Index | SuiteUnreadable:
            try:
                return state.index(self.archive.max_index_age, refresh=refresh)
            except SuiteUnreadable as error:
                return error

        indexes = []
        if states:
            with ThreadPoolExecutor(len(states), "vmtest-index") as pool:
                # Whoever is told of attempts here is told of theirs.
                asked = [pool.submit(copy_context().run, read, state) for state in states]
                for state, future in zip(states, asked, strict=True):
                    result = future.result()
                    if isinstance(result, SuiteUnreadable):
                        failed[state.suite] = str(result)
                    else:
                        indexes.append(result)
        return indexes, failed

    def _find(self, resolved: Resolved, store: Store) -> tuple[Candidate, PackageIndex]:
        """The packages that ``resolved.key`` names, from the indexes as they are now."""
        suites = self._suites(spec_of(resolved.kernel, ArchiveSpec))
        states, _ = self._states(suites, store)
        indexes, _ = self._indexes(suites, store, refresh=False)
        for index in indexes:
            for candidate in index.candidates:
                if candidate.key == resolved.key and not candidate.missing:
                    state = next(s for s in states if s.suite == index.suite)
                    assert isinstance(state, PackageIndex)  # others bring a kernel in their way
                    return candidate, state
        raise KernelUnavailable(
            f"{resolved.kernel.name}: {resolved.version.text} ({resolved.origin}) is no longer "
            f"in the index; run the command again to resolve it again"
        )

    # --- words ---

    def _origin(self, candidate: Candidate) -> str:
        if not candidate.packages:
            return f"{candidate.suite} {candidate.version.text}"
        first = candidate.packages[0]
        return f"{self.archive.name} {candidate.suite}: {first.name} {first.version}"

    def _question(self, spec: ArchiveSpec) -> list[object]:
        asked = [spec.version, list(self._suites(spec))]
        return [self.archive.asks.table, self.archive.name, *asked, *self._variant()]

    def _remember(self, resolved: Resolved, store: Store) -> None:
        answer = Resolution(resolved.key, resolved.version.text, resolved.origin)
        try:
            store.remember(self._question(spec_of(resolved.kernel, ArchiveSpec)), answer)
        except (OSError, InfrastructureError):
            return  # a store that can only be read works, it just does not remember

    def _no_match(
        self,
        kernel: Kernel,
        spec: ArchiveSpec,
        suites: tuple[str, ...],
        offered: list[Candidate],
        failures: str,
    ) -> str:
        where = ", ".join(suites)
        message = f"{kernel.name}: no kernel {spec.version} in {where}"
        if failures and not offered:
            message = f"{kernel.name}: {failures}"
        elif failures:
            message += f"; {failures}"
        if offered:
            message += f"; {_nearest(offered, spec.version, 'nearest')}"
        if "expired" in failures:
            key = f"check_valid_until = false in {self.archive.label}"
            message += f"; to use an expired suite all the same, set {key}"
        elif " cannot be read (" in failures:
            message += "; check the network, the mirror and the suites in kernels.toml"
        return message

    # --- files ---

    def _fill(
        self,
        entry: Path,
        name: str,
        candidate: Candidate,
        state: PackageIndex,
        progress: Progress | None,
    ) -> Manifest:
        downloads = entry.parent / "download"
        downloads.mkdir()
        files = state.download(candidate.packages, downloads, name, progress)

        def one_by_one() -> Iterator[Path]:
            for file in files:
                yield file
                file.unlink()

        return fill_from(
            one_by_one(),
            entry,
            name=name,
            digest=candidate.digest,
            origin=self._origin(candidate),
            release=self._release(candidate),
            version=candidate.kernel_version.text,
        )


def from_store(kernel: Kernel, before: Resolution, store: Store, note: str) -> Resolved:
    """What the store has of what the same request led to ``before``; ``note`` says why."""
    image = store.get(before.key)
    return Resolved(
        kernel=kernel,
        version=KernelVersion.parse(before.version),
        key=before.key,
        origin=before.origin,
        size=0,
        cached=True,
        note=note,
        digest="" if image is None else image.digest,
    )


def _failures(failed: dict[str, str]) -> str:
    """Which suites could not be read and why, those of one cause together."""
    causes: dict[str, list[str]] = {}
    for suite, why in failed.items():
        causes.setdefault(why, []).append(suite)
    return "; ".join(f"{', '.join(s)} cannot be read ({why})" for why, s in causes.items())


def _written(version: str, found: Candidate) -> str:
    return version if version == found.version.text else f"{version} ({found.version.text})"


def _nearest(offered: list[Candidate], version: str, words: str) -> str:
    near = nearest(offered, version)
    if not near:
        return "there is none near it"
    package = "-" in version
    listed = ", ".join(
        f"{c.version.text if package else c.version.upstream} ({c.suite})" for c in near
    )
    hint = ""
    if not is_pattern(version) and version.count(".") == 1:
        hint = f'; for the newest of a series write "{version}.*"'
    return f"{words}: {listed}{hint}"

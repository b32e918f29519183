"""Kernels from a dnf or yum archive: its repositories of .rpm packages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.host.cache import require_tool
from vmtest.host.debian import mirror_variables
from vmtest.kernels.archive.candidates import Candidate
from vmtest.kernels.archive.kept import Index
from vmtest.kernels.archive.source import ArchiveSource
from vmtest.kernels.dnf.repository import Repository
from vmtest.kernels.dnf.signature import read_keys
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import DnfArchive


@dataclass(frozen=True, slots=True)
class DnfSource(ArchiveSource):
    """The repositories of one archive."""

    archive: DnfArchive

    def _states(
        self, suites: Iterable[str], store: Store
    ) -> tuple[Sequence[Repository], dict[str, str]]:
        archive = self.archive
        require_tool("bsdtar", "libarchive-tools", "to unpack .rpm packages")
        variable, _ = mirror_variables(archive.name)
        mirror = os.environ.get(variable) or archive.mirror
        if mirror is None and archive.mirror_list is None:
            raise UsageError(
                f"kernels.toml: {archive.label}: no mirror of it is known; set mirror or "
                f"mirror_list there, or {variable} in the environment"
            )
        if archive.keyring is None:
            raise UsageError(
                f"kernels.toml: {archive.label}: no keyring to check its signatures with; set "
                f"keyring there to the distribution's key (RPM-GPG-KEY-...)"
            )
        keys = read_keys(archive.keyring, archive.label)
        return [Repository(store.root, suite, archive, mirror, keys) for suite in suites], {}

    def _remark(self, indexes: Sequence[Index]) -> str:
        known = {kernel for index in indexes for kernel in index.flavours}
        mine = self.archive.kernel
        if not indexes or mine in known or any(index.candidates for index in indexes):
            return ""
        where = ", ".join(index.suite for index in indexes)
        there = f"there are: {', '.join(sorted(known))}" if known else "there are none at all"
        return (
            f'{self.archive.label} kernel = "{mine}": no such kernels in {where}'
            f"{suggestion(mine, known)} ({there})"
        )

    def _variant(self) -> list[str]:
        return [] if self.archive.kernel == "kernel" else [self.archive.kernel]

    def _release(self, candidate: Candidate) -> str | None:
        return None  # a repository need not say it: the packages do

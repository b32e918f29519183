"""Kernels from an apt archive's suites, through signature-checked apt states of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmtest.config.suggest import suggestion
from vmtest.host.cache import require_tool
from vmtest.host.debian import mirrors_of
from vmtest.kernels.archive.kept import Index
from vmtest.kernels.archive.source import ArchiveSource
from vmtest.kernels.debian.suite import SuiteState
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import AptArchive


@dataclass(frozen=True, slots=True)
class AptSource(ArchiveSource):
    """The suites of one apt archive."""

    archive: AptArchive

    def _states(
        self, suites: Iterable[str], store: Store
    ) -> tuple[list[SuiteState], dict[str, str]]:
        require_tool("apt-get", "apt", "to read the archive")
        archive = self.archive
        mirrors = mirrors_of(archive)
        states, failed = [], {}
        for suite in suites:
            mirror = mirrors.of(suite)
            if mirror is None:
                kind = "security_mirror" if mirrors.security is None else "mirror"
                failed[suite] = f"no mirror is known for it; set {kind} in [apt.{archive.name}]"
            else:
                state = SuiteState(
                    store.root,
                    suite,
                    mirror,
                    archive.check_valid_until,
                    archive.components,
                    archive.flavour,
                )
                states.append(state)
        return states, failed

    def _remark(self, indexes: Sequence[Index]) -> str:
        """That no suite has the archive's flavour, and what they have; empty when one has it."""
        known = {flavour for index in indexes for flavour in index.flavours}
        mine = self.archive.flavour
        if not known or mine in known or any(index.candidates for index in indexes):
            return ""
        where = ", ".join(index.suite for index in indexes)
        return (
            f'{self.archive.label} flavour = "{mine}": no such kernels in {where}'
            f"{suggestion(mine, known)} (there are: {', '.join(sorted(known))})"
        )

    def _variant(self) -> list[str]:
        return [] if self.archive.flavour == "generic" else [self.archive.flavour]

"""Which complaints of a kernel count, and which are known (``[[known_splat]]``).  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from vmtest.model.project import KnownSplat
from vmtest.model.results import Complaint, KnownComplaint
from vmtest.model.splats import continues
from vmtest.model.text import one_line
from vmtest.model.versions import KernelVersion
from vmtest.vm.console import Finding


@dataclass(frozen=True, slots=True)
class Complaints:
    """A kernel's complaints: those that count, and those that are known.

    ``expired`` says of the first that counts which entry of kernels.toml no longer covers it.
    """

    counting: tuple[Finding, ...] = ()
    known: tuple[KnownComplaint, ...] = ()
    expired: str = ""

    def __add__(self, more: Complaints) -> Complaints:
        """Those of a guest, and of one after it."""
        return Complaints(
            (*self.counting, *more.counting),
            (*self.known, *more.known),
            self.expired if self.counting else more.expired,
        )

    @property
    def any(self) -> bool:
        """Whether the kernel complained at all."""
        return bool(self.counting or self.known)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each that counts."""
        return tuple(finding.text for finding in self.counting)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprint of each that counts, in the same order."""
        return tuple(finding.fingerprint for finding in self.counting)

    @property
    def tests(self) -> tuple[str, ...]:
        """The test during which each that counts came, in the same order."""
        return tuple(finding.test for finding in self.counting)

    @property
    def reason(self) -> str:
        """Why the kernel is SPLAT; there is one that counts."""
        first = self.counting[0]
        return complained(Complaint(first.text, first.fingerprint, first.test), self.expired)


def complained(first: Complaint, expired: str = "") -> str:
    """Why a kernel is SPLAT whose first complaint is this."""
    meanwhile = f";{first.meanwhile}" if first.test else ""
    return f'the kernel complained: "{first.text}"{meanwhile}{expired}'


@dataclass(frozen=True, slots=True)
class KnownSplats:
    """The entries for one kernel, and the day (UTC) that decides which have expired."""

    entries: tuple[KnownSplat, ...] = ()
    today: date = date.min

    @classmethod
    def of(cls, entries: Iterable[KnownSplat], version: KernelVersion, today: date) -> KnownSplats:
        """Those of ``entries`` that are about a kernel of ``version``."""
        return cls(tuple(entry for entry in entries if entry.concerns(version)), today)

    def sort(self, findings: Sequence[Finding]) -> Complaints:
        """Part ``findings``, oldest first.  An oops goes with the complaint that it belongs to."""
        counting: list[Finding] = []
        known: list[KnownComplaint] = []
        expired = before = reason = ""
        for finding in findings:
            text, fingerprint = finding.text, finding.fingerprint
            entries = [entry for entry in self.entries if entry.matches(text, fingerprint)]
            valid = [entry for entry in entries if not entry.expired(self.today)]
            goes_on = bool(reason) and continues(text, before)
            reason = valid[0].reason if valid else reason if goes_on else ""
            before = text
            if reason:
                known.append(KnownComplaint(text, fingerprint, reason, finding.test))
                continue
            if entries and not counting:
                expired = f" (known splat, expired {entries[0].until}: {entries[0].reason})"
            counting.append(finding)
        return Complaints(tuple(counting), tuple(known), expired)


def note_of(known: Sequence[KnownComplaint]) -> str:
    """What is to be said of ``known``, "" for none: each reason once, with its first complaint."""
    by_reason: dict[str, list[KnownComplaint]] = {}
    for one in known:
        by_reason.setdefault(one.reason, []).append(one)
    return "; ".join(
        f'{len(of)} known complaint(s) of the kernel ({reason}), the first: "'
        f'{one_line(of[0].text, 300)}"'
        for reason, of in by_reason.items()
    )

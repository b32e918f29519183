"""What each kernel can do, as its probe said: ``bpftool feature probe``'s text -> rows.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmtest.model.text import one_line

_AVAILABLE = re.compile(r"(?:eBPF )?(.{1,80}?) is (NOT )?available\s*")
_CONFIG = re.compile(r"(CONFIG_\w{1,80}) is (?:set to (\w{1,20})|not set)\s*")
_HELPERS = re.compile(r"eBPF helpers supported for program type (\w{1,60}):\s*")
_HELPER = re.compile(r"\s+- (bpf_\w{1,80})\s*")
_GROUPS = ("program_type", "map_type", "CONFIG_", "bpf_")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: what each kernel says of it, "" for a kernel that was not asked."""

    name: str
    cells: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether it tells the kernels apart that were asked."""
        return len(set(self.cells) - {""}) > 1


def parse(text: str) -> dict[str, str]:
    """The features of a probe's output: ``yes``, ``no``, the value of a CONFIG symbol.

    A helper is ``yes`` where any type of program may call it.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _CONFIG.fullmatch(line):
            found[match[1]] = match[2] or "no"
        elif match := _HELPER.fullmatch(line):
            found[match[1]] = "yes"
        elif _HELPERS.fullmatch(line):
            continue
        elif match := _AVAILABLE.fullmatch(line):
            found[one_line(match[1])] = "no" if match[2] else "yes"
    return found


def rows(probes: Mapping[str, str], kernels: Sequence[str]) -> tuple[Feature, ...]:
    """A row a feature, those that differ first; none where no kernel was asked."""
    said = [parse(probes[name]) if name in probes else None for name in kernels]
    names = dict.fromkeys(name for of in said if of for name in of)
    found = [
        Feature(name, tuple("" if of is None else of.get(name, "no") for of in said))
        for name in names
    ]
    return tuple(sorted(found, key=lambda row: (not row.differs, _rank(row.name))))


def _rank(name: str) -> int:
    return next((n for n, start in enumerate(_GROUPS) if name.startswith(start)), len(_GROUPS))

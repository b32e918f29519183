"""The rows of faults.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIST = Path(__file__).with_name("faults.toml")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fault:
    """What happens, what is seen and kept then, and the ids of the tests (without parameters).

    ``left`` is what stays by design, in words, "" where nothing may stay; ``leaves`` are patterns
    of it, as ``tests/faults/left.py`` names things.
    """

    group: str
    what: str
    sees: str
    kept: str
    tests: tuple[str, ...]
    left: str = ""
    leaves: tuple[str, ...] = ()


def faults(text: str) -> list[Fault]:
    """The faults in ``text``, which is as faults.toml."""
    return [
        Fault(
            group["title"],
            one["what"],
            one["sees"],
            one["kept"],
            tuple(one["tests"]),
            one.get("left", ""),
            tuple(one.get("leaves", ())),
        )
        for group in tomllib.loads(text)["group"]
        for one in group["fault"]
    ]


@cache
def tests_of_faults() -> dict[str, tuple[str, ...]]:
    """All tests in faults.toml, by their ids without parameters, and what each may leave."""
    listed = faults(LIST.read_text(encoding="utf-8"))
    return {test: fault.leaves for fault in listed for test in fault.tests}

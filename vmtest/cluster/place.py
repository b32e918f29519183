"""Where a matrix is to run, in the words of ``--on``.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vmtest.errors import UsageError

FORMS = "local:N, tcp://SCHEDULER:PORT or tls://SCHEDULER:PORT"
_LOCAL = re.compile(r"local:([1-9]\d{0,2})")
_ADDRESS = re.compile(r"(?:tcp|tls)://(?:[^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):([1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster: the ``address`` of its scheduler, or ``workers`` to be started on this machine."""

    text: str
    address: str = ""
    workers: int = 0


def parse_place(text: str) -> Place:
    """The cluster that ``text`` means; raises UsageError."""
    if match := _LOCAL.fullmatch(text):
        return Place(text, workers=int(match[1]))
    match = _ADDRESS.fullmatch(text)
    if match and int(match[1]) < 1 << 16:
        return Place(text, address=text)
    raise UsageError(f"`on` {text}: write {FORMS}")

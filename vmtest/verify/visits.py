"""How often the verifier read each line of the source, from its log of level 2.  Pure.

Only that level has every path: at level 1 a path that ended well leaves the log.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from vmtest.model.loads import SourceLine, Visits

LEVEL = 2
"""The log level that has every path."""
LINES = 200
"""The lines of a program that are kept, those that were read most often."""
LOG_LIMIT = 256 << 20
"""Characters of a log that are looked at."""
DIFFERENT = 200_000
"""Pairs of a line and an instruction that are told apart: a program's are at most a million, and
hardly ever a twentieth.  What a hostile guest writes beyond takes no memory."""
_TEXT, _PLACE = 300, 200  # characters

# A line of the source, whose place is told since 6.8, or an instruction.  Where the verifier stays
# on a line it does not tell it again.
_LINE = re.compile(
    r"^(?:; (?P<source>.*)|(?P<instruction>\d{1,9}): \([0-9a-f]{2}\) )", re.MULTILINE
)
_PLACED = re.compile(r"(?P<text>.*?) ?@ (?P<place>[^ @]+:\d{1,9})")


def visits(log: str) -> Visits:
    """What ``log`` says of each line; the worst lines first, and no more than LINES of them."""
    count: Counter[str] = Counter()
    different: defaultdict[str, set[str]] = defaultdict(set)
    source, pairs = "", 0
    for found in _LINE.finditer(log, 0, LOG_LIMIT):
        instruction = found["instruction"]
        if instruction is None:
            source = found["source"][: _TEXT + _PLACE]
            continue
        if source not in count and len(count) >= DIFFERENT:
            continue
        count[source] += 1
        if pairs < DIFFERENT and instruction not in different[source]:
            different[source].add(instruction)
            pairs += 1
    lines = [_line(text, count[text], len(different[text])) for text in count]
    lines.sort(key=lambda line: (-line.visits, line.place, line.text))
    return Visits(count.total(), tuple(lines[:LINES]), max(0, len(lines) - LINES))


def _line(source: str, visited: int, instructions: int) -> SourceLine:
    placed = _PLACED.fullmatch(source)
    text, place = (placed["text"], placed["place"]) if placed else (source, "")
    return SourceLine(place[-_PLACE:], text.strip()[:_TEXT], visited, instructions)

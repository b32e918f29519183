"""What an error says, in one line that holds what differs.  Pure.

pytest begins with both values as a whole, and says below them where they part.  Long values end
before that, so the line is made of both: the values in brief, and what differs.  The texts are
those of pytest 7 to 9 (``_pytest/assertion/util.py``, ``python_api.py``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vmtest.model.results import TestResult
from vmtest.model.text import one_line, printable

LIMIT = 200
"""Characters of such a line."""

_WHOLE = 80  # characters: a shorter assertion is shown as a whole
_DIFFERENCE = 120  # of what differs
_SIDE = 24  # of a value in brief
_AROUND = 12  # of a value in front of where it differs
_READ = 10_000  # of a line that are looked at

_SOURCE = re.compile(r"^>\s+(assert .*)$", re.MULTILINE)
_ASSERT = re.compile(r"(?:\w+: )?assert ")
_RUNS = (  # what may come again and again, each with how often it has to
    re.compile(r"(\\x[0-9a-f]{2}|\\[0abfnrtv])\1{4,}"),
    re.compile(r"( [0-9a-f]{2})\1{4,}(?![0-9a-f])"),
    re.compile(r"(\b\d{1,3}, )\1{7,}"),
    re.compile(r"([^\s\\])\1{23,}"),
)
_OPERATORS = ("==", "!=", "<=", ">=", "not in", "in", "is not", "is", "<", ">")
_NAMED = re.compile(r"[A-Za-z_][\w.]*\(")
_BARE = re.compile(r"(?:\w+: )?assert (?:not )?(?:True|False|None|0|\w+ is (?:not )?\w+)$")

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

_DRILL = re.compile(r"Drill down into differing attribute ([\w.]+):$")
_AT = re.compile(r"At index (\d+) diff: (.*)$", re.DOTALL)
_LONGER = re.compile(r"(?:Left|Right) contains .*item.*")
_EXTRA = re.compile(r"Extra items in the (?:left|right) set:$")
_HERE = re.compile(r".* is contained here:$")
_PAIR = re.compile(
    r"(?:Regex|Input|Expected regex|Actual message|Obtained|Expected): .*", re.DOTALL
)
_NOISE = re.compile(
    r"(?:Omitting \d+ identical|Use -v+ to|\.\.\.Full output truncated|Skipping \d+ identical|"
    r"comparison failed|Max (?:absolute|relative) difference|Index +\| )"
)
_HEADS = re.compile(
    r"(?:Common items|Matching attributes|Differing (?:items|attributes)|Full diff|"
    r"Drill down into|Extra items|At index|Left contains|Right contains)\b"
)


def said(test: TestResult, limit: int = LIMIT) -> str:
    """What went wrong with ``test``, in one line of at most ``limit`` characters."""
    message, errors = one_line(test.message or test.details, _READ), _errors(test)
    head = one_line(errors[0], _READ) if errors else ""
    if not head or (test.message and head[: _SIDE * 2] not in message):
        return middle(squeezed(message), limit)  # it has no traceback, or that of another error
    if test.message and not message.startswith(head[: _SIDE * 2]):
        head = message  # a known failure that has expired says so in front
    head = squeezed(head)
    at = next((n for n, line in enumerate(errors) if _ASSERT.match(line)), None)
    if at is None:
        return middle(_with_more(head, errors[1:], limit), limit)
    if at == 0 and _BARE.match(head):
        return middle(_with_origin(head, errors), limit)
    if len(head) <= _WHOLE and (at or "..." not in head):
        return head
    apart = _difference(errors[at + 1 :])
    if not apart:
        return middle(head, limit)
    room = max(limit - len(apart) - 2, _SIDE)
    if at and len(head) > room and (compared := _compared(test.details)):
        return f"{compared}: {apart}"  # of a message that is cut, nobody knows which side is which
    brief = middle(head, room) if at else _brief(head, min(room, _WHOLE))
    return middle(f"{brief}: {apart}", limit)


@dataclass(slots=True)
class Said:
    """``said``, for the tests of one report: what several kernels say alike is read once."""

    limit: int = LIMIT
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, test: TestResult) -> str:
        """What went wrong with ``test``."""
        key = test.message, test.details
        if key not in self._known:
            self._known[key] = said(test, self.limit)
        return self._known[key]


def squeezed(text: str) -> str:
    r"""``text`` with runs of the same escape, byte or number told once: ``\x00(x40)``."""
    for pattern in _RUNS:
        text = pattern.sub(lambda run: f"{run[1]}(x{len(run[0]) // len(run[1])})", text)
    return text


def middle(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters: a longer one loses its middle."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 2 // 5
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def _errors(test: TestResult) -> list[str]:
    """What pytest says of the last error: its message, and how the values differ."""
    lines: list[str] = []
    for line in reversed(printable(test.details).split("\n")):
        if line == "E" or line.startswith("E "):
            lines.append(line[2:])
        elif lines:
            break
    lines.reverse()
    indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    return [line[indent:] if not line[:indent].strip() else line.lstrip() for line in lines]


def _compared(details: str) -> str:
    """The failing assertion as it is written, if it compares two names; "" else."""
    lines = [found[1] for found in _SOURCE.finditer(details)]
    text = lines[-1].rstrip("( ") if lines else ""
    for written in (text, text.rstrip(",")):
        with suppress(SyntaxError, ValueError):
            match ast.parse(written).body:
                case [ast.Assert(test=ast.Compare(ops=[_]) as test)]:
                    told = f"assert {ast.unparse(test)}"
                    return told if len(told) <= _WHOLE else ""
    return ""


def _with_more(head: str, lines: Sequence[str], limit: int) -> str:
    """The ``head`` of an error that is no assertion, and what its next lines say of it."""
    if len(head) > _WHOLE:
        return head
    more = [line for line in lines if _PAIR.match(line.strip())] or list(lines[:1])
    told = [squeezed(one_line(line, _READ)) for line in more if line.strip()]
    if not told:
        return head
    room = max((limit - len(head)) // len(told) - 2, _SIDE)
    return f"{head.rstrip('.')}: {', '.join(middle(part, room) for part in told)}"


def _with_origin(head: str, errors: Sequence[str]) -> str:
    """An assertion of one value, which is True or None, and where that came from."""
    where = next((line for line in errors if line.lstrip().startswith("+  where ")), "")
    told = _ADDRESS.sub("", squeezed(one_line(where, _READ))).removeprefix("+ ")
    return f"{head} ({told})" if told else head


def _brief(head: str, room: int) -> str:
    """An assertion with its two values in brief."""
    start = _ASSERT.match(head)
    assert start is not None
    expression = head[start.end() :]
    for operator in _OPERATORS:
        sides = expression.split(f" {operator} ")
        if len(sides) < 2:
            continue
        cuts = range(1, len(sides))
        joint = f" {operator} "
        left, right = min(
            ((joint.join(sides[:cut]), joint.join(sides[cut:])) for cut in cuts),
            key=lambda pair: abs(len(pair[0]) - len(pair[1])),
        )
        return f"{start[0]}{_gist(left)} {operator} {_gist(right)}"
    return middle(head, room)


def _gist(value: str) -> str:
    if len(value) <= _SIDE:
        return value
    if named := _NAMED.match(value):
        return f"{named[0]}…)"
    closing = {"[": "]", "{": "}", "(": ")"}.get(value[0])
    return f"{value[0]}…{closing}" if closing else middle(value, _SIDE)


def _difference(lines: Sequence[str]) -> str:
    """What of ``lines``, which follow an assertion, says where the values part; "" for nothing."""
    found: dict[tuple[str, ...], str] = {}
    for path, text in (*_facts(lines),) or _of_texts(lines):
        for length in range(1, len(path) + 1):
            found.pop(path[:length], None)  # what is told of a part stands for the whole
        found.setdefault(path or (f"\0{len(found)}",), text)
    told = [
        text if path[0].startswith("\0") else f"{'.'.join(path)}: {text}"
        for path, text in found.items()
    ]
    shown = told[:1]
    while len(shown) < len(told) and len("; ".join(told[: len(shown) + 1])) <= _DIFFERENCE:
        shown.append(told[len(shown)])
    more = len(told) - len(shown)
    aside = f" (and {more} more)" if more else ""
    return middle("; ".join(shown), _DIFFERENCE - len(aside)) + aside


def _facts(lines: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each thing that differs: the attributes that lead to it, and how."""
    path: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if found := _DRILL.match(text):
            path = [part for part in path if part[0] < indent]
            path.append((indent, found[1]))
        names = tuple(name for _, name in path)
        if text == "Full diff:" or _NOISE.match(text):
            continue
        if found := _AT.match(text):
            yield names, f"at index {found[1]}: {_apart(found[2])}"
        elif path and text.startswith(f"{path[-1][1]}: ") and indent > path[-1][0]:
            yield names, _apart(text[len(path[-1][1]) + 2 :])
        elif text == "Differing items:":
            yield from ((names, _apart(item)) for item in _below(lines, number))
        elif _LONGER.match(text) or _EXTRA.match(text):
            items = ", ".join(_below(lines, number)) if text.endswith(":") else ""
            yield names, squeezed(f"{text} {items}".rstrip())
        elif _HERE.match(text):
            yield names, _contained(text, next(iter(_below(lines, number)), ""))
        elif row := _row(text):
            yield names, f"at {row[0]}: {row[1]} != {row[2]}"
        elif _PAIR.match(text):
            yield names, squeezed(text)


def _row(text: str) -> tuple[str, str, str] | None:
    """The cells of ``index | obtained | expected``; no pattern, which long blanks would hold up."""
    index, _, values = text.partition(" | ")
    obtained, _, expected = values.partition(" | ")
    row = index.rstrip(), obtained.rstrip(), expected.rstrip()
    return row if all(row) and len(row[0].split()) == 1 else None


def _of_texts(lines: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The first line that differs, of those that pytest marks: ``-`` is the right side's."""
    marked = [line.strip() for line in lines]
    right = next((line[2:].strip() for line in marked if line.startswith("- ")), None)
    left = next(
        (
            line[2:].strip()
            for line in marked
            if line.startswith("+ ") and not line.startswith(("+  where", "+  and"))
        ),
        None,
    )
    if left is not None and right is not None:
        yield (), _apart(f"'{left}' != '{right}'")
    elif left is not None or right is not None:
        side = "left" if left is not None else "right"
        yield (), f"only on the {side}: {squeezed(left or right or '')}"


def _below(lines: Sequence[str], number: int) -> list[str]:
    """The lines that belong to the heading ``lines[number]``."""
    found = []
    for line in lines[number + 1 :]:
        text = line.strip()
        if not text or _HEADS.match(text) or _NOISE.match(text) or text.startswith("?"):
            break
        found.append(text)
    return found


def _contained(heading: str, text: str) -> str:
    """Where in ``text`` the value of ``heading`` stands."""
    value = heading.removesuffix(" is contained here:")[1:-1]
    at = max(text.find(value), 0)
    start, end = max(at - _AROUND, 0), at + len(value) + _AROUND
    shown = text[start:end]
    return f"here: {'…' if start else ''}{shown}{'…' if end < len(text) else ''}"


def _apart(comparison: str) -> str:
    """``LEFT != RIGHT``, long values from a little before where they part."""
    whole = squeezed(comparison)
    sides = comparison.split(" != ")
    if len(whole) <= _WHOLE or len(sides) != 2:
        return whole
    left, right = sides
    same = next(
        (n for n, (one, other) in enumerate(zip(left, right, strict=False)) if one != other),
        min(len(left), len(right)),
    )
    start = max(same - _AROUND, 0)
    return " != ".join(_window(side, start) for side in sides)


def _window(value: str, start: int) -> str:
    room = _DIFFERENCE // 2 - 4
    shown = squeezed(value[start : start + 10 * room])
    cut = f"{shown[: room - 1]}…" if len(shown) > room else shown
    return f"{'…' if start else ''}{cut}"

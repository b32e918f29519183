"""Bars of the time line as rectangles of a drawing.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmtest.report.html.timeline import PHASES, Bar, Mark
from vmtest.report.text import seconds

_WIDTH, _LEFT, _ROW, _TOP = 1100.0, 130.0, 24.0, 6.0
_CHARACTER = 6.6  # width of a letter in a bar
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_MOST_TICKS = 12
_MOST_MARKS = 400


@dataclass(frozen=True, slots=True)
class Box:
    """One rectangle: a phase of a kernel; ``text`` stands in it, ``title`` says all."""

    x: float
    y: float
    width: float
    phase: str
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    """A word at a place."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Where a test went wrong, or a kernel ended as ``end`` says; ``text`` stands beside it."""

    x: float
    y: float
    title: str
    end: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing: its size, rows of boxes, and an axis of seconds."""

    width: float
    height: float
    rows: tuple[Label, ...]
    boxes: tuple[Box, ...]
    wrong: tuple[Tick, ...]
    axis: tuple[Label, ...]


def by_slot(bars: Sequence[Bar], wrong: Sequence[Mark]) -> Chart:
    """A row a VM slot, with the kernels that had it one after the other."""
    slots = sorted({bar.slot for bar in bars if bar.slot})
    rows = {f"slot {slot}": [bar for bar in bars if bar.slot == slot] for slot in slots}
    marks = {f"slot {slot}": [mark for mark in wrong if mark.slot == slot] for slot in slots}
    return _chart(rows, marks, named=True)


def by_kernel(bars: Sequence[Bar], wrong: Sequence[Mark], kernels: Iterable[str]) -> Chart:
    """A row a kernel, from the run's start to its own end."""
    rows = {name: [bar for bar in bars if bar.kernel == name] for name in kernels}
    marks = {name: [mark for mark in wrong if mark.kernel == name] for name in rows}
    return _chart({name: of for name, of in rows.items() if of}, marks, named=False)


def _chart(rows: dict[str, list[Bar]], marks: dict[str, list[Mark]], named: bool) -> Chart:
    end = max((bar.end for of in rows.values() for bar in of), default=0.0) or 1.0
    words = max((len(mark.end) for of in marks.values() for mark in of), default=0)
    right = 20 + (0 if named else words * _CHARACTER)  # room for how a kernel ended
    scale = (_WIDTH - _LEFT - right) / end
    labels, boxes, ticks = [], [], []
    for n, (name, of) in enumerate(rows.items()):
        y = _TOP + n * _ROW
        labels.append(Label(0, round(y + 15, 1), _cut(name, _LEFT - 8)))
        told: set[str] = set()
        for bar in of:
            boxes.append(_box(bar, y, scale, named and bar.kernel not in told))
            if bar.seconds * scale > 30:
                told.add(bar.kernel)
        for mark in _first(marks.get(name, ())):
            x = round(_LEFT + mark.at * scale, 1)
            room = _WIDTH - x - 12  # nothing stands behind the end of a kernel in its own row
            text = "" if named else _cut(mark.end, room)
            ticks.append(Tick(x, y, mark.what, mark.end, text if text == mark.end else ""))
    height = _TOP + len(rows) * _ROW + 22
    step = next((step for step in _STEPS if end / step <= _MOST_TICKS), _STEPS[-1])
    axis = tuple(
        Label(round(_LEFT + n * step * scale, 1), height - 6, seconds(n * step))
        for n in range(int(end / step) + 1)
    )
    return Chart(_WIDTH, height, tuple(labels), tuple(boxes), tuple(ticks), axis)


def _first(marks: Sequence[Mark]) -> list[Mark]:
    """As many as can be told apart, and each that is the end of a kernel."""
    tests = [mark for mark in marks if not mark.end]
    return [*tests[:_MOST_MARKS], *(mark for mark in marks if mark.end)]


def _box(bar: Bar, y: float, scale: float, named: bool) -> Box:
    width = max(0.6, bar.seconds * scale)
    text = f"{bar.kernel} {bar.phase}" if named else bar.phase
    return Box(
        x=round(_LEFT + bar.start * scale, 1),
        y=y,
        width=round(width, 1),
        phase=bar.phase,
        text=_cut(text, width - 8),
        title=f"{bar.kernel} {PHASES[bar.phase]}: {seconds(bar.seconds)}",
    )


def _cut(text: str, width: float) -> str:
    """``text`` as far as it fits; "" where not even three letters do."""
    room = int(width / _CHARACTER)
    if len(text) <= room:
        return text
    return f"{text[: room - 1]}…" if room > 3 else ""

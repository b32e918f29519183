"""A few numbers as a line as small as a word.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 160.0, 24.0
_EDGE = 4.0


@dataclass(frozen=True, slots=True)
class Spark:
    """Lines as an SVG path, and the place of the last number; ``text`` says it in words."""

    path: str
    x: float
    y: float
    text: str


def spark(numbers: Sequence[int | None]) -> Spark:
    """``numbers`` from left to right, with a gap at each None; at least one is a number."""
    told = [number for number in numbers if number is not None]
    least, most = min(told), max(told)
    step = (WIDTH - 2 * _EDGE) / max(1, len(numbers) - 1)
    scale = (HEIGHT - 2 * _EDGE) / (most - least or 1)
    parts, pen = [], "M"
    x = y = 0.0
    for n, number in enumerate(numbers):
        if number is None:
            pen = "M"
            continue
        x = round(_EDGE + n * step, 1)
        y = round(HEIGHT - _EDGE - (number - least) * scale, 1) if most > least else HEIGHT / 2
        parts.append(f"{pen}{x} {y}" if pen == "L" else f"M{x} {y}h.01")  # one alone is a dot
        pen = "L"
    text = f"{told[0]:,} to {told[-1]:,} instructions, least {least:,}, most {most:,}"
    return Spark("".join(parts), x, y, text)

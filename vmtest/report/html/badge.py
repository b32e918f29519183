"""A run as a badge: an SVG file for a README.  Pure."""

from __future__ import annotations

from vmtest.report.table import WELL
from vmtest.report.text import counted
from vmtest.runs.past import Past

_LEFT = "vmtest"
_LETTER, _EDGE = 6.1, 12.0
_GOOD, _BAD, _NOTHING = "#0b6e99", "#a8360a", "#57606a"


def words(run: Past) -> str:
    """``passing on 4 of 4 kernels``."""
    well = sum(status in WELL for _, status in run.kernels)
    every = counted(len(run.kernels), "kernel")
    if not run.ran:
        return "nothing ran"
    if run.status == 0:
        return f"passing on {well} of {every}"
    bad = len(run.kernels) - well
    return f"failing on {bad} of {every}" if bad else f"ended early, exit {run.status}"


def badge(run: Past) -> str:
    """The SVG of ``run``: numbers and words of ours, nothing that a guest wrote."""
    right = words(run)
    color = _NOTHING if not run.ran else _BAD if run.status else _GOOD
    first, second = (round(len(text) * _LETTER + _EDGE) for text in (_LEFT, right))
    font = "DejaVu Sans,Verdana,Geneva,sans-serif"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{first + second}" height="20" role="img" \
aria-label="{_LEFT}: {right}">
<title>{_LEFT}: {right}</title>
<rect width="{first + second}" height="20" rx="3" fill="{color}"/>
<path d="M3 0h{first - 3}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3" fill="#2b3138"/>
<g fill="#fff" font-family="{font}" font-size="11" text-anchor="middle">
<text x="{first / 2}" y="14" textLength="{first - _EDGE}">{_LEFT}</text>
<text x="{first + second / 2}" y="14" textLength="{second - _EDGE}">{right}</text>
</g>
</svg>
"""

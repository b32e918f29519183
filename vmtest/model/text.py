"""Text of a guest or a stranger's file, made safe to show: pure functions of strings."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, ...: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"  # two and three characters: reset, character sets
)
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 without tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional overrides reorder what is read
    "\ud800-\udfff\ufffe\uffff]"  # no characters: neither UTF-8 nor XML takes them
)


def printable(text: str) -> str:
    """``text`` without terminal sequences, other control characters spelled out (``\\x07``)."""
    text = _SEQUENCE.sub("", text.replace("\r\n", "\n"))
    text = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")
    return _UNSAFE.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str, limit: int = 200) -> str:
    """``text`` made printable, on one line, at most ``limit`` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

"""Text of guests, tools and users, made safe to show or read: pure functions of strings."""

from __future__ import annotations

import re
from collections.abc import Collection

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
_HARMLESS = bytes((*b"\t\n", *range(0x20, 0x7F)))
# At most 9 digits: Python reads no number of any length.
_SIZE = re.compile(r"(\d{1,9})\s*(?:([KMG])(?:iB)?)?", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def printable(text: str) -> str:
    """``text`` without terminal sequences, other control characters spelled out (``\\x07``)."""
    if text.isprintable() or _is_harmless(text):
        return text
    text = text.replace("\r\n", "\n")
    if "\x1b" in text:
        text = _SEQUENCE.sub("", text)
    if "\r" in text:
        # From the first of a run on: from each of them it would take the square of its length.
        text = re.sub(r"(?<!\r)\r+\n", "\n", text).replace("\r", "\n")
    return _UNSAFE.sub(_spelled, text)


def _is_harmless(text: str) -> bool:
    """Whether ``text`` is printable as it is, as most is: a quick look at hundreds of megabytes."""
    if text.isascii():
        return not text.encode().translate(None, _HARMLESS)
    return text.replace("\n", " ").isprintable()


def _spelled(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str, limit: int = 200) -> str:
    """``text`` made printable, on one line, at most ``limit`` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def last_line(text: str) -> str:
    """The last line of ``text`` that is not blank, without spaces around it; "" without any."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def size_of(text: str, units: Collection[str]) -> int | None:
    """The bytes that ``text`` means, such as ``512M``, ``2G`` or ``2 GiB``; None for other text.

    ``units`` are those that may be written, of "K", "M", "G" and "", which is bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[2] or "") not in units:
        return None
    return int(match[1]) * _UNITS[match[2] or ""]

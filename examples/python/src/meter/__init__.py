"""How many bytes a control group has sent, as people read it."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def readable(count: int) -> str:
    """``count`` bytes with a unit: 1536 is 1.5 KiB."""
    size = float(count)
    for unit in UNITS[:-1]:
        if size < 1024:
            return f"{size:g} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {UNITS[-1]}"


def total(value: bytes) -> int:
    """The number in the program's map ``bytes_sent``."""
    return int.from_bytes(value, "little")

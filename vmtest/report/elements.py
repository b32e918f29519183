"""XML as text, an element at a time: no tree of hundreds of thousands is in memory.  Pure.

Text and values must hold no character that XML forbids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from xml.sax.saxutils import escape

DECLARATION = "<?xml version='1.0' encoding='utf-8'?>\n"
_MARKUP = re.compile('[&<>"\r\n\t]')
_IN_VALUES = {'"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#09;"}


def leaf(tag: str, attributes: Mapping[str, str], text: str = "") -> str:
    """An element that holds ``text``."""
    begin = _begin(tag, attributes)
    return f"{begin}>{escape(text)}</{tag}>" if text else f"{begin} />"


def branch(
    tag: str, attributes: Mapping[str, str], inside: Iterable[str], depth: int
) -> Iterator[str]:
    """An element in pieces, with the elements ``inside`` on lines of their own.

    ``depth`` says how many elements it is in itself.
    """
    line = "\n" + "  " * depth
    begin = _begin(tag, attributes)
    for element in inside:
        yield f"{begin}>{line}  {element}" if begin else f"{line}  {element}"
        begin = ""
    yield f"{begin} />" if begin else f"{line}</{tag}>"


def _begin(tag: str, attributes: Mapping[str, str]) -> str:
    values: Iterable[str] = attributes.values()
    if _MARKUP.search("".join(values)):
        values = [escape(value, _IN_VALUES) for value in values]
    told = [f' {name}="{value}"' for name, value in zip(attributes, values, strict=True)]
    return f"<{tag}{''.join(told)}"

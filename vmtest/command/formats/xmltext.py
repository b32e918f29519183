"""XML as tools write it: also with characters that XML forbids, or cut off (pure)."""

from __future__ import annotations

import codecs
import re
from xml.etree import ElementTree as ET

_FORBIDDEN = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0xFFFE, 0xFFFF]
# Characters of private use stand for them while XML is read; nobody writes those of plane 16.
_STAND_INS = {code: chr(0x10F000 + n) for n, code in enumerate(_FORBIDDEN)}
_BACK = {ord(stand_in): chr(code) for code, stand_in in _STAND_INS.items()}
_LONE = "\ufffd"
_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_VERBATIM = re.compile(r"<!\[CDATA\[|<!--")
_ENDS = {"<![CDATA[": "]]>", "<!--": "-->"}
_ENTITY = re.compile(r"&#(?:[0-9]+|x[0-9a-fA-F]+);|&(?!(?:amp|lt|gt|quot|apos);)")


class _Builder(ET.TreeBuilder):
    """Builds without namespaces, and keeps each ``testcase`` that is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.complete: list[ET.Element] = []

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:
        return super().start(tag.rpartition("}")[2], attrs)

    def end(self, tag: str) -> ET.Element:
        element = super().end(tag.rpartition("}")[2])
        if element.tag == "testcase":
            self.complete.append(element)
        return element

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type declaration, which no JUnit writer needs")


def parse(data: bytes) -> tuple[ET.Element, str]:
    """The root of ``data``, and why not all of it could be read, "" when it could.

    What is not well formed is read again with forbidden characters and stray
    ``&`` mended; then, up to the fault: the root is a ``testsuites`` of the
    cases that were complete.  Raises ValueError where there are none, and for
    a document type declaration, because entities could make it endless.
    """
    try:
        root, _, error = _parse(data)
        if root is not None:
            return root, ""
        root, complete, again = _parse(_mended(data))
    except LookupError as unknown:  # an encoding that Python does not know
        raise ValueError(f"it is not XML: {unknown}") from unknown
    if root is None and not complete:
        raise ValueError(f"it is not XML: {error}")
    if root is None:
        root = ET.Element("testsuites")
        root.extend(complete)
    for element in root.iter():
        _restore(element)
    return root, again


def _parse(data: bytes | str) -> tuple[ET.Element | None, list[ET.Element], str]:
    """The root, None for what is not well formed, the complete cases, and the fault."""
    builder = _Builder()
    parser = ET.XMLParser(target=builder)
    try:
        parser.feed(data)
        return parser.close(), builder.complete, ""
    except ET.ParseError as error:
        return None, builder.complete, str(error)


def _mended(data: bytes) -> str:
    """``data`` decoded, without what XML forbids; raises LookupError."""
    text = _decoded(data).lstrip("\ufeff \t\r\n")
    text = text.translate(_STAND_INS)
    parts: list[str] = []
    done = 0
    while verbatim := _VERBATIM.search(text, done):
        end = text.find(_ENDS[verbatim[0]], verbatim.end())
        if end < 0:
            break
        end += len(_ENDS[verbatim[0]])
        parts += [
            _ENTITY.sub(_mend, text[done : verbatim.start()]),
            text[verbatim.start() : end],
        ]
        done = end
    return "".join([*parts, _ENTITY.sub(_mend, text[done:])])


def _decoded(data: bytes) -> str:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    declared = _ENCODING.match(data)
    encoding = declared[1].decode("ascii", errors="replace") if declared else "utf-8"
    text = codecs.decode(data, encoding, errors="replace")
    if not isinstance(text, str):
        raise LookupError(f"unknown encoding: {encoding}")
    return text


def _mend(entity: re.Match[str]) -> str:
    text = entity[0]
    if not text.startswith("&#"):
        return "&amp;"
    digits = text[2:-1]
    # int() refuses very long numbers.
    code = 0x110000 if len(digits) > 9 else int(f"0{digits}", 16 if digits[0] == "x" else 10)
    if code in _STAND_INS:
        return _STAND_INS[code]
    return _LONE if code > 0x10FFFF or 0xD800 <= code < 0xE000 else text


def _restore(element: ET.Element) -> None:
    if element.text:
        element.text = element.text.translate(_BACK)
    for key, value in element.attrib.items():
        element.set(key, value.translate(_BACK))

"""C text of bpf/ as syntax trees.

The grammar knows C and not our macros.  So a macro that stands where no C can
stand (an attribute, a section, an assertion) is blanked and a map's attribute
is written as a member, every byte staying in its place; a macro's body is a
tree of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tree_sitter_c
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_c.language()))

_ATTRIBUTES = ("__always_inline", "__noinline", "__hidden", "__weak")
_DEFINE = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+(\w+)(\([^)\n]*\))?((?:\\\n|[^\n])*)$", re.M)
_DIRECTIVE = re.compile(rb"^[ \t]*#(?:\\\n|[^\n])*$", re.M)
_ATTRIBUTE_OF_MAP = re.compile(rb"__uint\((\w+),( ?)([^;\n]*)\);")
_TYPE_OF_MAP = re.compile(rb"__(?:type|array)\([^;]*\);")
_SECTION = re.compile(rb'SEC\(("[^"\n]*")\)')
_COMMENT = re.compile(rb"/\*.*?\*/|//[^\n]*", re.S)
_MAP_KIND = re.compile(rb"BPF_MAP_TYPE_\w+")


@dataclass(frozen=True, slots=True)
class Tree:
    """A syntax tree whose bytes lie where the file's lie; ``macro`` is whose body it is of."""

    root: Node
    macro: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the names of a set of files mean.

    ``siblings`` has the members of an enumerator's enum, itself included,
    ``maps`` the type of each map; ``attributes`` and ``assertions`` are macros
    that are no expressions.
    """

    siblings: Mapping[str, tuple[str, ...]]
    maps: Mapping[str, str]
    attributes: tuple[str, ...]
    assertions: tuple[str, ...]

    def same_kind(self, name: str) -> tuple[str, ...]:
        """The other maps of the type of the map ``name``."""
        kind = self.maps[name]
        return tuple(other for other in self.maps if self.maps[other] == kind and other != name)


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything below it, in the order of the text."""
    yield node
    for child in node.children:
        yield from walk(child)


def words(node: Node) -> str:
    """The text of ``node``."""
    return (node.text or b"").decode()


def read_vocabulary(texts: Iterable[bytes]) -> Vocabulary:
    """What the names of ``texts`` mean, wherever they are used."""
    plain = [_without_comments(text) for text in texts]
    attributes, assertions = list(_ATTRIBUTES), ["_Static_assert"]
    for text in plain:
        for match in _DEFINE.finditer(text):
            name, body = match[1].decode(), match[3].replace(b"\\\n", b"").strip()
            if body.startswith(b"__attribute__"):
                attributes.append(name)
            if body.startswith(b"_Static_assert"):
                assertions.append(name)
    bare = Vocabulary({}, {}, tuple(attributes), tuple(assertions))
    siblings: dict[str, tuple[str, ...]] = {}
    maps: dict[str, str] = {}
    for text in plain:
        for node in walk(_parse(_masked(text, bare))):
            if node.type == "enumerator_list":
                found = [c.child_by_field_name("name") for c in node.children]
                names = tuple(words(name) for name in found if name is not None)
                siblings.update(dict.fromkeys(names, names))
            if node.type == "declaration" and node.parent and node.parent.parent is None:
                kind = _MAP_KIND.search(node.text or b"")
                declared = [words(c) for c in node.children if c.type == "identifier"]
                if kind is not None:
                    maps.update(dict.fromkeys(declared, kind[0].decode()))
    return Vocabulary(siblings, maps, bare.attributes, bare.assertions)


def trees(text: bytes, vocabulary: Vocabulary) -> list[Tree]:
    """The file itself, then the body of each macro."""
    plain = _without_comments(text)
    found = [Tree(_parse(_masked(plain, vocabulary)))]
    for match in _DEFINE.finditer(plain):
        name = match[1].decode()
        if name in vocabulary.attributes + vocabulary.assertions or not match[3].strip():
            continue
        found.append(Tree(_parse(_body(plain, match)), name))
    return found


def sections(text: bytes) -> list[tuple[int, str]]:
    """Offset and content, quotes included, of every ELF section's name."""
    plain = _without_comments(text)
    return [(match.start(1), match[1].decode()) for match in _SECTION.finditer(plain)]


def _parse(text: bytes) -> Node:
    return _PARSER.parse(text).root_node


def _blank(data: bytes) -> bytes:
    return re.sub(rb"[^\n]", b" ", data)


def _without_comments(text: bytes) -> bytes:
    return _COMMENT.sub(lambda match: _blank(match[0]), text)


def _masked(text: bytes, vocabulary: Vocabulary) -> bytes:
    # Conditions too: what they choose between is mutated on both sides.
    text = _DIRECTIVE.sub(lambda match: _blank(match[0]), text)
    text = _SECTION.sub(lambda match: _blank(match[0]), text)
    text = _words(vocabulary.attributes, text)
    text = _calls(vocabulary.assertions, text)
    text = _TYPE_OF_MAP.sub(lambda match: _blank(match[0]), text)
    return _ATTRIBUTE_OF_MAP.sub(_as_member, text)


def _as_member(match: re.Match[bytes]) -> bytes:
    """``__uint(type, X);`` as ``int type____[X];``, each byte of X in its place."""
    head = match.start(3) - match.start()
    return b"int " + match[1].ljust(head - 5, b"_") + b"[" + match[3] + b"];"


def _words(names: Sequence[str], text: bytes) -> bytes:
    pattern = rb"\b(?:" + b"|".join(name.encode() for name in names) + rb")\b"
    return re.sub(pattern, lambda match: _blank(match[0]), text)


def _calls(names: Sequence[str], text: bytes) -> bytes:
    pattern = rb"\b(?:" + b"|".join(name.encode() for name in names) + rb")\([^;]*\);"
    return re.sub(pattern, lambda match: _blank(match[0]), text)


def _body(text: bytes, match: re.Match[bytes]) -> bytes:
    """The body of a macro alone, as a statement."""
    body = re.sub(rb"\\\n", b" \n", match[3])
    body = _calls(["_Static_assert"], body)
    first = match.start(3) + len(body) - len(body.lstrip())
    before, after = _blank(text[: match.start(3)]), _blank(text[match.end(3) + 1 :])
    masked = bytearray(before + body + b";" + after)
    if not re.match(rb"\s*(do|if|for|\{)\b", body):
        # An expression can stand only where a value is taken.
        masked[first - 2 : first] = b"v="
    return bytes(masked)

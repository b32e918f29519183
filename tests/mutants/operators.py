"""Mutation operators: the text of a program -> every small fault that fits somewhere in it.

Pure: nothing is compiled here.  What does not make a program is found out by
the compiler and the verifier.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tree_sitter import Node

from tests.mutants.source import Tree, Vocabulary, sections, trees, walk, words


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: in ``file`` (relative to bpf/) the bytes ``start`` to ``end`` become ``after``.

    ``line`` and ``column`` count from 1; ``function`` is the function or macro
    around it, "" outside; ``id`` stays when lines move.
    """

    file: str
    line: int
    column: int
    operator: str
    before: str
    after: str
    function: str
    start: int
    end: int
    id: str

    def apply(self, text: bytes) -> bytes:
        """``text``, the content of ``file``, with the fault."""
        return text[: self.start] + self.after.encode() + text[self.end :]

    def __str__(self) -> str:
        before, after = (" ".join(part.split()) for part in (self.before, self.after))
        change = f"{before}  =>  {after or '(nothing)'}"
        return f"{self.id} {self.file}:{self.line}:{self.column} {self.operator}: {change}"


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes ``start`` to ``end`` of a file become ``after``."""

    start: int
    end: int
    after: str


Operator = Callable[[Node, Vocabulary], Iterator[Change]]

_SWAPS = ("bpf_htons", "bpf_ntohs", "bpf_htonl", "bpf_ntohl", "bpf_cpu_to_be64", "bpf_be64_to_cpu")
_PORT = re.compile(r"(^|_)[sd]?port\d?$")
_WORD = re.compile(r"(^|_)([sd]?addr|ip4|ip6|length)$")
_COUNTED = re.compile(r"(^|_)(length|len|size|count|prio|priority|index|remaining)$")
_NAMES = ("identifier", "field_expression", "subscript_expression")
_JUMPS = ("return_statement", "break_statement", "continue_statement", "goto_statement")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]+$")
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)$")

_RELATIONS = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
}
_LOGIC = {"&&": "||", "||": "&&"}
_ARITHMETIC = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "%": "/",
    "|": "&",
    "&": "|",
    "<<": ">>",
    ">>": "<<",
}


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


_DIRECTIONS = _both_ways(
    ("inbound", "outbound"),
    ("ingress", "egress"),
    ("src", "dst"),
    ("saddr", "daddr"),
    ("sport", "dport"),
    ("local", "remote"),
    ("from", "to"),
    ("sent", "received"),
    ("acked", "received"),
    ("push", "pop"),
    ("active", "passive"),
)
_COUNTERPARTS = _both_ways(
    ("inet", "inet6"),
    ("ip4", "ip6"),
    ("ipv4", "ipv6"),
    ("v4", "v6"),
    ("tcp", "udp"),
    ("manage", "unmanage"),
    ("connect4", "connect6"),
    ("min", "max"),
)


def mutants(file: str, text: bytes, vocabulary: Vocabulary) -> list[Mutant]:
    """Every mutant of ``text``, in its order; ``file`` is what they call it."""
    seen: set[Change] = set()
    found: list[tuple[Change, str, str]] = []
    for tree in trees(text, vocabulary):
        for change, operator, function in _of_tree(tree, vocabulary):
            if change not in seen and text[change.start : change.end].decode() != change.after:
                seen.add(change)
                found.append((change, operator, function))
    for offset, name in sections(text):
        for after in _exchanged(name, _DIRECTIONS):
            found.append((Change(offset, offset + len(name), after), "direction", ""))
    found.sort(key=lambda each: (each[0].start, each[0].end))
    twins: Counter[tuple[str, ...]] = Counter()
    return [_named(file, text, *each, twins) for each in found]


def _named(
    file: str,
    text: bytes,
    change: Change,
    operator: str,
    function: str,
    twins: Counter[tuple[str, ...]],
) -> Mutant:
    """The mutant, with an id made of what it is and not of where in the file it is."""
    begin = text.rfind(b"\n", 0, change.start) + 1
    end = text.find(b"\n", change.start)
    before = text[change.start : change.end].decode()
    line = " ".join(text[begin:end].decode().split())
    key = (file, function, operator, line, before, change.after)
    twins[key] += 1
    digest = hashlib.sha256("\0".join((*key, str(twins[key]))).encode()).hexdigest()
    return Mutant(
        file=file,
        line=text.count(b"\n", 0, change.start) + 1,
        column=change.start - begin + 1,
        operator=operator,
        before=before,
        after=change.after,
        function=function,
        start=change.start,
        end=change.end,
        id=digest[:8],
    )


def _of_tree(tree: Tree, vocabulary: Vocabulary) -> Iterator[tuple[Change, str, str]]:
    for node in walk(tree.root):
        if not node.is_named or (node.has_error and not _mends(node)):
            continue
        for name, operator in OPERATORS.items():
            for change in operator(node, vocabulary):
                yield change, name, tree.macro or _function(node)


def _mends(node: Node) -> bool:
    """Whether a node with an error below it may still change as a whole."""
    return node.type in ("expression_statement", "if_statement", "initializer_pair")


def _function(node: Node) -> str:
    above: Node | None = node
    while above is not None and above.type != "function_definition":
        above = above.parent
    if above is None:
        return ""
    inner: Node | None = above.child_by_field_name("declarator")
    while inner is not None and inner.type != "identifier":
        inner = inner.child_by_field_name("declarator")
    return words(inner) if inner is not None else ""


def _for(node: Node, after: str) -> Change:
    return Change(node.start_byte, node.end_byte, after)


def _exchanged(name: str, pairs: dict[str, str]) -> Iterator[str]:
    """``name`` with a word of it exchanged for its opposite, in its case; first match only."""
    parts = re.split(r"([^A-Za-z0-9]+)", name)
    for index, part in enumerate(parts):
        other = pairs.get(part.lower())
        if other is not None:
            other = other.upper() if part.isupper() else other
            yield "".join([*parts[:index], other, *parts[index + 1 :]])


def _within(node: Node, kind: str) -> bool:
    above = node.parent
    while above is not None and above.type != kind:
        above = above.parent
    return above is not None


def _is(node: Node | None, other: Node) -> bool:
    return node is not None and node.id == other.id


def _is_value(node: Node) -> bool:
    """Whether ``node`` stands where its value is taken, and not where it is assigned to."""
    parent = node.parent
    if parent is None:
        return False
    match parent.type:
        case "argument_list" | "return_statement" | "initializer_list" | "binary_expression":
            return True
        case "assignment_expression":
            return _is(parent.child_by_field_name("right"), node)
        case "init_declarator" | "initializer_pair":
            return _is(parent.child_by_field_name("value"), node)
        case "conditional_expression":
            return not _is(parent.child_by_field_name("condition"), node)
        case "subscript_expression":
            return _is(parent.child_by_field_name("index"), node)
        case "array_declarator":
            return _is(parent.child_by_field_name("size"), node)
        case "parenthesized_expression":
            return _is_value(parent)
    return False


def _last_name(node: Node) -> str:
    match node.type:
        case "identifier":
            return words(node)
        case "field_expression":
            field = node.child_by_field_name("field")
            return words(field) if field is not None else ""
        case "subscript_expression":
            argument = node.child_by_field_name("argument")
            return _last_name(argument) if argument is not None else ""
    return ""


def _callee(node: Node | None) -> str:
    function = node.child_by_field_name("function") if node is not None else None
    return words(function) if function is not None else ""


def _byte_order(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A conversion is left out, or made where there is none."""
    del vocabulary
    if node.type == "call_expression" and _callee(node) in _SWAPS:
        arguments = node.child_by_field_name("arguments")
        assert arguments is not None, "a call has arguments"
        yield _for(node, words(arguments))
    if node.type in _NAMES and _is_value(node) and not _within_swap(node):
        name = _last_name(node)
        if _PORT.search(name):
            yield _for(node, f"bpf_htons({words(node)})")
        elif _WORD.search(name):
            yield _for(node, f"bpf_htonl({words(node)})")


def _within_swap(node: Node) -> bool:
    above = node.parent.parent if node.parent is not None else None
    return above is not None and _callee(above) in _SWAPS


def _off_by_one(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A length, priority, index or bound is one more or one less."""
    del vocabulary
    if not _is_value(node) or node.type == "number_literal":
        return
    parent = node.parent
    assert parent is not None, "a value is part of something"
    index = parent.type == "subscript_expression"
    bound = parent.type == "binary_expression" and _is_bound(parent, node)
    size = node.type == "sizeof_expression"
    counted = node.type in _NAMES and bool(_COUNTED.search(_last_name(node)))
    if index or bound or size or counted:
        yield _for(node, f"({words(node)} + 1)")
        yield _for(node, f"({words(node)} - 1)")


def _is_bound(comparison: Node, node: Node) -> bool:
    loop = comparison.parent
    return (
        loop is not None
        and loop.type == "for_statement"
        and _is(comparison.child_by_field_name("right"), node)
    )


def _gate(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """An early return, whole."""
    del vocabulary
    if node.type != "if_statement" or node.child_by_field_name("alternative") is not None:
        return
    if _jumps(node.child_by_field_name("consequence")):
        yield _for(node, ";")


def _jumps(node: Node | None) -> bool:
    if node is None:
        return False
    if node.type == "compound_statement":
        inside = [child for child in node.named_children if child.type != "comment"]
        return bool(inside) and inside[-1].type in _JUMPS
    return node.type in _JUMPS


def _condition(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A condition is the opposite, or always one thing."""
    del vocabulary
    if node.type not in ("if_statement", "conditional_expression", "while_statement"):
        return
    condition = node.child_by_field_name("condition")
    if condition is None or condition.has_error:
        return
    text = words(condition)
    bare = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    for after in (f"!({bare})", "1", "0"):
        if after == "0" and any(_gate(node, Vocabulary({}, {}, (), ()))):
            continue
        yield _for(condition, f"({after})")


def _clause(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """One side of an `and` or an `or` is left out."""
    del vocabulary
    if node.type == "binary_expression" and _sign(node) in _LOGIC:
        for side in ("left", "right"):
            kept = node.child_by_field_name(side)
            assert kept is not None, "a binary expression has two sides"
            yield _for(node, words(kept))


def _sign(node: Node) -> str:
    operator = node.child_by_field_name("operator")
    return words(operator) if operator is not None else ""


def _relation(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A comparison is another one."""
    del vocabulary
    if node.type == "binary_expression":
        operator = node.child_by_field_name("operator")
        assert operator is not None, "a binary expression has an operator"
        for after in _RELATIONS.get(words(operator), ()):
            yield _for(operator, after)


def _logic(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """`and` for `or`; a `not` is left out."""
    del vocabulary
    operator = node.child_by_field_name("operator")
    if operator is None:
        return
    if node.type == "binary_expression" and words(operator) in _LOGIC:
        yield _for(operator, _LOGIC[words(operator)])
    if node.type == "unary_expression" and words(operator) == "!":
        yield _for(operator, "")


def _arithmetic(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """An arithmetic operation is another one."""
    del vocabulary
    operator = node.child_by_field_name("operator")
    if node.type == "binary_expression" and operator is not None:
        after = _ARITHMETIC.get(words(operator))
        if after is not None:
            yield _for(operator, after)


def _names(node: Node, pairs: dict[str, str]) -> Iterator[Change]:
    used = node.type == "field_identifier" or (
        node.type == "identifier" and _within(node, "compound_statement")
    )
    parent = node.parent
    declared = parent is not None and (
        (parent.type.endswith("declarator") and not _is_value(node))
        or parent.type in ("field_declaration", "parameter_declaration", "declaration")
    )
    if used and not declared:
        for after in _exchanged(words(node), pairs):
            yield _for(node, after)


def _direction(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """One end of a connection for the other."""
    del vocabulary
    yield from _names(node, _DIRECTIONS)


def _counterpart(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """The other family, the other protocol, the other of two."""
    del vocabulary
    yield from _names(node, _COUNTERPARTS)


def _statement(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """An assignment, a call or a break is left out."""
    if node.type == "break_statement" and node.parent is not None:
        if node.parent.type == "case_statement":
            yield _for(node, ";")
        return
    if node.type != "expression_statement" or not node.named_children:
        return
    inner = node.named_children[0]
    if inner.type == "call_expression" and _callee(inner) in vocabulary.assertions:
        return
    if inner.type in ("assignment_expression", "call_expression", "update_expression") and (
        words(inner).split("=")[0] != "v"
    ):
        yield _for(node, ";")


def _initializer(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A field of a new value is left zero."""
    del vocabulary
    if node.type == "initializer_pair":
        follows = node.next_sibling
        comma = follows is not None and follows.type == ","
        end = follows.end_byte if comma and follows is not None else node.end_byte
        yield Change(node.start_byte, end, "")


def _constant(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A number is one more or one less, a name one more or, returned, nothing; true is false."""
    text = words(node)
    if node.type == "number_literal":
        match = _NUMBER.match(text)
        if match is None or _is_do_while_0(node):
            return
        value, suffix = int(match[1], 0), match[2]
        for after in sorted({value + 1, max(value - 1, 0)} - {value}):
            yield _for(node, f"{after}{suffix}")
    elif node.type in ("true", "false"):
        yield _for(node, "false" if node.type == "true" else "true")
    elif (
        node.type == "identifier"
        and _CONSTANT.match(text)
        and _is_value(node)
        and text not in vocabulary.siblings
        and text != "NULL"
    ):
        returned = node.parent is not None and node.parent.type == "return_statement"
        yield _for(node, "0" if returned else f"({text} + 1)")


def _is_do_while_0(node: Node) -> bool:
    above = node.parent.parent if node.parent is not None else None
    return above is not None and above.type == "do_statement"


def _enumerator(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """Another member of the same enum."""
    if node.type == "identifier" and _is_value(node):
        for sibling in vocabulary.siblings.get(words(node), ()):
            if sibling != words(node):
                yield _for(node, sibling)


def _map(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """Another map of the same type."""
    if node.type != "pointer_expression":
        return
    argument = node.child_by_field_name("argument")
    if argument is not None and words(argument) in vocabulary.maps:
        for other in vocabulary.same_kind(words(argument)):
            yield _for(argument, other)


def _policy(node: Node, vocabulary: Vocabulary) -> Iterator[Change]:
    """A switch takes one of its cases for another, or for none of them."""
    if node.type != "switch_statement":
        return
    condition, body = node.child_by_field_name("condition"), node.child_by_field_name("body")
    if condition is None or body is None:
        return
    found = [
        case.child_by_field_name("value")
        for case in body.named_children
        if case.type == "case_statement"
    ]
    labels = [words(label) for label in found if label is not None]
    for label in labels:
        taken = [other for other in labels if other != label]
        if any(label in vocabulary.siblings for label in labels):
            taken.append("-1")
        for other in taken:
            value = words(condition)
            yield _for(condition, f"({value} == {label} ? {other} : {value})")


OPERATORS: dict[str, Operator] = {
    "byte-order": _byte_order,
    "off-by-one": _off_by_one,
    "gate": _gate,
    "condition": _condition,
    "clause": _clause,
    "relation": _relation,
    "logic": _logic,
    "arithmetic": _arithmetic,
    "direction": _direction,
    "counterpart": _counterpart,
    "statement": _statement,
    "initializer": _initializer,
    "constant": _constant,
    "enumerator": _enumerator,
    "map": _map,
    "policy": _policy,
}
"""Every operator by name; its docstring says what it does."""

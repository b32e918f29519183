"""What went wrong, told once: failures that have the same cause are one.  Pure.

Two failures have the same cause when they are in the same place and say the same, once
addresses, times, the kernel's own release and the test's own parameters are masked.  Complaints
of kernels have the same cause when they have the same fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from vmtest.model.loads import LoadResult
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import one_line, printable
from vmtest.model.versions import unique
from vmtest.report import loads
from vmtest.report.assertions import said
from vmtest.report.table import (
    WELL,
    WRONG,
    Line,
    labels_of,
    mark_of,
    split_node_id,
    tone_of,
)
from vmtest.report.text import counted
from vmtest.report.tracebacks import own_place

# What a text holds that a pattern fits, of which one is enough: to look for it is quicker.
_MASKS = (
    (("0x",), re.compile(r"\b0x[0-9a-fA-F]+\b"), "0x…"),
    (("",), re.compile(r"\b[0-9a-f]{16}\b"), "0x…"),
    (("[",), re.compile(r"\[ *\d+\.\d{6}\]"), "[…]"),
    ((":",), re.compile(r"\b\d{1,2}:\d\d:\d\d(?:\.\d+)?\b"), "…"),
    (
        ("s", "min"),
        re.compile(r"\b\d+(?:\.\d+)?(?= ?(?:ns|us|µs|ms|s|sec|seconds?|min|minutes?)\b)"),
        "…",
    ),
    (("PID: ", "CPU: ", "pid "), re.compile(r"(?<=PID: )\d+|(?<=CPU: )\d+|(?<=pid )\d+"), "…"),
)
_LAST_PLACE = re.compile(r"^(\S[^:\n]*):(\d+): \w*\s*\Z", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cause:
    """What one or many results share.

    ``message`` is one line, ``place`` is ``FILE:LINE`` in the project, an object, or "".  That of a
    kernel as a whole is where the test is that ran then, if another kernel tells.
    ``origin`` is the line of the first test itself where ``place`` is that of a helper, else "".
    ``tests`` and ``loads`` are the results with their kernels, ``labels`` name them, each once;
    both are empty where a kernel as a whole went wrong.  ``kernels`` are those it holds on, in
    the matrix's order; ``everywhere`` says that these are all.  ``during`` are the tests that ran
    while a kernel complained so.
    """

    mark: Line
    message: str
    place: str
    kernels: tuple[KernelResult, ...]
    everywhere: bool
    labels: tuple[str, ...] = ()
    tests: tuple[tuple[KernelResult, TestResult], ...] = ()
    loads: tuple[tuple[KernelResult, LoadResult], ...] = ()
    during: tuple[tuple[KernelResult, TestResult], ...] = ()
    origin: str = ""

    @property
    def where(self) -> str:
        """``TEST.py:7``, or ``TEST.py:7 (raised in HELPER.py:3)``; "" where that is not known."""
        if not self.origin:
            return self.place
        file, _, line = self.place.rpartition(":")
        inside = f"at line {line}" if file == self.origin.rpartition(":")[0] else f"in {self.place}"
        return f"{self.origin} (raised {inside})"

    @property
    def named(self) -> str:
        """What a line calls it by: where it is, or its only test or program; "" for neither."""
        label = self.labels[0] if len(self.labels) == 1 else ""
        if self.during and self.where and label:
            return f"{label} ({self.where})"
        return self.where or label

    @property
    def decides(self) -> bool:
        """Whether a kernel did not pass where it holds; a refused load need not matter."""
        return any(kernel.status not in WELL for kernel in self.kernels)

    @property
    def count(self) -> int:
        """How many results it explains; a kernel without any counts once."""
        return len(self.tests) + len(self.loads) or len(self.kernels)


@dataclass(slots=True)
class _Group:
    """The results with one key, while they are gathered."""

    mark: Line
    message: str
    place: str
    kernels: dict[int, KernelResult] = field(default_factory=dict)  # by identity
    labels: dict[str, None] = field(default_factory=dict)
    tests: list[tuple[KernelResult, TestResult]] = field(default_factory=list)
    loads: list[tuple[KernelResult, LoadResult]] = field(default_factory=list)
    during: list[tuple[KernelResult, TestResult]] = field(default_factory=list)
    origin: str = ""


_Key = tuple[str, ...]


def causes(matrix: Matrix) -> tuple[Cause, ...]:
    """Every cause of ``matrix``: those of some kernels first, then those of all.

    What decides nothing (``decides``) comes last.  Within these, kernels as a whole come first,
    then tests, then loads, as they ran.
    """
    groups: dict[_Key, _Group] = {}
    labels = labels_of(matrix)
    for kernel in matrix.kernels:
        _of_the_kernel(groups, kernel, labels)
    for kernel in matrix.kernels:
        of = kernel, _own_words(kernel)
        for test in kernel.tests:
            if test.outcome in WRONG and not (test.outcome is Outcome.LOST and kernel.reason):
                _of_a_test(groups, of, test, labels[test.suite, test.test])
    for kernel in matrix.kernels:
        for load in kernel.loads:
            if load.verdict.bad and load.required:
                _of_a_load(groups, kernel, load)
    explained = {number for group in groups.values() for number in group.kernels}
    for kernel in matrix.kernels:
        if kernel.status is Status.FAILED and id(kernel) not in explained:
            _add_kernel(groups, kernel, kernel.reason)
    distinct = {id(group): group for group in groups.values()}  # a group may have several keys
    found = [_cause(group, len(matrix.kernels)) for group in distinct.values()]
    found = list(_with_places(found, matrix))
    return tuple(sorted(found, key=lambda cause: (not cause.decides, cause.everywhere)))


def counts(found: Iterable[Cause]) -> str:
    """``17 causes, 97 failing results in 33 tests on 4 kernels``.

    What is no result of a test or a load is counted by its kernel.
    """
    every = tuple(found)
    tests = {(test.suite, test.test) for cause in every for _, test in cause.tests}
    loaded = {(load.object, load.program) for cause in every for _, load in cause.loads}
    parts = [counted(len(every), "cause")]
    for name, what, results in (
        ("test", tests, [k for cause in every for k, _ in cause.tests]),
        ("program", loaded, [k for cause in every for k, _ in cause.loads]),
    ):
        if what:
            kernels = counted(len({id(kernel) for kernel in results}), "kernel")
            number = counted(len(results), "failing result")
            parts.append(f"{number} in {counted(len(what), name)} on {kernels}")
    whole = {
        id(k): cause.mark.text
        for cause in every
        if not (cause.tests or cause.loads)
        for k in cause.kernels
    }
    if whole:
        how = ", ".join(unique([*whole.values()]))
        parts.append(f"{counted(len(whole), 'kernel')} as a whole ({how})")
    return ", ".join(parts)


def mask(text: str, words: Iterable[str] = ()) -> str:
    """``text`` without what differs from run to run; ``words`` are masked as well."""
    there = [word for word in words if word and word in text]
    for word in sorted(there, key=len, reverse=True):
        text = _without(text, word)
    return _masked(text)


@lru_cache(maxsize=1 << 14)
def _masked(text: str) -> str:
    for parts, pattern, instead in _MASKS:
        if any(part in text for part in parts):
            text = pattern.sub(instead, text)
    return text


def _without(text: str, word: str) -> str:
    """``text`` with ``…`` for ``word``, where it stands for itself; no pattern for each word."""
    kept, begin, start = [], 0, 0
    while (at := text.find(word, start)) >= 0:
        end = at + len(word)
        if _goes_on(text[at - 1 : at]) or _goes_on(text[end : end + 1]):
            start = at + 1
            continue
        kept += [text[begin:at], "…"]
        begin = start = end
    return "".join((*kept, text[begin:]))


def _goes_on(character: str) -> bool:
    return character in ("_", ".") or character.isalnum()


def place_of(test: TestResult) -> str:
    """``FILE:LINE`` of a result, "" where that is not known."""
    if test.file:
        return f"{test.file}:{test.line}" if test.line else test.file
    found = _LAST_PLACE.search(test.details.rstrip())
    return f"{found[1]}:{found[2]}" if found else ""


def while_it_ran(cause: Cause) -> list[TestResult]:
    """The tests that ran when a kernel complained, or died."""
    if cause.tests or cause.loads:
        return []
    if cause.during:
        return [test for _, test in cause.during]
    died = (k for k in cause.kernels if k.status.value == cause.mark.text)
    return [test for k in died for test in k.tests if test.outcome is Outcome.LOST]


def _with_places(found: Iterable[Cause], matrix: Matrix) -> Iterable[Cause]:
    """``found``; where a kernel died in a test, its place is what another kernel told of that."""
    ran = [(cause, [(t.suite, t.test) for t in while_it_ran(cause)[:1]]) for cause in found]
    wanted = {key for _, keys in ran for key in keys}
    places: dict[tuple[str, str], str] = {}
    for kernel in matrix.kernels if wanted else ():
        for test in kernel.tests:
            key = (test.suite, test.test)
            if key in wanted and key not in places and (place := place_of(test)):
                places[key] = place
    for cause, keys in ran:
        place = next((places[key] for key in keys if key in places), "")
        yield replace(cause, place=printable(place)) if place else cause


def first_line(complaint: str) -> str:
    """What a complaint of the kernel is called."""
    return one_line(complaint.partition("\n")[0], 1000)


def _of_the_kernel(
    groups: dict[_Key, _Group], kernel: KernelResult, labels: Mapping[tuple[str, str], str]
) -> None:
    """What a kernel as a whole has to say: its complaints, and its reason."""
    mark = Line("SPLAT", tone_of(Status.SPLAT))
    ran: dict[str, list[TestResult]] = {}
    for test in kernel.tests if kernel.splats else ():
        ran.setdefault(test.test, []).append(test)
    for complaint in kernel.complaints:
        group = _Group(mark, first_line(complaint.text), "")
        group = _into(groups, ("kernel", mark.text, complaint.fingerprint), group, kernel)
        if complaint.test:
            of = ran.get(complaint.test, [])
            names = [labels[test.suite, test.test] for test in of]
            names = names or [one_line(complaint.test, 1000)]
            group.labels[names[-1]] = None
            group.during += [(kernel, test) for test in of]
    told = kernel.status is Status.SPLAT and kernel.splats
    if kernel.status not in (*WELL, Status.FAILED) and not told:
        _add_kernel(groups, kernel, kernel.reason or kernel.status.value)


def _add_kernel(groups: dict[_Key, _Group], kernel: KernelResult, message: str) -> None:
    mark = Line(kernel.status.value, tone_of(kernel.status))
    key = ("kernel", mark.text, mask(message, (kernel.kernel, *_own_words(kernel))))
    _into(groups, key, _Group(mark, one_line(message, 1000), ""), kernel)


@lru_cache(maxsize=1 << 14)
def _keys(
    test: str, suite: str, outcome: Outcome, where: str | None, message: str, own: tuple[str, ...]
) -> tuple[_Key, _Key]:
    """What a failed test has in common with others: as it is said, and without its parameters.

    ``where`` is None if only its file is known, ``own`` are the words of its kernel in ``message``.
    """
    file, classes, name = split_node_id(test)
    function, _, parameters = name.partition("[")
    if where is None:
        where = "::".join((file, *classes, function))
    same = ("test", suite, outcome, where or f"{file}::{function}")
    plain = (*same, mask(message, own))
    if not parameters:
        return plain, plain
    return plain, (*same, mask(message, (*own, *parameters.removesuffix("]").split("-"))))


def _of_a_test(
    groups: dict[_Key, _Group],
    of: tuple[KernelResult, tuple[str, ...]],
    test: TestResult,
    label: str,
) -> None:
    """Add a failed test ``of`` a kernel, which calls itself by these words."""
    kernel, own = of
    place, message = place_of(test), one_line(test.message or test.details, 1000)
    where = place if test.line or not test.file else None
    there = tuple([word for word in own if word and word in message])
    plain, masked = _keys(test.test, test.suite, test.outcome, where, message, there)
    # A parameter may stand in the message by chance: then what was said as it is decides.
    group = groups.get(plain) or groups.get(masked)
    if group is None:
        group = _Group(mark_of(test), said(test), place)
        origin = own_place(test)
        group.origin = "" if origin == place else origin
    groups[plain] = groups[masked] = _into(groups, plain, group, kernel)
    group.tests.append((kernel, test))
    group.labels[label] = None


def _of_a_load(groups: dict[_Key, _Group], kernel: KernelResult, load: LoadResult) -> None:
    lines = loads.why(load)
    message = one_line(lines[0] if lines else load.line or load.errno, 1000)
    code = load.reason.code if load.reason else ""
    same = ("load", load.object, load.verdict, code, mask(message, (load.program,)))
    group = _into(
        groups, same, _Group(loads.mark_of_verdict(load.verdict), message, load.object), kernel
    )
    group.loads.append((kernel, load))
    group.labels[printable(load.label)] = None


def _into(groups: dict[_Key, _Group], key: _Key, new: _Group, kernel: KernelResult) -> _Group:
    group = groups.setdefault(key, new)
    group.kernels[id(kernel)] = kernel
    return group


def _own_words(kernel: KernelResult) -> tuple[str, ...]:
    """What a kernel calls itself, whole and without its flavour: ``6.1.0-57-amd64``, ``6.1.0``."""
    names = (kernel.release, kernel.version)
    return unique((*names, *(re.split(r"[-+~]", name)[0] for name in names if name)))


def _cause(group: _Group, kernels: int) -> Cause:
    return Cause(
        group.mark,
        group.message,
        printable(group.place),
        tuple(group.kernels.values()),
        len(group.kernels) == kernels,
        tuple(group.labels),
        tuple(group.tests),
        tuple(group.loads),
        tuple(group.during),
        printable(group.origin),
    )

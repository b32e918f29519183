"""What went wrong, told once: failures that have the same cause are one.  Pure.

Two failures have the same cause when they are in the same place and say the same, once
addresses, times, the kernel's own release and the test's own parameters are masked.  Complaints
of kernels have the same cause when they have the same fingerprint.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from vmtest.model.loads import LoadResult, row_of
from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import one_line, printable
from vmtest.model.versions import unique
from vmtest.report import loads
from vmtest.report.table import (
    WELL,
    WRONG,
    Line,
    labels_of,
    mark_of,
    split_node_id,
    tone_of,
)

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
_WORD_OF_K = re.compile(r"[\w:+\-./\[\]]+")  # what pytest takes as a word of -k
_MOST_NAMES = 3  # of tests in a command
_LONG_NAMES = 60  # columns, from which on a function stands for its parameters


@dataclass(frozen=True, slots=True)
class Cause:
    """What one or many results share.

    ``message`` is one line, ``place`` is ``FILE:LINE`` in the project, an object, or "".
    ``tests`` and ``loads`` are the results with their kernels, ``labels`` name them, each once;
    both are empty where a kernel as a whole went wrong.  ``kernels`` are those it holds on, in
    the matrix's order; ``everywhere`` says that these are all.
    """

    mark: Line
    message: str
    place: str
    kernels: tuple[KernelResult, ...]
    everywhere: bool
    labels: tuple[str, ...] = ()
    tests: tuple[tuple[KernelResult, TestResult], ...] = ()
    loads: tuple[tuple[KernelResult, LoadResult], ...] = ()

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
        own = _own_words(kernel)
        for test in kernel.tests:
            if test.outcome in WRONG and not (test.outcome is Outcome.LOST and kernel.reason):
                _of_a_test(groups, (kernel, own), test, labels[test.suite, test.test])
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
    return tuple(sorted(found, key=lambda cause: (not cause.decides, cause.everywhere)))


def mask(text: str, words: Iterable[str] = ()) -> str:
    """``text`` without what differs from run to run; ``words`` are masked as well."""
    there = [word for word in words if word and word in text]
    for word in sorted(there, key=len, reverse=True):
        text = _without(text, word)
    return _masked(text)


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


@lru_cache(maxsize=1 << 14)
def _masked(text: str) -> str:
    for parts, pattern, instead in _MASKS:
        if any(part in text for part in parts):
            text = pattern.sub(instead, text)
    return text


def place_of(test: TestResult) -> str:
    """``FILE:LINE`` of a result, "" where that is not known."""
    if test.file:
        return f"{test.file}:{test.line}" if test.line else test.file
    found = _LAST_PLACE.search(test.details.rstrip())
    return f"{found[1]}:{found[2]}" if found else ""


def command_of(cause: Cause, matrix: Matrix) -> str:
    """The command that runs it again, on the first of its kernels; "" for that of ``exec``.

    It can be pasted into a shell, whatever a guest calls its tests.
    """
    if matrix.command:
        return ""
    kernel = cause.kernels[0]
    if cause.loads or (not cause.tests and any(k.loads for k in matrix.kernels)):
        return _verify_again(cause, matrix)
    words = ["vmtest", "run", *_option("--kernel", kernel.kernel)]
    tests = [test for _, test in cause.tests] or _during(cause, kernel) or _lost(kernel)
    suites = unique(test.suite for test in tests)
    for suite in suites:
        words += _option("--suite", suite)
    if names := _names(tests):
        words += ["-k", " or ".join(names)]
    return shlex.join(words)


def _verify_again(cause: Cause, matrix: Matrix) -> str:
    words = ["vmtest", "verify"]
    # Without any object, a verify loads those of kernels.toml: only files have to be named.
    files = [load for k in matrix.kernels for load in k.loads if _is_file(load.object)]
    of = [load for _, load in cause.loads] or files
    owners = unique(load.object.removesuffix(row_of("", load.libbpf)) for load in of)
    words += [name for name in owners if _plain(name)]
    words += _option("--kernel", cause.kernels[0].kernel)
    programs = unique(load.program for _, load in cause.loads)
    if "" not in programs and len(programs) <= _MOST_NAMES:
        for program in programs:
            words += _option("--program", program)
    return shlex.join(words)


def _is_file(name: str) -> bool:
    """Whether an object was given as a file, and is not an ``[[object]]``."""
    return "/" in name or name.endswith(".o")


def _names(tests: Sequence[TestResult]) -> list[str]:
    """The words of ``-k`` that choose ``tests``; none where they cannot be told in a few."""
    whole = unique(split_node_id(test.test)[2] for test in tests)
    functions = unique(name.partition("[")[0] for name in whole)
    long = len(functions) < len(whole) and len(" or ".join(whole)) > _LONG_NAMES
    for names in (functions, whole) if long else (whole, functions):
        if len(names) <= _MOST_NAMES and all(map(_WORD_OF_K.fullmatch, names)):
            return list(names)
    return []


def _during(cause: Cause, kernel: KernelResult) -> list[TestResult]:
    """The tests that ran while ``kernel`` complained so."""
    of = {c.test for c in kernel.complaints if _first_line(c.text) == cause.message}
    return [test for test in kernel.tests if test.test in of]


def _first_line(text: str) -> str:
    return one_line(text.partition("\n")[0], 1000)


def _lost(kernel: KernelResult) -> list[TestResult]:
    return [test for test in kernel.tests if test.outcome is Outcome.LOST]


def _option(name: str, value: str) -> list[str]:
    return [name, value] if _plain(value) else []


def _plain(word: str) -> bool:
    """Whether ``word`` is what it looks like, and no option."""
    return bool(word) and printable(word) == word and "\n" not in word and word[0] != "-"


def _of_the_kernel(
    groups: dict[_Key, _Group], kernel: KernelResult, labels: Mapping[tuple[str, str], str]
) -> None:
    """What a kernel as a whole has to say: its complaints, and its reason."""
    mark = Line("SPLAT", tone_of(Status.SPLAT))
    names = {test.test: labels[test.suite, test.test] for test in kernel.tests}
    for complaint in kernel.complaints:
        group = _Group(mark, _first_line(complaint.text), "")
        group = _into(groups, ("kernel", mark.text, complaint.fingerprint), group, kernel)
        if complaint.test:
            group.labels[names.get(complaint.test) or printable(complaint.test)] = None
    told = kernel.status is Status.SPLAT and kernel.splats
    if kernel.status not in (*WELL, Status.FAILED) and not told:
        _add_kernel(groups, kernel, kernel.reason or kernel.status.value)


def _add_kernel(groups: dict[_Key, _Group], kernel: KernelResult, message: str) -> None:
    mark = Line(kernel.status.value, tone_of(kernel.status))
    key = ("kernel", mark.text, mask(message, (kernel.kernel, *_own_words(kernel))))
    _into(groups, key, _Group(mark, one_line(message, 1000), ""), kernel)


def _of_a_test(
    groups: dict[_Key, _Group],
    of: tuple[KernelResult, tuple[str, ...]],
    test: TestResult,
    label: str,
) -> None:
    """Add a failed test ``of`` a kernel, which calls itself by these words."""
    kernel, own = of
    place, message = place_of(test), one_line(test.message or test.details, 1000)
    file, classes, name = split_node_id(test.test)
    function, _, parameters = name.partition("[")
    given = (*own, *parameters.removesuffix("]").split("-"))
    where = place if test.line or not test.file else "::".join((file, *classes, function))
    same = ("test", test.suite, test.outcome, where or f"{file}::{function}")
    # A parameter may stand in the message by chance: then what was said as it is decides.
    said, masked = (*same, mask(message, own)), (*same, mask(message, given))
    group = groups.get(said) or groups.get(masked) or _Group(mark_of(test), message, place)
    groups[said] = groups[masked] = _into(groups, said, group, kernel)
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
    )

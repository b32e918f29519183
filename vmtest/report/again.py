"""The command that runs a cause again, with all that decided what ran and how it was judged.  Pure.

It can be pasted into a shell, whatever a guest calls its tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from vmtest.model.loads import row_of
from vmtest.model.results import KernelResult, Matrix, Outcome, TestResult
from vmtest.model.secrets import HIDDEN, words_without_secrets
from vmtest.model.text import printable
from vmtest.model.versions import unique
from vmtest.report.causes import Cause
from vmtest.report.table import split_node_id

_WORD_OF_K = re.compile(r"[\w:+\-./\[\]]+")  # what pytest takes as a word of -k
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_KNOWN = (("run",), ("verify",), ("exec",))
ABBREVIATED = 12
"""Characters of a commit that is shown."""
MOST_KERNELS = 12
"""Kernels that a command names: one of a hundred could not be read."""
_MOST_NAMES = 3  # of tests in a command
_LONG_NAMES = 60  # columns, from which on a function stands for its parameters
_OF_TESTS = ("-k", "--suite", "--last-failed", "--failed-first")


def git_log(old: str, new: str) -> str:
    """The command that lists the commits from ``old`` to ``new``; "" where it would list none."""
    known = all(map(_COMMIT.fullmatch, (old, new))) and old != new
    return f"git log --oneline {old[:ABBREVIATED]}..{new[:ABBREVIATED]}" if known else ""


def command_of(cause: Cause, matrix: Matrix) -> str:
    """The command that runs it again on its kernels; "" where none is known.

    It has all tests of the cause, whichever of the kernels each failed on, and at most the first
    ``MOST_KERNELS`` kernels (``aside`` says so).

    A command of ``exec`` cannot be told without its command line (``Matrix.again``), nor can what
    shards with several commands ran.  What anybody may have written into a matrix.json is told only
    if it is a command line of vmtest's that a terminal shows as it is.
    """
    if not _is_told(matrix):
        return ""
    if matrix.command:
        words = _exec(cause.kernels, matrix)
    else:
        words = _verify(cause, matrix) if _is_verify(cause, matrix) else _run(cause, matrix)
    return _joined(words)


def command_of_run(matrix: Matrix) -> str:
    """The command that does all of ``matrix`` again; "" where none is known, or it is too long.

    It has no reports and no secrets.
    """
    few = 0 < len(matrix.kernels) <= MOST_KERNELS
    if not (few and matrix.again and _is_told(matrix)):
        return ""
    if matrix.command:
        return _joined(_exec(matrix.kernels, matrix))
    kept = _kept(matrix, ("--",))
    return _joined([*_begun(matrix.kernels, matrix, ""), *kept, *_passed_on(matrix)])


def _is_told(matrix: Matrix) -> bool:
    """Whether ``again`` is a command line of vmtest's, or is missing where it need not be."""
    again = matrix.again
    known = bool(again) and again[0] in _KNOWN and all(again)
    return (known or not again) and bool(matrix.command) == (again[:1] == (("exec",),))


def _exec(kernels: Sequence[KernelResult], matrix: Matrix) -> list[str]:
    words = [*_begun(kernels, matrix, "exec"), *_kept(matrix), "--"]
    return words + words_without_secrets(matrix.command)


def _joined(words: Sequence[str]) -> str:
    return shlex.join(words) if all(printable(word) == word for word in words) else ""


def aside(cause: Cause, command: str) -> str:
    """What a reader of ``command``, that of ``cause``, has to know; "" for nothing."""
    most, every = MOST_KERNELS, len(cause.kernels)
    some = f"(on {most} of its {every} kernels)" if every > most else ""
    return " ".join(filter(None, (some, fill_in(command))))


def fill_in(command: str) -> str:
    """What there is to do before ``command`` can run; "" for nothing."""
    return f"(fill in `{HIDDEN}`)" if HIDDEN in command else ""


def _is_verify(cause: Cause, matrix: Matrix) -> bool:
    if matrix.again:
        return matrix.again[0] == ("verify",)
    return bool(cause.loads or (not cause.tests and any(k.loads for k in matrix.kernels)))


def _begun(of: Sequence[KernelResult], matrix: Matrix, command: str) -> list[str]:
    named = matrix.again[0] if matrix.again else (command,)
    kernels = unique(kernel.kernel for kernel in of[:MOST_KERNELS])
    return ["vmtest", *named, *(word for one in kernels for word in _option("--kernel", one))]


def _kept(matrix: Matrix, instead: Sequence[str] = ()) -> list[str]:
    """The words that were given, but for those of ``instead``, which is told in another way.

    An argument, which has no name, is an ``OBJECT`` there.
    """
    return [
        word
        for group in matrix.again[1:]
        if (group[0] if group[0].startswith("-") else "OBJECT") not in instead
        for word in group
    ]


def _run(cause: Cause, matrix: Matrix) -> list[str]:
    tests = [test for _, test in cause.tests or cause.during] or _lost(cause.kernels)
    names = _names(tests)
    told = [word for suite in unique(t.suite for t in tests) for word in _option("--suite", suite)]
    told += ["-k", " or ".join(names)] if names else []
    instead = _OF_TESTS if names else ("--suite",) if told else ()
    kept = _kept(matrix, (*instead, "--"))
    return [*_begun(cause.kernels, matrix, "run"), *kept, *told, *_passed_on(matrix)]


def _passed_on(matrix: Matrix) -> list[str]:
    """``--`` and what is behind it: it comes last."""
    return [word for group in matrix.again[1:] if group[0] == "--" for word in group]


def _verify(cause: Cause, matrix: Matrix) -> list[str]:
    of = [load for _, load in cause.loads]
    if not (of or matrix.again):
        # Without any object, a verify loads those of kernels.toml: only files have to be named.
        of = [load for k in matrix.kernels for load in k.loads if _is_file(load.object)]
    owners = unique(load.object.removesuffix(row_of("", load.by)) for load in of)
    objects = [name for name in map(as_argument, owners) if _plain(name)]
    begun = _begun(cause.kernels, matrix, "verify")
    programs = unique(load.program for _, load in cause.loads)
    told = []
    if "" not in programs and len(programs) <= _MOST_NAMES:
        told = [word for program in programs for word in _option("--program", program)]
    instead = [*(["OBJECT"] if objects else []), *(["--program"] if told else [])]
    return [*begun[:2], *objects, *begun[2:], *_kept(matrix, instead), *told]


def as_argument(name: str) -> str:
    """``name`` where it is an argument, and no option."""
    return f"./{name}" if name.startswith("-") else name


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


def _lost(kernels: Sequence[KernelResult]) -> list[TestResult]:
    return [test for k in kernels for test in k.tests if test.outcome is Outcome.LOST]


def _option(name: str, value: str) -> list[str]:
    return [name, value] if _plain(value) else []


def _plain(word: str) -> bool:
    """Whether ``word`` is what it looks like, and no option."""
    return bool(word) and printable(word) == word and "\n" not in word and word[0] != "-"

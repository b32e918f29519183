"""How a kernel failed: what two failures must share to be the same.  Pure.

A way is a line that people can read: the test with its assertion, the exit status, the reason
code of the verifier with what it refused, or the fingerprint of a complaint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vmtest.model.loads import LoadResult, Reason
from vmtest.model.loads import Verdict as Load
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.model.text import one_line
from vmtest.report.causes import mask, place_of

_FAILED = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED)
_MOST_SHOWN = 3
_LONGEST = 200

# In order.  A number behind a letter belongs to a name (ipv4, u32).
_MASKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\w.])~?/(?:[\w.+@-]+/)*[\w.+@-]+",
        r"\b0[xXob][0-9a-fA-F]+|\b(?=[a-f]*\d)[0-9a-f]{8,}\b",
        r"(?:\\x[0-9a-fA-F]{2})+",
        r"(?<![\w.])v\d+(?:\.\d+)+\b",
    )
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:[.:_]\d+)*(?:e[-+]?\d+)?")
_ERRNO = re.compile(r"-(?:[1-9]\d?|1[0-2]\d|13[0-3])")
_PANIC = re.compile(r'Kernel panic - not syncing: ([^"]*)')
# What ends a kernel after a complaint of its own, whose fingerprint says more.
_AFTER_A_COMPLAINT = re.compile(r"Fatal exception|panic_on_|(?:soft|hard) ?lockup|hung_task", re.I)


@dataclass(frozen=True, slots=True)
class Ways:
    """How a kernel failed: what decided (``way``), and the complaints ``beside`` it."""

    way: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def kind(text: str, *words: str, errnos: bool = True) -> str:
    """``text`` on one line without numbers, addresses, paths, and the ``words`` of this kernel.

    With ``errnos`` a number that may be one (-22; Linux has 133) stays: it says which error it was.
    """
    text = mask(text, words).replace("0x…", "…")
    for pattern in _MASKS:
        text = pattern.sub("…", text)

    def number(found: re.Match[str]) -> str:
        return found[0] if errnos and _ERRNO.fullmatch(found[0]) else "…"

    return one_line(_NUMBER.sub(number, text), _LONGEST)


def of_tests(result: KernelResult, ended: str = "") -> Ways:
    """How the tests of ``result`` failed, or the kernel under them.

    ``ended`` is how a command ended (``exit status 3``), which is all that counts of its last line.
    """
    own = (result.release, result.version)
    beside = tuple(complaint.fingerprint for complaint in result.complaints)
    way = [_of_test(test, own, ended) for test in result.tests if test.outcome in _FAILED]
    if result.status is Status.PANICKED:
        way.append(_of_panic(result.reason, beside, own))
    else:
        end = Outcome.LOST if result.status is Status.FAILED else result.status
        way += [f"{test.test}: {end}" for test in result.tests if test.outcome is Outcome.LOST]
    if result.status is Status.SPLAT:
        way += beside
    if not way:
        way.append(ended or f"{result.status}: {kind(result.reason, *own)}")
    return Ways(tuple(dict.fromkeys(way)), beside)


def of_load(result: KernelResult, load: LoadResult) -> Ways:
    """How ``load`` failed: by which reason code, and what was refused."""
    own = (result.release, result.version)
    beside = tuple(complaint.fingerprint for complaint in result.complaints)
    if load.verdict is Load.KERNEL_CRASHED:
        way = _of_panic(f"{load.line} {result.reason}", beside, own)
    elif load.reason is not None and load.reason.code != UNKNOWN:
        about = name_of(load.reason)
        way = f"{load.label}: {load.reason.code}{f' {about}' if about else ''}"
    else:
        way = f"{load.label}: {load.verdict}: {kind(load.line or load.errno, *own, errnos=False)}"
    return Ways((way,), beside)


UNKNOWN = "unknown"
"""The code of a refusal without evidence for any reason (docs/reference/reason-codes.md)."""


def name_of(reason: Reason) -> str:
    """What ``reason`` is about, without an offset and what a compiler appends (``.isra.0``)."""
    return reason.name.partition("+")[0].partition(".")[0]


def told(way: Sequence[str]) -> str:
    """Several ways in one line."""
    more = len(way) - _MOST_SHOWN
    shown = "; or ".join(way[:_MOST_SHOWN])
    return f"{shown}; or {more} more" if more > 0 else shown


def _of_test(test: TestResult, own: tuple[str, ...], ended: str) -> str:
    if ended and test.message.startswith(ended):
        return ended
    place = place_of(test)
    said = f": {kind(test.message, *own)}" if test.message else ""
    return f"{test.test}{f' at {place}' if place else ''}: {test.outcome}{said}"


def _of_panic(reason: str, complaints: Sequence[str], own: tuple[str, ...]) -> str:
    """The last complaint, which the kernel died of, or the panic's own text."""
    found = _PANIC.search(reason)
    if complaints and (found is None or _AFTER_A_COMPLAINT.search(found[1])):
        return complaints[-1]
    return f"panic: {kind(found[1] if found else reason, *own)}"

"""One test point of TAP or KTAP: what its line says, and what stands around it (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmtest.command.formats.rows import seconds
from vmtest.model.results import Outcome
from vmtest.model.text import last_line

_LONGEST_WHY = 300
_LONGEST_TEXT = 4000
_MOST_LINES = 10_000
_HASH = re.compile(r"(?:^|(?<=[\s\0]))#\s*")
_DIRECTIVE = re.compile(r"^(SKIP|TODO)\S*(?:\s+(.*))?$", re.IGNORECASE)
_KERNEL_DIRECTIVE = re.compile(r"^(XFAIL|ERROR|TIMEOUT)\b[:\s]*(.*)$", re.IGNORECASE)
# Not the same on every kernel: kselftest's "# exit=1".
_ASIDE = re.compile(r"^\w+=.*$")
_TIME = re.compile(r"^time=(\d{1,9}(?:\.\d+)?)(ms|s)\s*(?:#\s*(.*))?$")
_TIME_BEHIND = re.compile(r"\s*#\s*time=(\d{1,9}(?:\.\d+)?)(ms|s)$")
_TIMED = re.compile(
    r"^(.*\S)\s+(?:in (\d{1,9}(?:\.\d+)?)\s?(ms|s|sec)"
    r"|[(\[](\d{1,9}(?:\.\d+)?)\s?(ms|s|secs?|seconds?)[)\]])$"
)
_BRACE = re.compile(r"(?:^|\s)\{$")
_GLIB_FAILED = re.compile(r"^(/.*?) - (.+)$")
# What programs that kselftest's runner quotes print of a failure.
_QUOTED_FAILURE = re.compile(r"not ok\b|Bail out!|FAIL(?:ED|URE)?\b[^=]*$|.*\[ *FAIL(?:ED)? *\]")
_KEY = re.compile(r"^(\s*)(\w+):(?:\s+(.*))?$")
_BLOCK = re.compile(r"^[|>][-+\d]*$")
_SKIPPED_BECAUSE = re.compile(r"^\W*SKIP(?:PED)?\b[:\s]*(.*)$", re.IGNORECASE)
# Of kselftest's runner, its harness and KUnit: the frame of a test, not why it failed.
_FRAME = re.compile(
    r"^(?:selftests: |(?:timeout set|overriding timeout) to \d|K?TAP version \d|\d+\.\.\d+$|ok\b"
    r"|(?:RUN|OK|FAIL|SKIP|XFAIL)\s+\S+|(?:Starting|PASSED|FAILED): \d|Starting \d+ tests? from"
    r"|(?:\S+: )?(?:Totals: )?pass:\d+ fail:|module: \S+$|Subtest: )"
)


@dataclass(slots=True)
class Row:
    """A test below the document that it stands in."""

    name: str
    outcome: Outcome
    message: str = ""
    details: str = ""
    duration: float = 0.0


@dataclass(slots=True)
class Point:
    """A test point; what belongs to it may still come (YAML, diagnostics, subtests in braces).

    ``text`` is all behind its number, ``column`` where it begins, ``timed`` its
    name without a time at its end, ``brace`` says that an open brace ends it.
    ``before`` are the lines that stood in front of it, ``leads`` that those
    explain it (KTAP), ``lines`` those behind it.  ``glib`` says that GLib wrote
    it, which puts the reason of a failure behind the name.
    """

    text: str
    ok: bool
    number: int
    column: int
    ktap: bool = False
    leads: bool = False
    glib: bool = False
    name: str = ""
    directive: str = ""
    reason: str = ""
    duration: float = 0.0
    timed: str = ""
    brace: bool = False
    explained: bool = False
    message: str = ""
    before: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    children: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text = text = self.text.strip()[:_LONGEST_TEXT]
        self.brace = bool(_BRACE.search(text))
        self._describe(text[:-1] if self.brace else text)

    def _describe(self, text: str) -> None:
        """Set name, directive, reason and duration from ``text``."""
        text = re.sub(r"^-\s*", "", _masked(text.strip()))
        mark = _HASH.search(text)
        name = text if mark is None else text[: mark.start()]
        if mark is not None and not self._remark(text[mark.end() :]):
            if self.ktap:  # a description has no hash: what follows it is diagnostic data
                self.reason = _restored(text[mark.end() :]).strip()
            else:
                name = text
        numbered = f"test {self.number}" if self.number else ""
        if self.directive and _BRACE.search(name := name.rstrip()):
            self.brace, name = True, name[:-1]  # Test2 writes the brace before the directive
        if self.glib and not self.ok and (failed := _GLIB_FAILED.match(name)):
            name, self.reason = failed[1], self.reason or _restored(failed[2]).strip()
        self.name = _restored(name).strip() or numbered
        if match := _TIMED.match(self.name):
            self.timed = match[1]

    def _remark(self, rest: str) -> bool:
        """Take what follows the hash; False when that is part of the description."""
        if time := _TIME.match(rest):
            self.duration = _in_seconds(time[1], time[2])
            return not time[3] or self._remark(time[3])
        if time := _TIME_BEHIND.search(rest):
            self.duration = _in_seconds(time[1], time[2])
            rest = rest[: time.start()]
        if directive := _DIRECTIVE.match(rest):
            self.directive = directive[1].upper()
            self.reason = _restored(directive[2] or "").strip().removeprefix("-").strip()
            return True
        kernel = _KERNEL_DIRECTIVE.match(rest)
        # In lower case only behind a failure: "ok 1 - x # error handling" is a description.
        if kernel and (kernel[1].isupper() or not self.ok):
            self.directive = kernel[1].upper()
            self.reason = _restored(kernel[2]).strip()
            return True
        if _ASIDE.match(rest):
            self.reason = _restored(rest)
            return True
        return False

    def keep_brace(self) -> None:
        """No subtests followed: a brace that ends the description is part of it."""
        if self.brace and not _HASH.search(_masked(self.text)):
            self._describe(self.text)
        self.brace = False

    def take_time(self) -> None:
        """The time at the end of the name is one, and no part of the name."""
        if match := _TIMED.match(self.name):
            self.name = match[1]
            self.duration = _in_seconds(match[2] or match[4], match[3] or match[5])

    def say(self, line: str) -> None:
        """Add a line behind the point."""
        if len(self.lines) < _MOST_LINES:
            self.lines.append(line)

    def take_yaml(self, lines: Sequence[str]) -> None:
        """Add a YAML block, without its marks."""
        for line in lines:
            self.say(line)
        facts = _facts(lines)
        self.explained = True
        self.duration = seconds(facts.get("duration_ms", 0)) / 1000 or self.duration
        self.message = facts.get("message") or facts.get("error") or ""
        if not self.message and "expected" in facts and "actual" in facts:
            self.message = f"expected {facts['expected']}, actual {facts['actual']}"
        self.message = self.message or facts.get("diff", "")

    def names(self, line: str) -> bool:
        """Whether ``line`` is a diagnostic that begins with the test's name."""
        text = line.lstrip().removeprefix("#").lstrip()
        return bool(self.name) and text != line and text.startswith(f"{self.name}:")

    def lead(self, lines: Sequence[str]) -> None:
        """Add lines that stood in front; they explain it where one has its name."""
        self.before.extend(lines)
        self.leads = self.leads or any(map(self.names, lines))

    def adopt(self, rows: list[Row]) -> None:
        """Take the tests of its subtests; a failure that is expected here was expected there."""
        if self.directive == "XFAIL" or (self.directive == "TODO" and not self.ok):
            for row in rows:
                if row.outcome is Outcome.FAILED:
                    row.outcome = Outcome.XFAILED
        self.children += below(self.name, rows)

    def row(self) -> Row:
        """The test."""
        text = "\n".join([*self.before, *self.lines])
        if self.directive == "SKIP":
            reason = self.reason or (self._skipped_because() if self.leads else "")
            return Row(self.name, Outcome.SKIPPED, reason, "", self.duration)
        if self.directive == "XFAIL":
            reason = self.reason or ("" if self.ok else self._why())
            return Row(self.name, Outcome.XFAILED, reason, text, self.duration)
        if self.directive == "ERROR":
            return Row(self.name, Outcome.ERROR, self._because(), text, self.duration)
        if self.ok and self.directive != "TIMEOUT":
            # A TODO that passes is not a failure; the specification leaves it to the reader.
            todo = "passed, though TODO" if self.directive else ""
            message = ": ".join(part for part in (todo, self.reason) if part)
            return Row(self.name, Outcome.PASSED, message, "", self.duration)
        if self.directive == "TODO":
            return Row(self.name, Outcome.XFAILED, self.reason or self._why(), text, self.duration)
        return Row(self.name, Outcome.FAILED, self._because() or "not ok", text, self.duration)

    def _because(self) -> str:
        """The reason that its line gives, with the failures that kselftest's runner quotes."""
        if self.directive == "TIMEOUT":
            return f"TIMEOUT {self.reason}".strip()
        if not self.reason.startswith("exit="):
            return self.reason or self._why()
        quoted = [line.strip(" #") for line in self.before]
        failed = " ".join(line for line in quoted if _QUOTED_FAILURE.match(line))
        return ": ".join(part for part in (self.reason, failed[:_LONGEST_WHY]) if part)

    def _why(self) -> str:
        """The YAML block's message, else the diagnostics, else the last output."""
        if self.message:
            return self.message
        own = [line for line in self.lines if line.lstrip().startswith("#")]
        if not (own or self.explained):
            own = self.lines[:1]
        if said := " ".join(filter(None, map(self._told, own))):
            return said[:_LONGEST_WHY]
        if self.leads:
            said = " ".join(filter(None, map(self._told, self._leading())))
        else:
            said = self._told(last_line("\n".join(self.before)))
        if not said and any(row.outcome.bad for row in self.children):
            return "a test below it failed"
        return said[:_LONGEST_WHY]

    def _leading(self) -> list[str]:
        """The lines in front that explain a failure: diagnostics, and what KUnit adds to them."""
        lines, open_ = [], False
        for line in self.before:
            diagnostic = line.lstrip().startswith("#")
            if diagnostic:
                open_ = " FAILED at " in line
            if diagnostic or open_:
                lines.append(line)
        return lines

    def _told(self, line: str) -> str:
        """What a line says, without its hash and the test's own name; "" for a frame."""
        text = " ".join(line.strip(" \t#").split())
        if self.leads and _FRAME.match(text):
            return ""
        return text.removeprefix(f"{self.name}: ")

    def _skipped_because(self) -> str:
        for line in reversed(self.before):
            if match := _SKIPPED_BECAUSE.match(self._told(line)):
                return match[1]
        return ""


def below(name: str, rows: list[Row]) -> list[Row]:
    """``rows`` as tests below ``name``."""
    for row in rows:
        row.name = f"{name}/{row.name}"
    return rows


def unescaped(text: str) -> str:
    r"""``text`` with ``\#`` and ``\\`` as what they stand for."""
    return _restored(_masked(text)).strip()


def _masked(text: str) -> str:
    return text.replace("\0", "").replace("\1", "").replace("\\\\", "\0").replace("\\#", "\1")


def _restored(text: str) -> str:
    return text.replace("\1", "#").replace("\0", "\\")


def _in_seconds(number: str, unit: str) -> float:
    return seconds(number) / (1000 if unit == "ms" else 1)


def _facts(lines: Sequence[str]) -> dict[str, str]:
    """The plain values of a YAML block by key; one that stands further out comes first."""
    found: dict[str, tuple[int, str]] = {}
    for n, line in enumerate(lines):
        if not (match := _KEY.match(line)):
            continue
        depth, key, value = len(match[1]), match[2], (match[3] or "").strip()
        if _BLOCK.match(value):
            value = _block(lines[n + 1 :], depth)
        value = value.strip("'\"")
        if value and (key not in found or depth < found[key][0]):
            found[key] = depth, value
    return {key: value[:_LONGEST_WHY] for key, (_, value) in found.items()}


def _block(lines: Sequence[str], depth: int) -> str:
    """A block of text: the lines that stand deeper than ``depth``."""
    text: list[str] = []
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= depth:
            break
        text.append(line.strip())
        if len(text) > _LONGEST_WHY:
            break
    return " ".join(filter(None, text))

"""What Perl's ``prove`` prints, as the TAP that it read: a subtest for each file (pure).

``prove -v`` shows the TAP of its files, each below a line with the file's name and above a line
with its verdict; without ``-v`` there is nothing but these.  docs/reference/formats.md has the
rules.
"""

from __future__ import annotations

import re

_HEAD = re.compile(
    r"^(?:\[\d\d:\d\d:\d\d\] )?(?P<name>\S*[./]\S*) \.{2,}(?: (?P<rest>.*))?$"  # --timer
)
_OK = re.compile(r"^ok(?:\s+\d+ ms\b.*)?$")
_FAILED = re.compile(
    r"^(?:Dubious, test returned \d|Failed \d+/\d+ (?:sub)?tests|No subtests run"
    r"|All \d+ subtests passed)"
)
_SKIPPED = re.compile(r"^skipped(?:: (.*))?$")
_BAILED = re.compile(r"^Bailout called\.\s+Further testing stopped:\s*(.*)$")
_SUMMARY = re.compile(r"^Files=(\d{1,9}), Tests=\d")
_PLAN = re.compile(r"^(\d{1,9})\.\.(\d{1,9})(?:\s|$)")
_POINT = re.compile(r"^(?:not )?ok(?:\s|$)")


class Prove:
    """Translates line by line; what is not prove's stays as it is.

    A file's name is looked for where no TAP came before, and behind the
    verdict of another file: elsewhere a test may have printed it.
    """

    def __init__(self) -> None:
        self._name = ""  # the file whose lines come; it stays for the lines behind its verdict
        self._passed: bool | None = None  # that verdict
        self._planned: int | None = None
        self._points = 0
        self._bailed: str | None = None
        self._summing = False

    def lines(self, line: str, begun: bool) -> list[str]:
        """The lines of TAP that ``line`` stands for; ``begun`` says that TAP came before."""
        if stopped := _BAILED.match(line):
            self._bailed = stopped[1] or "no reason given"
            return []
        if self._passed is not None or not (self._name or begun):
            head = _HEAD.match(line)
            if head and _is_head(rest := (head["rest"] or "").strip()):
                return self._begin(head["name"], rest)
        if not self._name:
            return [line]
        if files := _SUMMARY.match(line):
            return self._end(files[1])
        if self._passed is None:
            return self._inside(line)
        self._summing = self._summing or line == "Test Summary Report"
        if self._summing and not _POINT.match(line):
            return []
        if not _FAILED.match(line):
            return [line]
        return self._fail(line) if self._passed else [f"# {line}"]

    def _begin(self, name: str, rest: str) -> list[str]:
        self._name, self._passed, self._planned, self._points = name, None, None, 0
        self._summing = False
        return [f"# Subtest: {_escaped(name)}", *(self._verdict(rest) if rest else ())]

    def _inside(self, line: str) -> list[str]:
        """A line of the file that runs, or its verdict."""
        complete = self._planned is not None and self._points >= self._planned
        verdict = complete if _OK.match(line) else not self._points and _SKIPPED.match(line)
        if verdict or _FAILED.match(line):
            return self._verdict(line)
        if plan := _PLAN.match(line):
            self._planned = max(0, int(plan[2]) - int(plan[1]) + 1)
        elif _POINT.match(line):
            self._points += 1
        return [f"    {line}" if line else line]

    def _verdict(self, line: str) -> list[str]:
        """The test point of the file."""
        if _FAILED.match(line):
            return self._fail(line)
        self._passed = True
        skipped = _SKIPPED.match(line)
        reason = f" # SKIP {_escaped(skipped[1] or '')}" if skipped else ""
        return [f"ok - {_escaped(self._name)}{reason}"]

    def _fail(self, line: str) -> list[str]:
        self._passed = False
        # Its last line may praise a file whose plan or end was wrong.
        why = f"prove failed the file: {line}" if line.startswith("All ") else line
        return [f"not ok - {_escaped(self._name)}", f"# {why}"]

    def _end(self, files: str) -> list[str]:
        """The last line but one: how many files there were."""
        self._name, self._passed, self._summing = "", None, False
        return [f"1..{files}" if self._bailed is None else f"Bail out! {self._bailed}"]


def _is_head(rest: str) -> bool:
    """Whether prove writes ``rest`` behind the dots."""
    return not rest or any(form.match(rest) for form in (_OK, _FAILED, _SKIPPED))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("#", "\\#")

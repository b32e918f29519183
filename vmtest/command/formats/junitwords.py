"""What the attributes and the texts of a JUnit file say of a test (pure).

docs/reference/formats.md has the rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vmtest.command.formats.rows import seconds
from vmtest.model.results import Outcome

SAYING = ("status", "result", "outcome")
"""The attributes whose words count where no element says the same."""
WORST = (Outcome.ERROR, Outcome.FAILED, Outcome.SKIPPED, Outcome.XFAILED)

_GOOD = re.compile(
    r"(?:pass|passe[ds]|success|successful|succeeded|ok|okay|good|true|run|ran|executed|"
    r"complete|completed|finished|done|expected|flaky|fixed|warn|warning|risky|\d*)"
)
# Tried in this order on words without spaces, `_` and `-`.
_WORDS = (
    (re.compile(r"xfail|xfailed|expectedfail|expectedfailure|knownfailure"), Outcome.XFAILED),
    (
        re.compile(
            r"skip.*|ignored?|disabled|notrun|notexecuted|notrunnable|notapplicable|n/?a|"
            r"suppressed|pending|untested|todo|excluded|filtered|deselected|blocked|quarantined"
        ),
        Outcome.SKIPPED,
    ),
    (
        re.compile(
            r".*(?:fail|time[ds]?out|unexpected|undefined|xpass).*|notok|nok|ko|no|bad|false|"
            r"unstable|wrong"
        ),
        Outcome.FAILED,
    ),
)
_PANIC = re.compile(r"^panic: |\bpanicked at ")
_RUST_PANIC = re.compile(r"\bpanicked at \S+:\d+:\d+:?$")  # Rust 1.73: why stands in the next line
_GO_FRAME = re.compile(r"^(?:=== |--- |(?:FAIL|PASS|ok)(?:\s|$)|exit status \d)")
_PLACE = re.compile(r"^(?:at )?\S*[./]\S*:\d+(?::\d+)?$")
_TITLE = re.compile(r"^\S+:\d+:\d+ ")  # Playwright's message is the place and name of the test
_NO_REASONS = ("Failed", "collection failure")  # gotestsum, pytest
_THROWN = re.compile(r"^(?:\w*(?:Error|Exception)\b): .")


def said_of(case: Mapping[str, str]) -> tuple[Outcome | None, str]:
    """What the attributes of a test say of it, the worst of it, and the words that say so.

    A word that is not known says an error: it may be a failure. None where all is well.
    """
    found = [(_outcome(case.get(key, "")), f'{key}="{case.get(key, "")}"') for key in SAYING]
    quiet = all(outcome is None for outcome, _ in found)
    if quiet and case.get("success", "").lower() == "false":
        found.append((Outcome.FAILED, 'success="false"'))
    said = {outcome: words for outcome, words in reversed(found) if outcome is not None}
    worst = next((outcome for outcome in WORST if outcome in said), None)
    return worst, said[worst] if worst else ""


def is_flaky(case: Mapping[str, str]) -> bool:
    """Whether an attribute says that a test passed when it was repeated."""
    return any(case.get(key, "").lower() == "flaky" for key in SAYING)


def _outcome(value: str) -> Outcome | None:
    word = re.sub(r"[\s_-]", "", value.lower())
    if _GOOD.fullmatch(word):
        return None
    return next((outcome for form, outcome in _WORDS if form.fullmatch(word)), Outcome.ERROR)


def duration(text: str) -> float:
    """``time`` of a test in seconds: a comma groups digits, or is the decimal one of a locale."""
    whole, comma, rest = text.strip().partition(",")
    grouped = "." in rest or "," in rest or (len(rest) == 3 and whole.strip("0") != "")
    return seconds(text.replace(",", "" if grouped or not comma else "."))


def telling(text: str) -> str:
    """The line of ``text`` that says why: a panic's, the one above a stack, else the last."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not _GO_FRAME.match(line)]
    for n, line in enumerate(lines):
        if _PANIC.search(line):
            return " ".join(lines[n : n + 2]) if _RUST_PANIC.search(line) else line
    if not lines:
        return ""
    if lines[-1].startswith("at ") and not _PLACE.match(lines[-1]):
        return lines[0]
    # PHPUnit and Catch2 end with where it happened.
    return next((line for line in reversed(lines) if not _PLACE.match(line)), lines[-1])


def message_of(given: str, text: str, kind: str) -> str:
    """Why, of an element's ``message``, ``text`` and ``type``."""
    message = given.strip()
    if "\n" in message and _GO_FRAME.match(message):
        message = telling(message)  # gotestsum has a skipped test's whole output there
    elif _RUST_PANIC.search(message):
        message = telling(text) or message
    elif _TITLE.match(message):
        lines = (line.strip() for line in text.splitlines())
        message = next(filter(_THROWN.match, lines), message)
    if message and message not in _NO_REASONS:
        return message
    return telling(text).removeprefix("E   ") or message or kind.strip()

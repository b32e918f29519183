"""The end of a bisect over a git tree in words.  Pure functions of its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vmtest.bisect.commits import Commit, Span
from vmtest.bisect.render import cannot_tell, differences, ends_words, telling
from vmtest.bisect.rounds import Outcome
from vmtest.model.text import one_line
from vmtest.report.text import counted


def render(
    outcome: Outcome,
    span: Span,
    path: Path,
    culprits: Sequence[Commit],
    commands: Mapping[int, str],
    logs: Mapping[int, Sequence[str]],
) -> str:
    """What became of bisecting ``span`` of the tree at ``path``.

    The change came with one of ``culprits``; ``commands`` reproduce the two commits that they are
    of, ``logs`` are the files of the runs that told of them.
    """
    answer, points, seen = outcome.answer, outcome.question.points, outcome.seen
    old, new = ends_words(outcome.question.find_fixed)
    last, first = points[answer.last], points[answer.first]
    lines = []
    if answer.exact:
        lines += [f"first {new}: {first.version}", *_facts(culprits[0])]
    else:
        lines.append(
            f"first {new}: one of {counted(len(culprits), 'commit')}, of which those before the "
            f"last could not tell"
        )
        for commit in culprits:
            lines += [f"  {commit.id}", *(f"  {line}" for line in _facts(commit))]
    lines.append(f"last {old}: {last.label}")
    skipped = [
        f"  {points[n].label}: {cannot_tell(verdict, seen[n])}"
        for n, verdict in outcome.verdicts.items()
        if not verdict.tells
    ]
    lines += ["", "could not tell", *skipped] if skipped else []
    ends = ((answer.last, old), (answer.first, new))
    one, other = (telling(seen[n], outcome.verdicts[n]) for n, _ in ends)
    lines += ["", "what differs", *differences(one, other, last.name, first.name)]
    lines += ["", "where to read what changed"]
    lines += [f"  git -C {path} show {commit.id}" for commit in culprits]
    lines += ["", "to reproduce"]
    lines += [f"  {points[n].name} ({word}): {commands[n]}" for n, word in ends]
    lines += [f"  logs of {points[n].name}: {', '.join(logs[n]) or 'none'}" for n, _ in ends]
    asked = f"{len(seen)} of {counted(span.count + 1, 'commit')} asked"
    lines += ["", f"{asked} in {counted(outcome.rounds, 'round')}"]
    lines += [f"note: {note}" for note in span.notes]
    return "\n".join(lines)


def _facts(commit: Commit) -> Iterable[str]:
    yield f"  {one_line(commit.subject)}"
    yield f"  {one_line(commit.author)}, {commit.date}"

"""A bisect in words: where it stands, and its end.  Pure functions of its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from vmtest.bisect import ways
from vmtest.bisect.commits import Commit, CommitRange
from vmtest.bisect.observe import Observation, combined, verdict_of
from vmtest.bisect.question import Conclusion, Point, Standing
from vmtest.bisect.search import Verdict
from vmtest.host.debian import DebianVersion
from vmtest.kernels.dnf.version import RpmVersion
from vmtest.model.text import one_line
from vmtest.model.versions import KernelVersion, PackageVersion
from vmtest.report.text import clock, counted

_MOST_FACTS = 10
_LONGEST = 400
_CONFIG = "CONFIG_"


def opening(first: str, last: str, among: str, folder: str, known: int) -> str:
    """What is gone through, and where; ``known`` of it told before it was interrupted."""
    text = f"{first} to {last}: {among}; {folder}"
    return f"{text}; resumed, {known} of them known" if known else text


def standing(
    now: Standing, names: Sequence[str], find_fixed: bool, per_round: float, among: str
) -> str:
    """What is known, what runs, and how long it takes.

    ``per_round`` is seconds, 0 if unknown; ``among`` is what the ends are ends of.
    """
    asked = ", ".join(names[n] for n in now.points)
    if now.last is None or now.first is None:
        both = "the ends" if len(now.points) > 1 else "an end"
        return f"round {now.number}: {both}, {asked}, of {among}"
    old, new = ends_words(find_fixed)
    text = (
        f"round {now.number}: {asked} ({old} {names[now.last]}, {new} {names[now.first]}, "
        f"{now.between} between; at most {counted(now.rounds, 'round')}"
    )
    return text + (f", about {clock(now.rounds * per_round)} min)" if per_round else ")")


def observed(
    name: str, attempt: int, repeat: int, one: Observation, way: Collection[str] = ()
) -> str:
    """``6.12.117: bad: rejected ...``; only a failure in this ``way`` is bad."""
    which = f" ({attempt} of {repeat})" if repeat > 1 else ""
    if attempt > repeat:
        which = " (again)"
    return one_line(f"{name}{which}: {_word(verdict_of(one, way))}: {one.why}")


def meaning(way: Sequence[str], bad: str) -> str:
    """What counts as bad: what fails in this ``way``, as the end ``bad`` did."""
    return one_line(f"bad is what fails as {bad}: {ways.told(way)}", _LONGEST)


def _word(verdict: Verdict) -> str:
    return "failed another way" if verdict is Verdict.OTHER else verdict.value


def tally(seen: Sequence[Observation], way: Collection[str] = ()) -> str:
    """How many of the observations of a point said what: ``good 1 of 3, bad 2 of 3``."""
    counts = Counter(verdict_of(one, way) for one in seen)
    return ", ".join(f"{_word(said)} {count} of {len(seen)}" for said, count in counts.items())


def render(outcome: Conclusion, commands: Mapping[int, str], folder: str) -> str:
    """The end of a bisect in ``folder``; ``commands`` reproduce the points that they are of."""
    answer, question, seen = outcome.answer, outcome.question, outcome.seen
    last, first = question.points[answer.last], question.points[answer.first]
    old, new = ends_words(question.find_fixed)
    names = question.names
    lines = []
    if answer.exact:
        lines.append(f"first {new}: {_point(first)}")
    else:
        lines.append(
            f"first {new}: one of {names[answer.last + 1]} to {names[answer.first]}: "
            f"{counted(len(answer.between), 'kernel')} between could not tell"
        )
        lines.append(f"first seen {new}: {_point(first)}")
    lines.append(f"last {old}: {_point(last)}")
    for n in answer.between:
        lines.append(f"  {names[n]}: {cannot_tell(outcome.verdicts[n], seen[n], outcome.way)}")
    for points, what in (
        (question.gone, "released between them and no longer to be had"),
        (question.left_out, "between them and not in the cache (leave --cached out to ask them)"),
    ):
        inside = [point.version for point in points if _between(last, point, first)]
        if inside:
            lines.append(f"{what}: {', '.join(inside)}")
    if answer.contradictions:
        again = ", ".join(names[n] for n in answer.contradictions)
        lines.append(
            f"contradiction: {again} behind it is {old} again: it changed more than once, and "
            f"this is the earliest change that was seen"
        )
    elsewhere = [
        f"{names[n]} ({cannot_tell(verdict, seen[n], outcome.way)})"
        for n, verdict in outcome.verdicts.items()
        if not verdict.tells and n not in answer.between
    ]
    if elsewhere:
        lines.append(f"could not tell elsewhere: {'; '.join(elsewhere)}")
    lines += _confidence(outcome)
    ends = ((answer.last, old), (answer.first, new))
    one, other = (telling(seen[n], outcome.verdicts[n], outcome.way) for n, _ in ends)
    lines += ["", "what differs", *differences(one, other, last.name, first.name)]
    lines += ["", "where to read what changed"]
    lines += [f"  {text}" for text in changelog(last, first, other, other.gone or one.gone)]
    lines += ["", "to reproduce"]
    lines += [f"  {names[n]} ({word}): {commands[n]}" for n, word in ends]
    lines += [f"  logs of {names[n]}: {_folders(seen[n], folder)}" for n, _ in ends]
    never = ", ".join(point.name for point in outcome.unasked) or "none"
    asked = f"{len(seen)} of {counted(len(names), 'kernel')} asked"
    lines += ["", f"{asked} in {counted(outcome.rounds, 'round')}; never booted: {never}"]
    return "\n".join(lines)


def changelog(last: Point, first: Point, seen: Observation, gone: str = "") -> tuple[str, ...]:
    """Where the changes between two packages are written down, without any host's name.

    ``gone`` is what one of them lacks, as the kernel's source writes it, "" if nothing is known.
    """
    old, new = (KernelVersion.parse(_ordered(point).upstream) for point in (last, first))
    lines = _of_package(last, first, seen)
    if gone.startswith(_CONFIG) and lines:
        config = "/boot/config-RELEASE" if first.table == "apt" else "/lib/modules/RELEASE/config"
        lines.append(f"the package's config: {gone} in {config} of both")
    if old == new:
        return (*lines, "upstream's: none, both are of one upstream version")
    two_series = old.numbers[:2] != new.numbers[:2]
    start = f"v{old.major}.{old.minor}" if two_series else f"v{old}"
    in_clone = f"in a clone of the stable tree: {_log(f'{start}..v{new}', gone)}"
    if not two_series:
        notes = f"ChangeLog-{new} and those before it down to {old}"
        return (*lines, f"upstream's: {notes}, or {in_clone}")
    return (
        *lines,
        f"upstream's, {in_clone}",
        f"two series: it came between {start} and v{new.major}.{new.minor}, or within one of the "
        f"stable series",
    )


def _of_package(last: Point, first: Point, seen: Observation) -> list[str]:
    """Where the package of ``first`` tells its changes; images and upstream's tags have none."""
    if first.table == "dnf":
        return [f"the package's: `rpm -qp --changelog` of its .rpm, down to {last.version}"]
    if first.table != "apt":
        return []
    package = f"linux-image-{seen.release}" if seen.release else "its linux-image package"
    log = f"`apt changelog {package}`, or changelog.Debian.gz in it"
    return [f"the package's: {log}, down to {last.version}"]


def _log(span: str, gone: str) -> str:
    """The command that lists the commits of ``span`` which have to do with what is ``gone``."""
    if not gone:
        return f"git log --oneline {span} -- kernel/bpf net include/uapi/linux/bpf.h"
    if gone.startswith(_CONFIG):
        symbol = gone.removeprefix(_CONFIG)
        return f"git log --oneline -G '^config {symbol}$' {span} -- '*Kconfig*'"
    return f"git log --oneline -S {gone} {span}"


def ends_words(find_fixed: bool) -> tuple[str, str]:
    """What the older end is and what the newer."""
    return ("bad", "good") if find_fixed else ("good", "bad")


def _point(point: Point) -> str:
    return f"{point.name} (package {point.version}, {point.suite})"


def _between(last: Point, point: Point, first: Point) -> bool:
    low, version, high = (_ordered(p) for p in (last, point, first))
    return low < version < high


def _ordered(point: Point) -> PackageVersion:
    """The version of ``point`` in the order of its archive's own package tool."""
    return RpmVersion(point.version) if point.table == "dnf" else DebianVersion(point.version)


def answered(seen: Sequence[Observation]) -> str:
    """``bad: FAILED: ...``: what came of asking once or several times."""
    verdict = combined(seen)
    if not verdict.tells:
        return cannot_tell(verdict, seen)
    return one_line(f"{verdict}: {telling(seen, verdict).why}", _LONGEST)


def cannot_tell(verdict: Verdict, seen: Sequence[Observation], way: Collection[str] = ()) -> str:
    """Why a point is gone past; only a failure in this ``way`` is bad."""
    if verdict is Verdict.FLAKY:
        return f"flaky: {tally(seen, way)}"
    if verdict is Verdict.OTHER:
        each = dict.fromkeys(ways.told(one.way) for one in seen if one.way)
        what = one_line("; then ".join(each), _LONGEST)
        return f"{tally(seen, way)}: {what}; it counts for neither side"
    return one_line(f"{verdict}: {seen[-1].why}")


def telling(
    seen: Sequence[Observation], verdict: Verdict, way: Collection[str] = ()
) -> Observation:
    """The observation that a verdict goes by; only a failure in this ``way`` is bad."""
    return next(one for one in seen if verdict_of(one, way) is verdict)


def _confidence(outcome: Conclusion) -> Iterable[str]:
    """What counted as bad, and how often the two points that the answer goes by said it."""
    points, answer = outcome.question.points, outcome.answer
    if outcome.way:
        yield meaning(outcome.way, points[outcome.bad].name)
    elif not outcome.question.any_failure:
        yield "bad is any failure: how the bad end failed is not recorded"
    both = (
        f"{points[n].name} {tally(outcome.seen[n], outcome.way)}"
        for n in (answer.last, answer.first)
    )
    yield f"observed: {'; '.join(both)}"
    if Verdict.OTHER in outcome.verdicts.values():
        yield "to count any failure as bad: --any-failure"


def differences(one: Observation, other: Observation, last: str, first: str) -> Iterable[str]:
    """What became of each test or load on both sides, where that is not the same."""
    before, after = dict(one.facts), dict(other.facts)
    labels = [label for label in {**before, **after} if before.get(label) != after.get(label)]
    width = max(len(last), len(first))
    for label in labels[:_MOST_FACTS]:
        yield f"  {one_line(label)}"
        for name, facts in ((last, before), (first, after)):
            yield f"    {name:<{width}}  {one_line(facts.get(label, '(not there)'))}"
    if len(labels) > _MOST_FACTS:
        yield f"  ... and {len(labels) - _MOST_FACTS} more"
    if not labels:
        yield f"  {last:<{width}}  {one_line(one.why)}"
        yield f"  {first:<{width}}  {one_line(other.why)}"


def _folders(seen: Sequence[Observation], folder: str) -> str:
    return ", ".join(dict.fromkeys(f"{folder}/{one.folder}" for one in seen))


def render_commits(
    outcome: Conclusion,
    span: CommitRange,
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
        lines += [f"first {new}: {first.version}", *_commit_facts(culprits[0])]
    else:
        lines.append(
            f"first {new}: one of {counted(len(culprits), 'commit')}, of which those before the "
            f"last could not tell"
        )
        for commit in culprits:
            lines += [f"  {commit.id}", *(f"  {line}" for line in _commit_facts(commit))]
    lines.append(f"last {old}: {last.label}")
    lines += _confidence(outcome)
    skipped = [
        f"  {points[n].label}: {cannot_tell(verdict, seen[n], outcome.way)}"
        for n, verdict in outcome.verdicts.items()
        if not verdict.tells
    ]
    lines += ["", "could not tell", *skipped] if skipped else []
    ends = ((answer.last, old), (answer.first, new))
    one, other = (telling(seen[n], outcome.verdicts[n], outcome.way) for n, _ in ends)
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


def _commit_facts(commit: Commit) -> Iterable[str]:
    yield f"  {one_line(commit.subject)}"
    yield f"  {one_line(commit.author)}, {commit.date}"

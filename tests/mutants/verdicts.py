"""What became of mutants, and what that says of the suites.  Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from tests.mutants.operators import Mutant
from vmtest.errors import InfrastructureError
from vmtest.model.results import Outcome, TestResult

AIM = 0.95
"""The share of the mutants that count which the suites have to kill."""


class Verdict(StrEnum):
    """What became of one mutant; from KILLED on it counts."""

    NOT_COMPILED = "not compiled"
    SAME_CODE = "same code"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    KILLED = "killed"
    SURVIVED = "survived"
    TIMED_OUT = "timed out"
    CRASHED = "crashed"

    @property
    def counts(self) -> bool:
        """Whether it compiled, loaded, and was another program than all before."""
        return self in (Verdict.KILLED, Verdict.SURVIVED, Verdict.TIMED_OUT, Verdict.CRASHED)


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict and its evidence: the ``test`` that failed, ``message``, ``seconds`` of the VM.

    ``same_as`` is the mutant whose objects a duplicate's are.
    """

    verdict: Verdict
    test: str = ""
    message: str = ""
    seconds: float = 0.0
    same_as: str = ""


def judge(
    tests: Iterable[TestResult],
    exit_status: int | None,
    refusal: str,
    unloaded: Sequence[str] = (),
) -> Judged:
    """A mutant's verdict from what pytest said; ``refusal`` is the verifier's, "" for none.

    ``unloaded`` names mutated objects that only a test can load: there it shows
    whether the kernel takes them.
    Raises InfrastructureError when pytest ran no test: that proves nothing.
    """
    if refusal:
        return Judged(Verdict.REFUSED, message=_last_line(refusal))
    done = list(tests)
    for test in done:
        if test.outcome.bad:
            if any(f"{name}.o: cannot load" in test.details for name in unloaded):
                return Judged(Verdict.REFUSED, test.test, test.message)
            return Judged(Verdict.KILLED, test.test, test.message)
    if exit_status is None:
        return Judged(Verdict.CRASHED, message="pytest ended without a word")
    if exit_status != 0 or not any(test.outcome is Outcome.PASSED for test in done):
        raise InfrastructureError(
            f"pytest ended with status {exit_status} after {len(done)} tests, none of which failed"
        )
    return Judged(Verdict.SURVIVED)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # libbpf ends with its own words; the verifier's are before "processed N insns".
    for line, following in pairwise(lines):
        if following.startswith("processed "):
            return line
    return lines[-1] if lines else ""


@dataclass(slots=True)
class Killers:
    """Which tests have killed what: those that killed a mutant's neighbours go first."""

    _functions: defaultdict[tuple[str, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    _files: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def record(self, mutant: Mutant, test: str) -> None:
        """``test`` killed ``mutant``."""
        self.record_place(mutant.file, mutant.function, test)

    def record_place(self, file: str, function: str, test: str) -> None:
        """``test`` killed a mutant in ``function`` of ``file``."""
        self._functions[file, function][test] += 1
        self._files[file][test] += 1

    def first(self, mutant: Mutant, most: int = 10) -> list[str]:
        """The ``most`` likely tests: the function's killers, then the file's.

        Those of one test file stay together, because it loads its objects once.
        """
        likely = [test for test, _ in self._functions[mutant.file, mutant.function].most_common()]
        likely += [test for test, _ in self._files[mutant.file].most_common() if test not in likely]
        modules = list(dict.fromkeys(test.split("::")[0] for test in likely[:most]))
        return sorted(likely[:most], key=lambda test: modules.index(test.split("::")[0]))


@dataclass(frozen=True, slots=True)
class Survivor:
    """An entry of survivors.toml: why a mutant may survive."""

    id: str
    mutant: str
    equivalent: str = ""
    owed: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ran against what was known."""

    unlisted: tuple[Mutant, ...]
    killed: tuple[Survivor, ...]
    absent: tuple[Survivor, ...]


def compare(
    mutants: Sequence[Mutant],
    judged: Mapping[str, Judged],
    known: Sequence[Survivor],
    complete: bool,
) -> Comparison:
    """Survivors that are not listed, and entries that are no survivors (any more).

    A duplicate shares its twin's verdict, and an entry of either is enough.
    ``complete``: every mutant was made, so that one that is not there is gone.
    """
    listed = {entry.id for entry in known}
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for name, result in judged.items():
        groups[result.same_as or name].add(name)

    def verdict(name: str) -> Verdict | None:
        found = judged.get(name)
        if found is not None and found.same_as:
            found = judged.get(found.same_as)
        return None if found is None else found.verdict

    def survived(mutant: Mutant) -> bool:
        found = judged.get(mutant.id)
        return found is not None and found.verdict.counts and found.verdict is not Verdict.KILLED

    unlisted = [mutant for mutant in mutants if survived(mutant) and not groups[mutant.id] & listed]
    return Comparison(
        unlisted=tuple(unlisted),
        killed=tuple(
            entry
            for entry in known
            if (now := verdict(entry.id)) is not None and (now is Verdict.KILLED or not now.counts)
        ),
        absent=tuple(entry for entry in known if complete and verdict(entry.id) is None),
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts counted."""

    counts: Mapping[Verdict, int]

    @classmethod
    def of(cls, results: Iterable[Judged]) -> Tally:
        """Count ``results``."""
        return cls(Counter(result.verdict for result in results))

    @property
    def made(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def counted(self) -> int:
        """Those that compiled, loaded, and differ from the original and each other."""
        return sum(number for verdict, number in self.counts.items() if verdict.counts)

    @property
    def score(self) -> float:
        """The share of them that was killed, equivalent ones not left out; 1.0 of none."""
        killed = self.counts.get(Verdict.KILLED, 0)
        return killed / self.counted if self.counted else 1.0


def good(tally: Tally, comparison: Comparison) -> bool:
    """Whether the suites are as good as they have to be."""
    return tally.score >= AIM and not comparison.unlisted

"""One of several parts of a matrix, for as many machines: which kernels it has.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vmtest.errors import UsageError
from vmtest.model.kernels import Kernel
from vmtest.model.results import Matrix

_WORDS = re.compile(r"([1-9]\d{0,8})/([1-9]\d{0,8})")
_MOST = 10_000  # parts that are looked for


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` of ``count``, from 1; ``seconds`` is what a kernel took before, by name.

    Every machine has to get the same ``seconds``, or a kernel runs twice and another not at all.
    """

    number: int
    count: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, before: Matrix | None = None) -> Shard:
        """``2/4``, balanced by the durations of ``before``; raises UsageError."""
        match = _WORDS.fullmatch(text)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not match:
            raise UsageError(f"`shard` {text}: write PART/PARTS, as in 2/4")
        if number > count:
            raise UsageError(f"`shard` {text}: part {number} of {count} does not exist")
        kernels = before.kernels if before is not None else ()
        return cls(number, count, {one.kernel: one.duration for one in kernels if one.duration})

    def check(self, kernels: int) -> None:
        """Raise UsageError where there are more parts than ``kernels``."""
        if self.count > kernels:
            there = f"is {kernels} kernel" if kernels == 1 else f"are {kernels} kernels"
            parts = f"{kernels} part{'' if kernels == 1 else 's'}"
            raise UsageError(
                f"`shard` {self.number}/{self.count}: there {there}, so at most {parts}"
            )

    def part(self, kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
        """Its part of ``kernels``, in their order: the longest first go to who has least to do.

        A kernel without a duration counts as the average of the others.  Raises UsageError where
        there are more parts than kernels: a part without a kernel would prove nothing.
        """
        self.check(len(kernels))
        known = [self.seconds[one.name] for one in kernels if one.name in self.seconds]
        usual = sum(known) / len(known) if known else 1.0
        took = {one.name: self.seconds.get(one.name, usual) for one in kernels}
        loads = [0.0] * self.count
        mine: set[str] = set()
        # sorted() keeps the order of kernels that took the same, so every machine agrees.
        for kernel in sorted(kernels, key=lambda one: -took[one.name]):
            least = min(range(self.count), key=lambda place: loads[place])
            loads[least] += took[kernel.name]
            if least == self.number - 1:
                mine.add(kernel.name)
        return tuple(one for one in kernels if one.name in mine)


def absent(commands: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The parts, as ``2/4``, that none of ``commands`` asked for where another asked for one.

    A command is the words behind ``vmtest``.
    """
    there: dict[int, set[int]] = {}
    for words in commands:
        if match := _WORDS.fullmatch(_asked(words)):
            there.setdefault(int(match[2]), set()).add(int(match[1]))
    return tuple(
        f"{number}/{count}"
        for count, numbers in there.items()
        for number in sorted({*range(1, min(count, _MOST) + 1)} - numbers)
    )


def _asked(words: Sequence[str]) -> str:
    """The last value of ``--shard``, "" without one."""
    value = ""
    for word, after in zip(words, (*words[1:], ""), strict=True):
        if word == "--":
            break
        if word == "--shard":
            value = after
        elif word.startswith("--shard="):
            value = word.partition("=")[2]
    return value

"""How often something happens, and how sure that is: frozen values, importing nothing of ours."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z = 1.959964  # of the normal distribution, for 95 % on both sides


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``of`` observations."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """The part, from 0 to 1; 0 where nothing was observed."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Within which the true share is with 95 % confidence (Wilson's score interval)."""
        if not self.of:
            return 0.0, 1.0
        square = _Z * _Z / self.of
        middle = self.share + square / 2
        spread = _Z * math.sqrt(self.share * (1 - self.share) / self.of + square / self.of / 4)
        low, high = (middle - spread) / (1 + square), (middle + spread) / (1 + square)
        return (low if self.count else 0.0), (high if self.count < self.of else 1.0)

    def __str__(self) -> str:
        """``3 of 20 (15%, with 95% confidence 5% to 36%)``."""
        return self.words("")

    def words(self, unit: str) -> str:
        """The same with what was counted: ``3 of 20 runs (...)``."""
        low, high = self.interval
        sure = f"with 95% confidence {low:.0%} to {high:.0%}"
        counted = f"{self.count} of {self.of} {unit}".rstrip()
        return f"{counted} ({self.share:.0%}, {sure})"

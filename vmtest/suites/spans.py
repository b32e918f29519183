"""Which test ran when the kernel said something, by the kernel's own time.  Pure."""

from __future__ import annotations


class Spans:
    """The time of each test, as the guest told it: behind one message of the kernel, up to another.

    A test's time begins behind the last message before it and ends with the last one before its
    result (microseconds).  Both came out of the kernel's log, so no clock has to agree with
    another.  0 is a time that the guest does not know.
    """

    def __init__(self) -> None:
        self._ended: list[tuple[str, int, int]] = []
        self._running: tuple[str, int] | None = None

    def begin(self, test: str, seen: int) -> None:
        """``test`` begins, and ``seen`` is the time of the last message before it."""
        self._running = test, seen

    def end(self, seen: int) -> None:
        """The test that runs has ended, and ``seen`` is the time of the last message."""
        if self._running is not None:
            self._ended.append((*self._running, seen))
            self._running = None

    def ran_at(self, stamp: str) -> str:
        """The test that ran at ``stamp``, seconds as the kernel prints them; "" for none."""
        if not stamp:
            return ""
        at = round(float(stamp) * 1_000_000)
        for test, since, until in self._ended:
            if since < at <= until:
                return test
        if self._running is not None and 0 < self._running[1] < at:
            return self._running[0]
        return ""

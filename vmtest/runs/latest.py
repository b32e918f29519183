"""Which run ``.vmtest/latest`` points at: the last one that ran something."""

from __future__ import annotations

from vmtest.model.events import Event, KernelFinished, LoadFinished, TestFinished
from vmtest.runs.folder import RunFolder


class Latest:
    """Has ``.vmtest/latest`` point at a run as soon as something of it has run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._is = False

    def hear(self, event: Event) -> None:
        """Take in what happened."""
        ran = isinstance(event, TestFinished | LoadFinished) or (
            isinstance(event, KernelFinished) and event.result.came_to_something
        )
        if ran and not self._is:
            self._is = True
            self._folder.become_latest()

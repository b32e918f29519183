"""Saves as news: files are watched on one thread, built and read on another.

A run goes on while a build runs beside it.  It is stopped when the build came to something that
outdates it, or failed: then the last word on the screen is the compiler's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from watchfiles import Change, watch

from vmtest.errors import InfrastructureError, Interrupted, VmtestError, os_words
from vmtest.host import interrupt
from vmtest.matrix.runner import Stop
from vmtest.watch.due import Inputs, Stage, gives_way
from vmtest.watch.inputs import Contents, is_noise, own_outputs

QUIET = 50
"""Milliseconds without a change after which those before are one save."""
LONGEST = 300
"""Milliseconds after which a save is over though files still change."""


@dataclass(frozen=True, slots=True)
class Saved:
    """``paths`` were saved, and are being built; none at the very beginning."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """The build ended well and came to ``inputs``."""

    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Broken:
    """The build failed, or kernels.toml does not hold: why."""

    words: str


News = Saved | Built | Broken

Build = Callable[[Contents], Inputs]
"""Builds and reads, and tells the Contents what it made; raises VmtestError or OSError."""


def touched(batch: Iterable[tuple[Change, str]]) -> set[Path]:
    """The files of a ``batch`` of watchfiles, without those that came and went again.

    Those are an editor's, on their way to another name.
    """
    changes = [(change, Path(path)) for change, path in batch]
    came = {path for change, path in changes if change is Change.added}
    return {path for _, path in changes if path not in came or os.path.lexists(path)}


class Feed:
    """Watches ``roots`` and has ``build`` called for every save: a context manager.

    What hides in folders, caches and editors' files are no saves, but what ``kept`` names; and
    neither is this process's own output.
    """

    def __init__(self, roots: Sequence[Path], build: Build, kept: Iterable[Path] = ()) -> None:
        self._roots = tuple(roots)
        self._build = build
        self._kept = frozenset(path.resolve() for path in kept)
        self._own = own_outputs()
        self._over = threading.Event()
        self._news: list[News] = []
        self._broke: BaseException | None = None
        self._touched: set[Path] = set()
        self._changed = threading.Condition()
        self._running: tuple[Stage, Inputs, Stop] | None = None
        self._scopes: list[interrupt.Scope] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("watch", self._watch), ("build", self._builds))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for scope in tuple(self._scopes):
            scope.end()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def take(self, *, wait: bool) -> News | None:
        """The oldest news; None when there are none and nobody wants to ``wait``.

        Raises what ended the watching.
        """
        with self._changed:
            while not self._news:
                if self._broke is not None:
                    raise self._broke
                if not wait:
                    return None
                self._changed.wait()
            return self._news.pop(0)

    @contextmanager
    def guarding(self, stage: Stage, inputs: Inputs) -> Iterator[Stop]:
        """What stops ``stage``, which runs with ``inputs``, when news outdate it."""
        stop = Stop()
        with self._changed:
            self._running = stage, inputs, stop
            for news in self._news:
                self._judge(news)
        try:
            yield stop
        finally:
            with self._changed:
                self._running = None

    def _post(self, news: News) -> None:
        with self._changed:
            self._news.append(news)
            self._judge(news)
            self._changed.notify_all()

    def _judge(self, news: News) -> None:
        if self._running is None or isinstance(news, Saved):
            return
        stage, inputs, stop = self._running
        if isinstance(news, Broken) or gives_way(stage, inputs, news.inputs):
            stop.request()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do ``work``; what it raises is for whoever takes the news."""
        try:
            with interrupt.apart() as scope:
                self._scopes.append(scope)
                work()
        except Interrupted:
            pass  # the main thread knows
        except BaseException as error:
            with self._changed:
                self._broke = error
                if self._running is not None:
                    self._running[2].request()
                self._changed.notify_all()

    def _watch(self) -> None:
        try:
            for batch in watch(
                *self._roots,
                watch_filter=lambda change, path: self._is_save(Path(path)),
                debounce=LONGEST,
                step=QUIET,
                stop_event=self._over,
                raise_interrupt=False,
            ):
                with self._changed:
                    self._touched |= touched(batch)
                    self._changed.notify_all()
        except OSError as error:
            raise InfrastructureError(
                f"cannot watch {', '.join(map(str, self._roots))}: {os_words(error)}; where it is "
                "a limit of inotify: sysctl fs.inotify.max_user_watches=1048576, or set "
                "WATCHFILES_FORCE_POLLING=1"
            ) from error

    def _is_save(self, path: Path) -> bool:
        if path in self._kept:
            return True
        if path in self._own:
            return False
        root = max((r for r in self._roots if path.is_relative_to(r)), default=path)
        return not is_noise(path, root)

    def _builds(self) -> None:
        contents = Contents()
        saved: tuple[Path, ...] = ()
        while not self._over.is_set():
            self._post(Saved(saved))
            try:
                now = self._build(contents)
            except Interrupted:
                raise
            except (VmtestError, OSError) as error:
                self._post(Broken(os_words(error) if isinstance(error, OSError) else str(error)))
            else:
                self._post(Built(now))
            saved = ()
            while not (saved or self._over.is_set()):
                saved = contents.changed(self._touches())

    def _touches(self) -> set[Path]:
        """The files that were touched since the last call, at least one; none at the end."""
        with self._changed:
            while not (self._touched or self._over.is_set()):
                self._changed.wait()
            touched, self._touched = self._touched, set()
            return touched

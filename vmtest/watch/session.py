"""A watch from the first round to the interrupt that ends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vmtest.api.inputs import build_first
from vmtest.api.loads import VerifyRequest, plan_verify
from vmtest.api.record import Recording, carry_out
from vmtest.api.suites import SuitesRequest, plan_suites
from vmtest.config import select
from vmtest.errors import Interrupted, UsageError, VmtestError, os_words
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import check_patterns
from vmtest.matrix.kept import Kept, Waiting, Whole
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import Stop
from vmtest.model.project import Config
from vmtest.model.results import Matrix
from vmtest.report.live import View
from vmtest.runs.folder import STATE, RunFolder
from vmtest.verify.baseline import (
    BASELINE_SCHEMA,
    Baseline,
    FailOn,
    Rules,
    SavedKernel,
    baseline_of,
)
from vmtest.watch.due import Inputs, Stage, State, What, failed_suites
from vmtest.watch.feed import Broken, Feed, Saved
from vmtest.watch.inputs import Contents, objects_of, read_inputs

_OF_TESTS = ("--suite", "-k")
_OF_LOADS = ("--loader",)


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What is watched and done, in the words of the command line; as in the other requests.

    ``options`` go to pytest, ``loader`` are what objects are loaded with; ``again`` are the
    options of the command line as ``Matrix.again`` has them.
    """

    what: What = What.RUN
    objects: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    jobs: int | None = None
    accelerator: str = "auto"
    arguments: tuple[str, ...] = ()
    warm: bool = True
    again: tuple[tuple[str, ...], ...] = ()
    loader: tuple[str, ...] = ()


def command_line(what: What, again: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """The command line that does once what a watch with the options ``again`` does."""
    left_out = _OF_TESTS if what is What.VERIFY else _OF_LOADS
    return ((what.value,), *(group for group in again if group[0] not in left_out))


class Screen(Protocol):
    """Shows a watch; every call comes on the thread of :func:`watch`."""

    def saved(self, paths: tuple[Path, ...]) -> None:
        """``paths`` were saved and are being built."""

    def broken(self, words: str) -> None:
        """Nothing can be done until the next save: why."""

    def view(self, stage: Stage) -> View:
        """What shows ``stage``, which begins."""

    def ended(self, matrix: Matrix, folder: RunFolder) -> None:
        """A stage ran to its end."""

    def cancelled(self, stage: Stage) -> None:
        """A stage was stopped, because a save outdated it."""

    def waits(self) -> None:
        """All is done; the next save is waited for."""


def watch(load: Callable[[], Config], request: WatchRequest, screen: Screen, here: Path) -> None:
    """Do what saves make due, until KeyboardInterrupt.

    ``load`` reads the settings, at every save anew; paths are relative to ``here``.  Raises
    UsageError when there is nothing to watch, InfrastructureError when nobody can.
    """

    def build(contents: Contents) -> Inputs:
        settings = load()
        made: Sequence[Path] = ()
        try:
            made = build_first(settings, _unheard)
        finally:  # of a build that fails too, which may have removed them
            made = (*made, *_objects(settings, request, here))
            # Before they are read: one that is made after this is a change.
            contents.changed((*made, *(Path(f"{path}.d") for path in made)))
        return read_inputs(settings, request.what, request.objects, request.suites, here)

    settings = load()
    check_patterns(settings, request.kernels)
    select.select_suites(settings.suites, request.suites)
    kept = (settings.file, *_paths(settings, request, here))
    at_once = request.jobs or len(os.sched_getaffinity(0))
    waiting = Waiting(settings.directory / STATE / "waiting", default_cache(), at_once)
    with closing(waiting), Feed(_roots(settings, kept), build, kept) as feed:
        _Session(request, screen, feed, Kept(Whole(), waiting)).run()


def _objects(settings: Config, request: WatchRequest, here: Path) -> tuple[Path, ...]:
    """The objects that are watched, as far as they are there."""
    try:
        builds = objects_of(settings, request.objects, None, here)
    except UsageError:
        return ()  # whoever reads them says what is wrong
    return tuple(path for paths in builds.values() for path in paths)


def _paths(settings: Config, request: WatchRequest, here: Path) -> tuple[Path, ...]:
    """The files and folders that are watched wherever they lie."""
    folders = tuple(here / one for one in request.objects if (here / one).is_dir())
    tests = tuple(suite.tests for suite in settings.suites)
    return (*_objects(settings, request, here), *folders, *tests)


def _roots(settings: Config, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders to watch, none of them in another: the project's, and what is outside of it.

    Without a kernels.toml there is no project, and only the folders of the objects.
    """
    wanted = [settings.directory] if settings.file.exists() else []
    wanted += [path if path.is_dir() else path.parent for path in paths if path != settings.file]
    there = {path.resolve() for path in wanted if path.is_dir()} or {settings.directory}
    return tuple(sorted(p for p in there if not any(p != o and p.is_relative_to(o) for o in there)))


class _Session:
    """The loop of one watch; ``_before`` has what each kernel's verifier said last."""

    def __init__(self, request: WatchRequest, screen: Screen, feed: Feed, kept: Kept) -> None:
        self._request = request
        self._screen = screen
        self._feed = feed
        self._kept = kept
        self._state = State()
        self._before: Baseline | None = None
        self._idle = False

    def run(self) -> None:
        """Take news and do what is due, until KeyboardInterrupt."""
        while True:
            stage = self._state.next
            if stage is None and not self._idle and self._state.inputs is not None:
                self._idle = True
                self._screen.waits()
                if self._request.warm:
                    self._kept.guests.fill()
            news = self._feed.take(wait=stage is None)
            if isinstance(news, Saved):
                self._screen.saved(news.paths)
            elif isinstance(news, Broken):
                self._fails(news.words)
            elif news is not None:
                self._state, self._idle = self._state.built(news.inputs), False
            elif stage is not None:
                self._do(stage)

    def _fails(self, words: str) -> None:
        self._state, self._idle = self._state.hold(), True
        self._screen.broken(words)

    def _do(self, stage: Stage) -> None:
        inputs = self._state.inputs
        assert inputs is not None
        try:
            with self._feed.guarding(stage, inputs) as stop, ExitStack() as stack:
                matrix, folder = self._matrix(stage, inputs, stop, stack)
        except Interrupted:
            raise
        except (VmtestError, OSError) as error:
            self._fails(os_words(error) if isinstance(error, OSError) else str(error))
            return
        if stop.requested:
            self._screen.cancelled(stage)
            return
        if matrix.interrupted:
            raise KeyboardInterrupt
        if stage.what is What.VERIFY:
            self._before = _known(baseline_of(matrix, self._before, partial=True), matrix)
        self._state = self._state.done(stage, failed_suites(matrix, stage.names))
        self._screen.ended(matrix, folder)

    def _matrix(
        self, stage: Stage, inputs: Inputs, stop: Stop, stack: ExitStack
    ) -> tuple[Matrix, RunFolder]:
        view = self._screen.view(stage)
        settings = replace(inputs.settings, build=None)  # it has been built
        arguments = self._request.arguments
        again = command_line(stage.what, self._request.again)
        if stage.what is What.VERIFY:
            plan = self._verifying(stage, settings, stack)
            recording = Recording(arguments=arguments, again=again)
        else:
            request = self._request
            planned = plan_suites(
                settings,
                SuitesRequest(
                    kernels=request.kernels,
                    suites=stage.names,
                    options=request.options,
                    narrowed=True,
                    jobs=request.jobs,
                    accelerator=request.accelerator,
                    warm=request.warm,
                ),
                _unheard,
            )
            plan = planned.plan
            recording = Recording(planned.builds, arguments=arguments, again=again)
        with view:
            plan = replace(plan, kept=self._kept)
            return carry_out(plan, view.handle, recording, stop=stop), plan.folder

    def _verifying(self, stage: Stage, settings: Config, stack: ExitStack) -> Plan:
        request, objects = self._request, stage.names
        if not request.objects:
            builds = tuple(build for build in settings.objects if build.name in stage.names)
            settings, objects = replace(settings, objects=builds), ()
        wanted = VerifyRequest(
            objects=objects,
            kernels=request.kernels,
            rules=Rules(FailOn(rejected=True), self._before),
            jobs=request.jobs,
            accelerator=request.accelerator,
            warm=request.warm,
            loader=request.loader,
        )
        return plan_verify(settings, wanted, _unheard, stack)


def _known(before: Baseline, matrix: Matrix) -> Baseline:
    """``before``, which then knows every kernel of ``matrix``: of some that there was nothing."""
    names = {kernel.kernel for kernel in before.kernels.values()}
    empty = {k.kernel: SavedKernel(k.kernel, {}) for k in matrix.kernels if k.kernel not in names}
    return Baseline(BASELINE_SCHEMA, {**before.kernels, **empty})


def _unheard(line: str) -> None:
    """Hears what is built, which nothing is here."""

"""The coordinator of a run over an engine, whose kernels boot nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cluster_tasks import Rows
from dask_workers import kernel_in, knows_accelerator
from fake_machine import kernel_of

from vmtest.cluster.engine import DaskEngine
from vmtest.host.cache import remove_tree
from vmtest.kernels import kconfig
from vmtest.matrix import runner
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import Stop, run_matrix
from vmtest.model.events import Event, Preparing, TestFinished
from vmtest.model.kernels import Kernel, KernelImage, Resolved, RootImage
from vmtest.model.project import Config
from vmtest.model.results import Matrix
from vmtest.model.versions import KernelVersion
from vmtest.rootfs.image import host_root
from vmtest.runs.folder import RunFolder

NAMES = ("a", "b", "c")


class Source:
    """A source whose kernels are in the store."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def resolve(self, kernel: Kernel, store: object) -> Resolved:
        return Resolved(kernel, KernelVersion.parse("6.12.1"), kernel.name, "test", cached=True)

    def fetch(self, resolved: Resolved, store: object, progress: object) -> KernelImage:
        return kernel_in(self._cache, resolved.kernel.name)


class Coordinator:
    """Runs kernels over an engine; ``tasks`` has those that are not of two tests."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cache = knows_accelerator(folder / "cache")
        self.run_folder = RunFolder(folder / "run")
        self.run_folder.path.mkdir()
        self.tasks: dict[str, Rows] = {}
        self.events: list[Event] = []
        self.root: Callable[[], RootImage] = host_root
        monkeypatch.setattr(runner, "source_for", lambda *given: Source(self.cache))
        monkeypatch.setattr(runner, "prepare_root", lambda *given: self.root())
        monkeypatch.setattr(kconfig, "check", lambda image, kind, root: "")

    def run(
        self,
        engine: DaskEngine | None,
        names: tuple[str, ...] = NAMES,
        emit: Callable[[Event], None] = lambda event: None,
        stop: Stop | None = None,
    ) -> Matrix:
        plan = Plan(
            config=cast(Config, SimpleNamespace(archives={}, known_splats=())),
            kernels=tuple(kernel_of(self.folder, name) for name in names),
            task=lambda image: self.tasks.get(image.name, Rows()),
            cache=self.cache,
            folder=self.run_folder,
        )

        def heard(event: Event) -> None:
            self.events.append(event)
            emit(event)

        return run_matrix(plan, heard, lambda matrix: None, engine=engine, stop=stop)

    def files(self) -> list[Path]:
        """All files of the run's folder."""
        return sorted(path for path in self.run_folder.path.rglob("*") if path.is_file())

    def clear(self) -> None:
        """Forget the last run."""
        remove_tree(self.run_folder.path)
        self.run_folder.path.mkdir()
        self.events.clear()


class Loss:
    """Hears of a run of one kernel: ``lose`` gets its first worker, the second ends the run.

    ``places`` are these workers.  Each is up to the kernel's first test by then.
    """

    def __init__(self, lose: Callable[[str], None]) -> None:
        self.places: list[str] = []
        self.stop = Stop()
        self._lose = lose

    def __call__(self, event: Event) -> None:
        if isinstance(event, Preparing) and event.what.startswith("on "):
            self.places.append(event.what.removeprefix("on "))
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            if len(self.places) == 1:
                self._lose(self.places[0])
            else:
                self.stop.request()


def until(true: Callable[[], bool], while_: Callable[[], bool] = lambda: True) -> None:
    while not true():
        assert while_(), "it ended before"
        time.sleep(0.02)

"""What tests of several files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import signed_archive
from hypothesis import HealthCheck, settings
from watched import Watch, Watched

from vmtest.model.project import KnownFailure

if TYPE_CHECKING:
    from coordinator import Coordinator

# The unit tests try the same examples each time; `tox -e fuzz` tries new ones.
settings.register_profile(
    "default", deadline=None, database=None, derandomize=True, max_examples=25
)
settings.register_profile(
    "fuzz",
    deadline=None,
    database=None,
    print_blob=True,
    max_examples=int(os.environ.get("VMTEST_FUZZ_EXAMPLES", "5000")),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The signed archive; whoever breaks it works on a copy."""
    folder = tmp_path_factory.mktemp("archive")
    signed_archive.make(folder)
    return folder


@pytest.fixture(autouse=True)
def no_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirrors that a package of this host may know take no part."""
    monkeypatch.setattr("vmtest.host.debian.TEMPLATES", tmp_path / "no-templates")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    """A coordinator whose workers, by what the environment says, have caches of their own."""
    from coordinator import Coordinator  # Dask with it, which few tests need
    from dask_workers import environment

    for name, value in environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return Coordinator(tmp_path, monkeypatch)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Makes a suite of a text, with files beside it; its processes end with the test."""
    with ExitStack() as stack:

        def make(text: str, *known: KnownFailure, files: dict[str, str] | None = None) -> Watched:
            watched = Watched(tmp_path, text, known, files)
            stack.callback(watched.session.close)
            return watched

        yield make

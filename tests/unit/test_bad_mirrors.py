"""Mirrors and registries of which nothing can be had: each source says what they do, in time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import bad_server
import oci_registry
import pytest
import rpm_repository
import signed_archive
from bad_server import GONE, LOOP, SILENT, STALLS, TRICKLES
from command import vmtest

from tests.faults.fixtures import Noticed
from vmtest.errors import KernelUnavailable
from vmtest.kernels import source_for
from vmtest.kernels.files import growing
from vmtest.kernels.files.download import download
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import (
    AptArchive,
    AptSpec,
    DnfArchive,
    DnfSpec,
    Kernel,
    MainlineSpec,
    OciArchive,
    OciSpec,
)


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setattr("vmtest.kernels.files.download._TIMEOUT", 0.5)
    monkeypatch.setattr("vmtest.kernels.files.download._WINDOW", 0.2)
    monkeypatch.setattr("vmtest.kernels.debian.suite._TIMEOUT", "1")
    monkeypatch.setattr("vmtest.kernels.oci.source._ASK_LIMIT", 1.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with bad_server.serving() as address:
        yield address


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


Refused = Callable[[Kernel, AptArchive | DnfArchive | OciArchive], str]


@pytest.fixture
def refused(store: Store, noticed: Noticed) -> Refused:
    """Says why a kernel of an archive cannot be had."""

    def ask(kernel: Kernel, archive: AptArchive | DnfArchive | OciArchive) -> str:
        with noticed.here(), pytest.raises(KernelUnavailable) as caught:
            source_for(kernel, {archive.name: archive}).resolve(kernel, store)
        said = str(caught.value)
        assert said.startswith("k: ") and "\n" not in said
        return said

    return ask


@signed_archive.needed
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "good cannot be read (the mirror does not have it)"),
        (LOOP, "good cannot be read (the mirror redirects without end)"),
        (SILENT, "good cannot be read (Connection failed"),
        (STALLS, "good cannot be read (Connection timed out"),
    ],
)
def test_apt(bad: str, kind: str, said: str, refused: Refused, tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    there = f"{bad}/{kind}"
    archive = AptArchive("a", ("good",), mirror=there, security_mirror=there, keyring=keyring)
    assert said in refused(Kernel("k", AptSpec("a", "*")), archive)


@rpm_repository.needed
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "HTTP status 404"),
        (LOOP, "it redirects without end (HTTP status 302)"),
        (SILENT, "no answer within"),
        (STALLS, "the server sent nothing for"),
        (TRICKLES, "bytes arrived in"),
    ],
)
def test_dnf(bad: str, kind: str, said: str, refused: Refused, tmp_path: Path) -> None:
    keyring = tmp_path / "key"
    keyring.write_bytes(b"\x99 begins a key; nothing comes that it could check")
    archive = DnfArchive("d", ("BaseOS",), mirror=f"{bad}/{kind}", keyring=keyring)
    assert said in refused(Kernel("k", DnfSpec("d", "*")), archive)


@oci_registry.needed
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "404"),
        (LOOP, "stopped after 10 redirects"),
        (SILENT, "the registry took over 1 s"),
        (STALLS, "the registry took over 1 s"),
        (TRICKLES, "the registry took over 1 s"),
    ],
)
def test_oci(bad: str, kind: str, said: str, refused: Refused) -> None:
    archive = OciArchive("o", (f"{bad.removeprefix('http://')}/{kind}/kernels",))
    assert said in refused(Kernel("k", OciSpec("o", "*")), archive)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "HTTP status 404"),
        (LOOP, "it redirects without end (HTTP status 302)"),
        (SILENT, "no answer within"),
        (STALLS, "the server sent nothing for"),
        (TRICKLES, "bytes arrived in"),
    ],
)
def test_mainlines_list_of_tags(
    bad: str, kind: str, said: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMTEST_MAINLINE_MIRROR", f"{bad}/{kind}")
    kernel = Kernel("k", MainlineSpec("mainline", "6.6.*"))
    with pytest.raises(KernelUnavailable, match="mainline cannot be read") as caught:
        source_for(kernel, {}).resolve(kernel, store)
    assert said in str(caught.value)


def test_a_kernel_of_mainline_that_stands_still_is_given_up(
    bad: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "_PATIENCE", 1.0)
    monkeypatch.setenv("VMTEST_MAINLINE_MIRROR", f"{bad}/{TRICKLES}")
    kernel = Kernel("k", MainlineSpec("mainline", "v6.6.17"))
    source = source_for(kernel, {})
    with pytest.raises(KernelUnavailable, match=r"k: .*next to nothing arrived in 1 s"):
        source.fetch(source.resolve(kernel, store), store)
    assert store.entries() == []


def test_a_name_that_the_resolver_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: Noticed
) -> None:
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setattr("vmtest.kernels.files.download._TIMEOUT", 0.1)
    monkeypatch.setenv("no_proxy", "*")
    answered = Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments, **options: answered.wait())
    with (
        noticed.here(),
        pytest.raises(KernelUnavailable, match=r"no answer within .*\(4 attempts\)"),
    ):
        download("http://nobody.example/file", tmp_path / "file", "k")
    answered.set()


def test_a_program_that_downloads_nothing_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "_PATIENCE", 0.2)
    (tmp_path / "into").mkdir()
    argv = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with pytest.raises(growing.Stalled):
        growing.run(argv, tmp_path / "into", tmp_path / "log")
    child = int((tmp_path / "log").read_text())
    assert not Path(f"/proc/{child}").exists()


def test_a_program_whose_folder_grows_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "_POLL", 0.01)
    monkeypatch.setattr(growing, "_PATIENCE", 0.02)
    monkeypatch.setattr(growing, "_LEAST", 1)
    file = tmp_path / "arriving"

    def arrive() -> None:  # something did whenever it looks, however slow the host is
        with file.open("a") as arriving:
            arriving.write("x")

    wait = f"import os, time\nwhile os.stat({str(file)!r}).st_size < 50: time.sleep(0.01)"
    arrive()
    status = growing.run([sys.executable, "-c", wait], tmp_path, tmp_path / "log", seen=arrive)
    assert status == 0


def test_locking_says_what_it_waits_for(bad: str, tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text(
        'schema = 1\n[[kernel]]\nname = "up"\nmainline = "v6.6.17"\n'
    )
    environment = {"VMTEST_CACHE": str(tmp_path / "c"), "VMTEST_MAINLINE_MIRROR": f"{bad}/{GONE}"}
    said = vmtest("kernels", "lock", cwd=tmp_path, environment=environment)
    said.refuses(3, "up: fetching mainline v6.6.17", "error: 404")

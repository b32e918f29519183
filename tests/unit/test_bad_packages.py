"""Archives whose index is good and of whose packages nothing can be had: said in time, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import oci_registry
import pytest
import rpm_repository
import signed_archive
from bad_server import GONE, LOOP, SILENT, STALLS, TRICKLES, VANISHES
from http_files import Served, serving
from rpm_repository import Keys
from test_mainline_source import PLACE, image_path, pool, served
from test_mainline_source import fetch as fetch_mainline
from test_oci_source import World, ci_kernel, world

from vmtest.errors import KernelUnavailable
from vmtest.host import attempts
from vmtest.kernels import source_for
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

__all__ = ["pool", "served", "world"]


Hurry = Callable[[str], None]
"""From now on nobody waits long for what is bad in that way, and comes in no other."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> Hurry:
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setattr("vmtest.kernels.debian.suite._PAUSE", 0.0)
    monkeypatch.setattr("vmtest.kernels.oci.source._PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def now(kind: str) -> None:
        if kind in (SILENT, STALLS, TRICKLES):
            monkeypatch.setattr("vmtest.kernels.files.download._TIMEOUT", 0.5)
            monkeypatch.setattr("vmtest.kernels.files.download._WINDOW", 0.2)
            monkeypatch.setattr("vmtest.kernels.files.growing._PATIENCE", 1.0)

    return now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def refused(
    kernel: Kernel,
    store: Store,
    archive: AptArchive | DnfArchive | OciArchive,
    hurry: Callable[[], None],
) -> str:
    """What fetching says of a kernel that the index has; nothing is stored."""
    source = source_for(kernel, {archive.name: archive})
    resolved = source.resolve(kernel, store)
    hurry()
    with pytest.raises(KernelUnavailable) as caught:
        source.fetch(resolved, store)
    assert store.entries() == []
    said = str(caught.value)
    assert said.startswith("k: ") and "\n" not in said
    return said


def files_below(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {f"/{path.relative_to(folder)}": path.read_bytes() for path in found}


APT = Kernel("k", AptSpec("a", "6.1.*"))
DNF = Kernel("k", DnfSpec("d", "*"))
OCI = Kernel("k", OciSpec("o", "6.6.9"))


def of_apt(mirror: str, made: Path) -> AptArchive:
    keyring = made / "keyring.gpg"
    return AptArchive("a", ("good",), mirror=mirror, security_mirror=mirror, keyring=keyring)


@signed_archive.needed
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "the mirror does not have it"),
        (LOOP, "the mirror redirects without end"),
        (SILENT, "next to nothing arrived in 1 s"),
        (STALLS, "next to nothing arrived in 1 s"),
        (TRICKLES, "next to nothing arrived in 1 s"),
    ],
)
def test_apt(made: Path, kind: str, said: str, store: Store, hurry: Hurry) -> None:
    with serving(Served(files_below(made))) as server:
        server.bad[".deb"] = kind
        text = refused(APT, store, of_apt(server.url, made), partial(hurry, kind))
    assert f"linux-image-6.1.10-amd64 6.1.10-1 from good failed: {said}; nothing was" in text
    assert text.endswith(
        "check the network and the mirror (kernels.toml: [apt.a] mirror) and try again"
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A signed repository, and the key."""
    folder = tmp_path_factory.mktemp("rpm")
    keys = Keys(folder / "gnupg")
    place = folder / "mirror/BaseOS"
    place.mkdir(parents=True)
    for made in rpm_repository.split("5.14.0", "427.9.1.el9_4"):
        rpm_repository.build(made, folder / "trees", place)
    rpm_repository.publish(place)
    keys.sign_metadata(place)
    yield folder / "mirror", keys.public
    keys.close()


@rpm_repository.needed
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "HTTP status 404"),
        (LOOP, "it redirects without end (HTTP status 302)"),
        (SILENT, "no answer within"),
        (STALLS, "the server sent nothing for"),
        (TRICKLES, "only "),
    ],
)
def test_dnf(
    repository: tuple[Path, Path], kind: str, said: str, store: Store, hurry: Hurry
) -> None:
    mirror, key = repository
    with serving(Served(files_below(mirror))) as server:
        server.bad[".rpm"] = kind
        archive = DnfArchive("d", ("BaseOS",), mirror=server.url, keyring=key)
        text = refused(DNF, store, archive, partial(hurry, kind))
    assert f"BaseOS/kernel-core-5.14.0-427.9.1.el9_4.x86_64.rpm failed: {said}" in text
    assert "nothing was stored: check the address, the network and the proxy settings" in text


@oci_registry.needed
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "404"),
        (LOOP, "stopped after 10 redirects"),
        (SILENT, "next to nothing arrived in 1 s"),
        (STALLS, "next to nothing arrived in 1 s"),
        (TRICKLES, "next to nothing arrived in 1 s"),
    ],
)
def test_oci(world: World, kind: str, said: str, store: Store, hurry: Hurry) -> None:
    world.push("6.6.9", ci_kernel("6.6.9"))
    with oci_registry.stumbling(world.host, kind) as host:
        archive = OciArchive("o", (f"{host}/team/kernels",))
        text = refused(OCI, store, archive, partial(hurry, kind))
    assert f"downloading {host}/team/kernels 6.6.9 failed: " in text and said in text
    assert "check the network and the registry (kernels.toml: [oci.o] image) and try" in text
    assert "\\" not in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GONE, "404"),
        (LOOP, ": Exceeded 30 redirects"),
        (SILENT, "next to nothing arrived in 1 s"),
        (STALLS, "next to nothing arrived in 1 s"),
        (TRICKLES, "next to nothing arrived in 1 s"),
    ],
)
def test_mainline(served: Served, kind: str, said: str, store: Store, hurry: Hurry) -> None:
    hurry(kind)
    served.bad[image_path(served)] = kind
    with pytest.raises(KernelUnavailable) as caught:
        fetch_mainline(store)
    text = str(caught.value)
    assert (
        text.startswith("upstream: virtme-ng could not download v6.6.17 from http") and said in text
    )
    assert "check the version, the network and the proxy settings" in text
    assert "requests." not in text and store.entries() == []


@signed_archive.needed
def test_a_mirror_of_apt_that_vanishes_within_a_package(made: Path, store: Store) -> None:
    """Each attempt that finds nobody is told."""
    with serving(Served(files_below(made))) as server, attempts.kept() as lines:
        server.bad[".deb"] = VANISHES
        text = refused(APT, store, of_apt(server.url, made), lambda: None)
    assert "6.1.10-1 from good failed: Could not connect to 127.0.0.1" in text
    assert "Connection refused" in text and text.endswith("and try again")
    assert [line.rpartition("(")[2] for line in lines] == ["attempt 2 of 3)", "attempt 3 of 3)"]


@rpm_repository.needed
def test_a_mirror_of_dnf_that_vanishes_within_a_package(
    repository: tuple[Path, Path], store: Store
) -> None:
    mirror, key = repository
    with serving(Served(files_below(mirror))) as server, attempts.kept() as lines:
        server.bad[".rpm"] = VANISHES
        archive = DnfArchive("d", ("BaseOS",), mirror=server.url, keyring=key)
        text = refused(DNF, store, archive, lambda: None)
    assert "427.9.1.el9_4.x86_64.rpm failed: Connection refused (4 attempts); nothing was" in text
    assert "the connection ended after 1 of " in lines[0] and len(lines) == 3


@oci_registry.needed
def test_a_registry_that_vanishes_within_a_layer(world: World, store: Store) -> None:
    world.push("6.6.9", ci_kernel("6.6.9"))
    with oci_registry.stumbling(world.host, VANISHES) as host, attempts.kept() as lines:
        archive = OciArchive("o", (f"{host}/team/kernels",))
        text = refused(OCI, store, archive, lambda: None)
    assert "connection refused (3 attempts); nothing was stored: check the network" in text
    assert "unexpected EOF; it is tried again" in lines[0] and len(lines) == 2


def test_a_mirror_of_mainline_that_vanishes_within_a_package(served: Served, store: Store) -> None:
    served.bad[image_path(served)] = VANISHES
    with pytest.raises(KernelUnavailable) as caught:
        fetch_mainline(store)
    text = str(caught.value)
    assert re.search(r"6\.17 from http://\S+: Connection broken: .* expected\); nothing was", text)
    assert store.entries() == []


@signed_archive.needed
def test_a_mirror_of_apt_whose_name_is_gone_once_its_index_was_read(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    where = "http://mirror.invalid"
    files = {f"{where}{path}": data for path, data in files_below(made).items()}
    with serving(Served(files)) as proxy, attempts.kept() as lines:
        monkeypatch.setenv("http_proxy", proxy.url)
        text = refused(APT, store, of_apt(where, made), lambda: monkeypatch.delenv("http_proxy"))
    assert re.search(r"from good failed: (Could not resolve|Temporary failure)", text)
    assert "'mirror.invalid'; nothing was stored: check the network" in text and len(lines) == 2


@rpm_repository.needed
def test_a_mirror_of_dnf_whose_name_is_gone_once_its_index_was_read(
    repository: tuple[Path, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    mirror, key = repository
    where = "http://mirror.invalid"
    files = {f"{where}{path}": data for path, data in files_below(mirror).items()}
    with serving(Served(files)) as proxy, attempts.kept() as lines:
        monkeypatch.setenv("http_proxy", proxy.url)
        archive = DnfArchive("d", ("BaseOS",), mirror=where, keyring=key)
        text = refused(DNF, store, archive, lambda: monkeypatch.delenv("http_proxy"))
    assert re.search(r"rpm failed: (Name or service|Temporary failure).* \(4 attempts\);", text)
    assert len(lines) == 3


@pytest.mark.parametrize("kind", [LOOP, SILENT, STALLS, TRICKLES])
def test_checksums_of_mainline_that_cannot_be_read_are_not_done_without(
    served: Served, kind: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.files.download._TIMEOUT", 0.5)
    monkeypatch.setattr("vmtest.kernels.files.download._WINDOW", 0.2)
    served.bad[f"{PLACE}/CHECKSUMS"] = kind
    with pytest.raises(KernelUnavailable) as caught:
        fetch_mainline(store)
    assert "CHECKSUMS failed: " in str(caught.value) and store.entries() == []


def test_a_list_of_tags_that_always_breaks_off_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = "".join(f'<a href="v6.6.{n}/">v6.6.{n}/</a>\n' for n in range(40)).encode()
    with serving(Served({"/": tags}, ranges=False, cut=[100] * 9)) as server:
        monkeypatch.setenv("VMTEST_MAINLINE_MIRROR", server.url)
        kernel = Kernel("k", MainlineSpec("mainline", "6.6.*"))
        with pytest.raises(KernelUnavailable, match=r"the connection ended after 100 of \d+ bytes"):
            source_for(kernel, {}).resolve(kernel, store)


@signed_archive.needed
def test_an_index_of_apt_that_comes_a_byte_at_a_time_is_given_up(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.debian.suite._UPDATE_LIMIT", 3.0)
    with serving(Served(files_below(made), bad={"InRelease": TRICKLES})) as server:
        there = server.url
        archive = AptArchive("a", ("good",), mirror=there, security_mirror=there)
        archive = replace(archive, keyring=made / "keyring.gpg")
        kernel = Kernel("k", AptSpec("a", "6.1.*"))
        with pytest.raises(KernelUnavailable, match=r"good .*reading its index took over"):
            source_for(kernel, {"a": archive}).resolve(kernel, store)

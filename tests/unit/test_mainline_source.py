"""Mainline kernels: virtme-ng's real download from a local HTTP server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import signed_archive
from command import vmtest
from http_files import Served, serving

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import find_tool
from vmtest.kernels import archive_source, source_for
from vmtest.kernels.lock import file as lockfile
from vmtest.kernels.mainline import _reason
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Kernel, KernelImage, LockedSpec, MainlineArchive, MainlineSpec

pytestmark = pytest.mark.skipif(
    find_tool("dpkg-deb") is None or find_tool("depmod") is None,
    reason="dpkg-deb or depmod is not installed on this host",
)

KERNEL = Kernel("upstream", MainlineSpec("mainline", "v6.6.17"))
BUILD = "6.6.17-060617"
PLACE = "/v6.6.17/amd64"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    version = f"{BUILD}.202402161033"
    for name, kind in (
        (f"linux-image-unsigned-{BUILD}-generic", "whole"),
        (f"linux-image-unsigned-{BUILD}-lowlatency", "whole"),
        (f"linux-headers-{BUILD}-generic", "base"),
    ):
        signed_archive.deb(folder, folder / "trees", name, version, {}, kind)
    return folder / "pool"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def served(pool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    files = {file.name: file.read_bytes() for file in pool.iterdir()}
    links = "".join(f'<a href="{name}">{name}</a>\n' for name in files)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {n}\n" for n, data in files.items())
    pages = {PLACE: links.encode(), f"{PLACE}/CHECKSUMS": f"# sha256\n{sums}".encode()}
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Served({**{f"{PLACE}/{n}": d for n, d in files.items()}, **pages})) as server:
        monkeypatch.setenv("VMTEST_MAINLINE_MIRROR", server.url)
        yield server


def fetch(store: Store) -> KernelImage:
    source = source_for(KERNEL, {})
    return source.fetch(source.resolve(KERNEL, store), store)


def image_path(served: Served) -> str:
    return next(p for p in served.files if "image" in p and "generic" in p)


def nothing_is_left(store: Store) -> bool:
    return store.entries() == [] and list((store.root / "tmp").iterdir()) == []


def test_virtme_ngs_download_becomes_a_kernel_in_the_store(served: Served, store: Store) -> None:
    image = fetch(store)
    assert (image.name, image.release) == ("upstream", f"{BUILD}-generic")
    assert str(image.version) == "6.6.17"
    assert image.modules is not None and (image.modules / "modules.dep").is_file()
    assert image.note == ""
    assert list((store.root / "tmp").iterdir()) == []


def test_resolving_asks_nobody(served: Served, store: Store) -> None:
    resolved = source_for(KERNEL, {}).resolve(KERNEL, store)
    assert (str(resolved.version), resolved.cached, resolved.digest) == ("6.6.17", False, "")
    assert served.asked == []


def test_a_second_fetch_asks_nobody(served: Served, store: Store) -> None:
    first = fetch(store)
    served.asked.clear()
    assert fetch(store) == first
    resolved = source_for(KERNEL, {}).resolve(KERNEL, store)
    assert resolved.cached and resolved.digest == first.digest != ""
    assert served.asked == []


def test_a_truncated_file_is_refused_and_the_next_attempt_works(
    served: Served, store: Store
) -> None:
    path = image_path(served)
    whole = served.files[path]
    served.files[path] = whole[:-100]
    with pytest.raises(KernelUnavailable, match=r"^upstream: "):
        fetch(store)
    assert nothing_is_left(store)
    served.files[path] = whole
    assert fetch(store).release == f"{BUILD}-generic"


def test_other_bytes_than_checksums_says_are_refused(served: Served, store: Store) -> None:
    sums = served.files[f"{PLACE}/CHECKSUMS"].decode()
    wrong = "".join(f"{'0' * 64}{line[64:]}\n" for line in sums.splitlines())
    served.files[f"{PLACE}/CHECKSUMS"] = wrong.encode()
    with pytest.raises(KernelUnavailable, match=r"is damaged: .* CHECKSUMS says 0000"):
        fetch(store)
    assert nothing_is_left(store)


def test_a_file_that_checksums_does_not_know_is_refused(served: Served, store: Store) -> None:
    served.files[f"{PLACE}/CHECKSUMS"] = b""
    with pytest.raises(KernelUnavailable, match="CHECKSUMS says nothing of it"):
        fetch(store)


def test_an_archive_without_checksums_is_used_with_a_note(served: Served, store: Store) -> None:
    del served.files[f"{PLACE}/CHECKSUMS"]
    assert fetch(store).note == "its archive has no CHECKSUMS: only checked by unpacking"


def test_a_version_that_nobody_built_is_said_with_the_place(served: Served, store: Store) -> None:
    served.files.clear()
    with pytest.raises(KernelUnavailable) as caught:
        fetch(store)
    assert f"could not download v6.6.17 from {served.url}: " in str(caught.value)
    assert "error: 404" in str(caught.value) and "VMTEST_MAINLINE_MIRROR" in str(caught.value)


def test_a_server_that_cannot_be_reached_is_said_in_a_line(
    served: Served, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMTEST_MAINLINE_MIRROR", "http://127.0.0.1:1")
    with pytest.raises(KernelUnavailable, match="Connection refused; nothing was stored") as caught:
        fetch(store)
    assert "\n" not in str(caught.value)
    assert nothing_is_left(store)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Traceback\nFileNotFoundError: failed, error: 404\n", "failed, error: 404"),
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='m', port=443): Max "
            "retries exceeded (Caused by NewConnectionError('<x>: Failed: [Errno 111] refused'))",
            "Failed: [Errno 111] refused",
        ),
        ("", "it says nothing"),
    ],
)
def test_why_it_ended_in_a_line(text: str, reason: str) -> None:
    assert _reason(text) == reason


def test_locking_fetches_what_only_then_has_a_digest(
    served: Served, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMTEST_CACHE", str(store.root))
    text = 'schema = 1\n[[kernel]]\nname = "up"\nmainline = "v6.6.17"\n'
    (tmp_path / "kernels.toml").write_text(text)
    assert vmtest("kernels", "lock", cwd=tmp_path).status == 0
    (entry,) = store.entries()
    assert lockfile.read(tmp_path / "kernels.lock")["up"].digest == entry.manifest.digest
    assert vmtest("kernels", "fetch", "--locked", cwd=tmp_path).status == 0


# --- the list of tags ---

LISTING = b"""<table><a href="?C=N">Name</a> <a href="daily/">daily/</a>
<a href="v6.6/">v6.6/</a> <a href="v6.6.9/">v6.6.9/</a> <a href="v6.6.17/">v6.6.17/</a>
<a href="v6.7-rc2/">v6.7-rc2/</a> <a href="v6.7-rc10/">v6.7-rc10/</a></table>"""


def pattern(version: str) -> Kernel:
    return Kernel("upstream", MainlineSpec("mainline", version))


@pytest.fixture
def listed(served: Served) -> Served:
    served.files["/"] = LISTING
    return served


@pytest.mark.parametrize(
    ("version", "tag"), [("6.6.*", "v6.6.17"), ("*", "v6.7-rc10"), ("6.*", "v6.7-rc10")]
)
def test_a_pattern_is_the_newest_tag_of_its_series(
    listed: Served, store: Store, version: str, tag: str
) -> None:
    found = source_for(pattern(version), {}).resolve(pattern(version), store)
    assert (found.key, found.origin) == (f"mainline-{tag}", f"mainline {tag}")


def test_a_pattern_is_fetched_and_locked_as_the_tag_that_it_was(
    listed: Served, store: Store
) -> None:
    source = source_for(pattern("6.6.*"), {})
    image = source.fetch(source.resolve(pattern("6.6.*"), store), store)
    assert image.release == f"{BUILD}-generic"
    found = source.resolve(pattern("6.6.*"), store)
    assert found.cached and found.digest == image.digest
    entry = lockfile.entry_of(found, store.root)
    (pinned,) = lockfile.pin([pattern("6.6.*")], {"upstream": entry}, store.root)
    assert isinstance(pinned.spec, LockedSpec)
    assert pinned.spec.exact == MainlineSpec("mainline", "v6.6.17")


def test_a_listing_has_no_size_that_nobody_knows(
    listed: Served, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'schema = 1\n[[kernel]]\nname = "up"\nmainline = "6.6.*"\n'
    (tmp_path / "kernels.toml").write_text(text)
    environment = {"VMTEST_CACHE": str(store.root)}
    for command in (("available",), ("list",)):
        said = vmtest("kernels", *command, cwd=tmp_path, environment=environment)
        assert said.status == 0 and " MB" not in said.out.partition("store:")[0], said
    said = vmtest("kernels", "available", "--json", cwd=tmp_path, environment=environment)
    assert {row["download_bytes"] for row in json.loads(said.out)["kernels"]} == {None}


def test_a_series_that_is_not_there_is_said_with_its_neighbours(
    listed: Served, store: Store
) -> None:
    with pytest.raises(KernelUnavailable, match=r"no kernel 5\.15\.\* in mainline.*6\.6\.17"):
        source_for(pattern("5.15.*"), {}).resolve(pattern("5.15.*"), store)


def test_a_place_without_tags_is_named(served: Served, store: Store) -> None:
    served.files["/"] = b"<html>It works!</html>"
    with pytest.raises(KernelUnavailable, match="has no list of tags"):
        source_for(pattern("*"), {}).resolve(pattern("*"), store)


def test_tags_are_listed_and_bisected_in_upstreams_order(listed: Served, store: Store) -> None:
    source = archive_source(MainlineArchive())
    offer = source.offer(store)
    assert [c.version.text for c in offer.candidates] == [
        "v6.6",
        "v6.6.9",
        "v6.6.17",
        "v6.7-rc2",
        "v6.7-rc10",
    ]
    found = source.between("6.6.9", "6.7-rc2", pattern(""), store)
    assert [one.name for one in found.kernels] == ["6.6.9", "6.6.17", "6.7-rc2"]
    assert found.kernels[0].spec == MainlineSpec("mainline", "v6.6.9", ("mainline",))

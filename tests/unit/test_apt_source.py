"""The apt source against the real apt and a tiny signed archive, without a network.

``signed_archive`` makes it; its suites are good, expired (past its Valid-Until) and
stranger (signed by a key that nobody trusts).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import signed_archive
import small_disk
from http_files import Served, serving

from vmtest.errors import InfrastructureError, KernelUnavailable, UsageError
from vmtest.host import attempts
from vmtest.host.debian import Mirror
from vmtest.kernels import source_for
from vmtest.kernels.archive import kept
from vmtest.kernels.archive.kept import SuiteUnreadable
from vmtest.kernels.archive.source import OutOfOrder
from vmtest.kernels.debian.source import AptSource
from vmtest.kernels.debian.suite import SuiteState, _reason
from vmtest.kernels.resolve import resolve_all
from vmtest.kernels.store.store import Manifest, Resolution, Store
from vmtest.model.kernels import AptArchive, AptSpec, Kernel
from vmtest.model.project import Config

pytestmark = signed_archive.needed


@pytest.fixture
def mirror(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the archive that a test may break."""
    monkeypatch.delenv("VMTEST_DEBIAN_MIRROR", raising=False)
    monkeypatch.delenv("VMTEST_DEBIAN_SECURITY_MIRROR", raising=False)
    monkeypatch.setattr("vmtest.kernels.debian.suite._PAUSE", 0.0)
    yield Path(shutil.copytree(made, tmp_path / "mirror"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def archive(mirror: Path, *suites: str, **changes: Any) -> AptArchive:
    options: dict[str, object] = {
        "suites": suites or ("good",),
        "mirror": f"file:{mirror}",
        "security_mirror": f"file:{mirror}",
        "keyring": mirror / "keyring.gpg",
    }
    return AptArchive("debian", **{**options, **changes})


def kernel(version: str, *suites: str) -> Kernel:
    return Kernel("under-test", AptSpec("debian", version, suites))


def forget_ages(store: Store) -> None:
    """Make every index old and every failure forgotten."""
    for stamp in store.root.glob("apt/*/refreshed.json"):
        stamp.write_text(json.dumps({"when": time.time() - 7200}))
    for failure in store.root.glob("apt/*/failed.json"):
        failure.unlink()


def test_a_pattern_resolves_to_the_newest_without_downloading(mirror: Path, store: Store) -> None:
    resolved = AptSource(archive(mirror)).resolve(kernel("6.1.*"), store)
    assert resolved.version.text == "6.1.10-1"
    assert resolved.origin == "debian good: linux-image-6.1.10-amd64 6.1.10-1"
    assert not resolved.cached and resolved.size > 0 and resolved.note == ""
    assert store.entries() == []


def test_fetch_makes_an_entry_that_virtme_ng_can_boot(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    seen: list[tuple[int, int]] = []
    resolved = source.resolve(kernel("6.1.*"), store)
    image = source.fetch(resolved, store, lambda done, total: seen.append((done, total)))
    root = image.image.parents[1]
    assert image.image == root / "boot/vmlinux-6.1.10-amd64"
    assert image.image.read_bytes().startswith(b"\x7fELF")
    assert image.modules == root / "lib/modules/6.1.10-amd64"
    assert (image.modules / "modules.dep").is_file()
    assert image.config is not None and "CONFIG_BPF_SYSCALL=y" in image.config.read_text()
    assert image.version.text == "6.1.10-1" and image.name == "under-test"
    assert seen[-1] == (resolved.size, resolved.size)
    kept = {p.relative_to(root).as_posix().split("/")[0] for p in root.rglob("*")}
    assert kept == {"boot", "lib", "entry.json", "seal.json"}
    assert sorted(p.name for p in (root / "boot").iterdir()) == [
        "config-6.1.10-amd64",
        "vmlinux-6.1.10-amd64",
        "vmlinuz-6.1.10-amd64",
    ]


def test_a_kernel_in_three_packages_becomes_one_entry(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    image = source.fetch(source.resolve(kernel("*"), store), store)
    assert image.release == "7.2.6-amd64"
    assert image.config is not None and image.modules is not None
    assert (image.modules / "modules.builtin").is_file()


def test_a_second_fetch_needs_no_archive(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.*"), store)
    first = source.fetch(resolved, store)
    shutil.rmtree(mirror / "pool")
    assert source.fetch(resolved, store).image == first.image
    assert source.resolve(kernel("6.1.*"), store).cached


def test_a_kernel_whose_modules_are_gone_is_refused_by_name(mirror: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable) as caught:
        AptSource(archive(mirror)).resolve(kernel("7.1.13"), store)
    assert str(caught.value) == (
        "under-test: 7.1.13 (good): its linux-modules package is no longer in the index; "
        "nearest bootable: 6.1.9 (good), 6.1.10 (good), 7.2.6 (good)"
    )


def test_a_version_that_matches_nothing_names_the_nearest(mirror: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable) as caught:
        AptSource(archive(mirror)).resolve(kernel("6.12.*"), store)
    assert str(caught.value) == (
        "under-test: no kernel 6.12.* in good; nearest: 6.1.10 (good), 7.2.6 (good)"
    )


def test_a_series_written_as_a_version_gets_a_hint(mirror: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r'write "6\.1\.\*"'):
        AptSource(archive(mirror)).resolve(kernel("6.1"), store)


def test_an_expired_suite_fails_alone(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror, "good", "expired"))
    resolved = source.resolve(kernel("6.1.*"), store)
    assert resolved.version.text == "6.1.10-1"
    assert "expired cannot be read (its Release file expired" in resolved.note


def test_a_kernel_of_an_expired_suite_is_unavailable_and_the_cure_named(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror, "good", "expired"))
    with pytest.raises(KernelUnavailable) as caught:
        source.resolve(kernel("*", "expired"), store)
    assert "expired cannot be read (its Release file expired" in str(caught.value)
    assert "check_valid_until = false in [apt.debian]" in str(caught.value)


def test_an_expired_suite_is_used_when_the_configuration_says_so(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror, "expired", check_valid_until=False))
    assert source.resolve(kernel("*"), store).version.text == "7.2.6-1"


def test_a_suite_signed_by_a_stranger_is_not_believed(mirror: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"stranger cannot be read.*signature.*NO_PUBKEY"):
        AptSource(archive(mirror, "stranger")).resolve(kernel("*"), store)


def test_a_suite_that_nobody_signed_is_not_believed(mirror: Path, store: Store) -> None:
    suite = mirror / "dists/good"
    lines = (suite / "InRelease").read_text().splitlines(keepends=True)
    begin = lines.index("\n") + 1
    end = next(n for n, line in enumerate(lines) if "BEGIN PGP SIGNATURE" in line)
    (suite / "Release").write_text("".join(lines[begin:end]))
    (suite / "InRelease").unlink()
    with pytest.raises(KernelUnavailable, match=r"good cannot be read .*not signed"):
        AptSource(archive(mirror)).resolve(kernel("*"), store)


@pytest.mark.parametrize("name", ["InRelease", "Packages"])
def test_a_truncated_index_of_the_mirror_is_refused(name: str, mirror: Path, store: Store) -> None:
    for file in (mirror / "dists/good").rglob(f"{name}*"):
        file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(KernelUnavailable, match=r"good cannot be read .*(not signed|Hash Sum)"):
        AptSource(archive(mirror)).resolve(kernel("*"), store)


def test_a_suite_that_is_gone_fails_alone(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror, "good", "absent"))
    assert source.resolve(kernel("6.1.*"), store).version.text == "6.1.10-1"
    with pytest.raises(KernelUnavailable, match="absent cannot be read"):
        source.resolve(kernel("*", "absent"), store)


def test_the_stored_kernel_of_a_suite_that_has_gone_goes_on_working(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror))
    first = source.fetch(source.resolve(kernel("*"), store), store)
    shutil.rmtree(mirror / "dists/good")
    forget_ages(store)
    resolved = source.resolve(kernel("*"), store)
    assert resolved.cached
    assert "good cannot be read" in resolved.note and "stored kernel is used" in resolved.note
    again = source.fetch(resolved, store)
    assert again.image == first.image
    assert "good cannot be read" in again.note


def stored(store: Store, version: str) -> None:
    """As if ``version`` had been resolved for "*" and fetched when both suites were there."""

    def fill(entry: Path) -> Manifest:
        (entry / "image").write_bytes(b"kernel")
        return Manifest(version, "6.1", "image", None, None, "", "debian absent: x")

    store.add(version, fill)
    question = ["apt", "debian", "*", ["good", "absent"]]
    store.remember(question, Resolution(version, version, "debian absent: x"))


def test_a_newer_stored_kernel_goes_before_an_older_one_of_another_suite(
    mirror: Path, store: Store
) -> None:
    stored(store, "9.9.9-1")
    resolved = AptSource(archive(mirror, "good", "absent")).resolve(kernel("*"), store)
    assert resolved.version.text == "9.9.9-1" and resolved.cached
    assert "absent cannot be read" in resolved.note


def test_an_older_stored_kernel_does_not(mirror: Path, store: Store) -> None:
    stored(store, "5.5.5-1")
    resolved = AptSource(archive(mirror, "good", "absent")).resolve(kernel("*"), store)
    assert resolved.version.text == "7.2.6-1" and not resolved.cached


def test_a_pinned_kernel_in_the_store_is_not_asked_for_again(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    source.fetch(source.resolve(kernel("6.1.9-1"), store), store)
    shutil.rmtree(mirror)
    shutil.rmtree(store.root / "apt")
    mirrorless = AptSource(AptArchive("debian", ("good",)))
    resolved = mirrorless.resolve(kernel("6.1.9-1"), store)
    assert resolved.cached and resolved.note == ""


def test_a_pinned_kernel_that_left_the_index_goes_on_working(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    source.fetch(source.resolve(kernel("6.1.9"), store), store)
    for index in store.root.glob("apt/*/lists/*_Packages"):
        text = index.read_text()
        index.unlink()  # apt links to the archive's own
        index.write_text(text.replace("6.1.9", "6.1.8"))
    (refreshed,) = store.root.glob("apt/*/refreshed.json")
    refreshed.write_text(json.dumps({"when": time.time()}))  # as if apt had brought it
    resolved = source.resolve(kernel("6.1.9"), store)
    assert resolved.cached and "no longer in the index" in resolved.note


def test_a_truncated_package_is_refused(mirror: Path, store: Store) -> None:
    package = mirror / "pool/linux-image-6.1.10-amd64_6.1.10-1_amd64.deb"
    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.*"), store)
    package.write_bytes(package.read_bytes()[:-100])
    with pytest.raises(KernelUnavailable, match=r"downloading linux-image-6\.1\.10-amd64") as e:
        source.fetch(resolved, store)
    assert "nothing was stored" in str(e.value)
    assert store.get(resolved.key) is None
    assert list((store.root / "tmp").iterdir()) == []


def test_a_package_with_other_bytes_is_refused(mirror: Path, store: Store) -> None:
    package = mirror / "pool/linux-image-6.1.10-amd64_6.1.10-1_amd64.deb"
    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.*"), store)
    data = bytearray(package.read_bytes())
    data[-50] ^= 1
    package.write_bytes(bytes(data))
    with pytest.raises(KernelUnavailable, match="nothing was stored"):
        source.fetch(resolved, store)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "W: Download is performed unsandboxed as root as file '/x' couldn't be accessed\n"
            "E: Failed to fetch http://m.example/x.deb  Connection failed [IP: 192.0.2.1 80]\n",
            "Connection failed [IP: 192.0.2.1 80]",
        ),
        (
            "W: Failed to fetch http://m.example/a/InRelease  Temporary failure resolving 'm'\n"
            "W: Some index files failed to download. They have been ignored.\n",
            "Temporary failure resolving 'm'",
        ),
        (
            "E: The repository 'http://m.example/debian a Release' does not have a Release file.\n",
            "the mirror does not have it",
        ),
        (
            "E: Failed to fetch http://m.example/x  404  Not Found [IP: 192.0.2.1 80]\n",
            "the mirror does not have it",
        ),
        ("", ""),
    ],
)
def test_apts_words_become_a_reason(output: str, reason: str) -> None:
    assert _reason(output) == reason


@pytest.fixture
def web(mirror: Path) -> Iterator[Served]:
    """The archive over HTTP, and a server that may refuse."""
    files = {
        f"/{path.relative_to(mirror)}": path.read_bytes()
        for path in mirror.rglob("*")
        if path.is_file()
    }
    with serving(Served(files)) as served:
        yield served


def index_of(web: Served, mirror: Path, cache: Path) -> SuiteState:
    return SuiteState(cache, "good", Mirror(web.url, str(mirror / "keyring.gpg"), "here"))


@pytest.mark.parametrize(
    ("status", "reason", "transient"),
    [
        (503, "the mirror answers with HTTP status 503 Service Unavailable", True),
        (500, "the mirror answers with HTTP status 500 Internal Server Error", True),
        (429, "the mirror answers with HTTP status 429 Too Many Requests", True),
        (403, "the mirror answers with HTTP status 403 Forbidden", False),
        (401, "the mirror answers with HTTP status 401 Unauthorized", False),
        (410, "the mirror does not have it", False),
        (404, "the mirror does not have it", False),
    ],
)
def test_a_refused_inrelease_is_no_bad_signature(
    web: Served, mirror: Path, tmp_path: Path, status: int, reason: str, transient: bool
) -> None:
    web.refused = {"InRelease": status, "Release": status}
    with pytest.raises(SuiteUnreadable) as caught:
        index_of(web, mirror, tmp_path).index(0.0)
    assert (str(caught.value), caught.value.transient) == (reason, transient)


def test_an_index_that_comes_at_the_second_attempt_is_told(
    web: Served, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt's own attempts would say nothing."""
    monkeypatch.setattr("vmtest.kernels.debian.suite._PAUSE", 0.0)
    web.statuses = [503]
    address = web.url.replace("://", "://me:hunter2@")
    state = SuiteState(tmp_path, "good", Mirror(address, str(mirror / "keyring.gpg"), "here"))
    lines: list[str] = []
    with attempts.told(lines.append):
        assert len(state.index(0.0).candidates) == 4
    assert lines == [
        f"reading the index of good at {web.url.replace('://', '://***@')} failed: the mirror "
        "answers with HTTP status 503 Service Unavailable; it is tried again (attempt 2 of 2)"
    ]


def test_an_index_that_is_read_for_several_kernels_is_told_and_noted(
    web: Served, mirror: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are resolved on threads of their own."""
    monkeypatch.setattr("vmtest.kernels.debian.suite._PAUSE", 0.0)
    web.statuses = [503]
    keyring = mirror / "keyring.gpg"
    from_web = AptArchive(
        "debian", ("good",), mirror=web.url, security_mirror=web.url, keyring=keyring
    )
    config = cast(Config, SimpleNamespace(archives={"debian": from_web}))
    lines: list[str] = []
    with attempts.told(lines.append):
        found, failed = resolve_all(config, [kernel("6.1.*")], store)
    (line,) = lines
    assert failed == {} and "it is tried again (attempt 2 of 2)" in line
    assert found["under-test"].note == line


def test_a_package_that_comes_at_the_third_attempt_is_told_twice(
    web: Served, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.debian.suite._PAUSE", 0.0)
    state = index_of(web, mirror, tmp_path)
    package = state.index(0.0).candidates[0].packages[0]
    web.statuses = [503, 503]
    into = tmp_path / "into"
    into.mkdir()
    lines: list[str] = []
    with attempts.told(lines.append):
        (file,) = state.download((package,), into, "6.1")
    assert file.stat().st_size == package.size
    assert lines == [
        f"6.1: downloading {package.name} from good at {web.url} failed: the mirror answers with "
        f"HTTP status 503 Service Unavailable; it is tried again (attempt {number} of 3)"
        for number in (2, 3)
    ]


def test_a_page_in_place_of_the_inrelease_is_no_bad_signature(
    web: Served, mirror: Path, tmp_path: Path
) -> None:
    web.files["/dists/good/InRelease"] = b"<html>Please log in</html>"
    with pytest.raises(SuiteUnreadable, match="perhaps the network wants a login"):
        index_of(web, mirror, tmp_path).index(0.0)


def test_a_full_folder_for_temporary_files_is_no_bad_signature(
    web: Served, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk.mounted(tmp_path / "small", "64k") as small:
        small.chmod(0o777)
        (small / "full").write_bytes(bytes(64 << 10))
        monkeypatch.setenv("TMPDIR", str(small))
        with pytest.raises(InfrastructureError, match=f"no space left in {small} "):
            index_of(web, mirror, tmp_path / "cache").index(0.0)


@pytest.mark.parametrize("free", [0, 4, 8], ids=lambda free: f"{free} KiB")
def test_a_disk_that_fills_while_the_index_is_read_is_named(
    web: Served, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr("vmtest.kernels.debian.suite.require_space", lambda *of: None)
    with small_disk.mounted(tmp_path / "small", "1m") as small:
        state = index_of(web, mirror, small)
        state._prepare()
        (small / "locks").mkdir()
        left = shutil.disk_usage(small).free
        (small / "other").write_bytes(bytes(max(0, left - free * 1024)))
        with pytest.raises(InfrastructureError, match=r"reading the index: no space left in"):
            state.index(0.0)


def test_a_mirror_that_was_mended_is_asked_by_the_next_command(
    web: Served, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = index_of(web, mirror, tmp_path)
    web.refused = {"InRelease": 404, "Release": 404}
    with pytest.raises(SuiteUnreadable):
        state.index(0.0)
    web.refused = {}
    with pytest.raises(SuiteUnreadable):
        state.index(0.0)  # the same command: it does not wait once more
    monkeypatch.setattr(kept, "_RUNNER", "another")
    assert len(state.index(0.0).candidates) == 4


def test_a_failure_that_is_not_asked_again_yet_says_so(
    web: Served, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_RECENT", 0.0)
    web.refused = {"InRelease": 404, "Release": 404}
    for words in ("does not have it$", r"does not have it \(0 s ago; it is asked again 60 s after"):
        with pytest.raises(SuiteUnreadable, match=words):
            index_of(web, mirror, tmp_path).index(0.0)


def test_a_progress_that_raises_ends_the_fetch_and_leaves_nothing(
    mirror: Path, store: Store
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.*"), store)
    with pytest.raises(KeyboardInterrupt):
        source.fetch(resolved, store, stop)
    assert store.entries() == []
    assert list((store.root / "tmp").iterdir()) == []


def test_the_index_is_not_read_again_before_it_is_old(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    source.resolve(kernel("*"), store)
    packages = (mirror / "dists/good/main/binary-amd64/Packages").read_bytes()
    shutil.rmtree(mirror / "dists")
    (mirror / "dists").mkdir()
    for index in store.root.glob("apt/*/lists/*_Packages"):
        index.with_suffix(".x").write_bytes(packages)
        index.unlink()
        index.with_suffix(".x").rename(index)
    assert source.resolve(kernel("*"), store).version.text == "7.2.6-1"


def test_the_hosts_apt_is_left_alone(mirror: Path, store: Store) -> None:
    AptSource(archive(mirror)).resolve(kernel("*"), store)
    text = next(store.root.glob("apt/*/apt.conf")).read_text()
    root = store.root
    for line in text.splitlines():
        if line.startswith("Dir::State") or line.startswith("Dir::Cache"):
            assert str(root) in line or line.endswith('"";')
    assert 'Dir::Etc::sourceparts "/dev/null";' in text
    assert "Post-Invoke" not in text


def test_without_a_mirror_the_error_is_the_users_to_mend(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VMTEST_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr("vmtest.host.debian.host_is", lambda distribution, os_release: False)
    with pytest.raises(UsageError, match="no Debian mirror is known"):
        AptSource(AptArchive("debian", ("good",))).resolve(kernel("*"), store)


def test_without_apt_the_error_names_the_kernel_and_two_cures(
    mirror: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.cache.find_tool", lambda name: None)
    with pytest.raises(KernelUnavailable) as caught:
        AptSource(archive(mirror)).resolve(kernel("*"), store)
    assert str(caught.value).startswith("under-test: apt-get is not installed")
    assert "vmtest image import" in str(caught.value)


def test_without_apt_a_stored_kernel_goes_on_working(
    mirror: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = AptSource(archive(mirror))
    source.fetch(source.resolve(kernel("*"), store), store)
    monkeypatch.setattr("vmtest.host.cache.find_tool", lambda name: None)
    resolved = source.resolve(kernel("*"), store)
    assert resolved.cached and "apt-get is not installed" in resolved.note


def test_a_suite_without_a_mirror_fails_alone(
    mirror: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.debian.host_is", lambda distribution, os_release: False)
    monkeypatch.delenv("VMTEST_DEBIAN_SECURITY_MIRROR", raising=False)
    source = AptSource(archive(mirror, "good", "good-security", security_mirror=None))
    resolved = source.resolve(kernel("*"), store)
    assert "good-security cannot be read (no mirror is known for it; set security_mirror" in (
        resolved.note
    )


def test_an_archive_without_suites_is_the_users_to_mend(mirror: Path, store: Store) -> None:
    with pytest.raises(UsageError, match="suites is empty"):
        AptSource(archive(mirror, suites=())).resolve(kernel("*"), store)


def test_an_archive_nobody_configured_is_named() -> None:
    with pytest.raises(UsageError, match=r"there is no \[apt\.debian\] \(there are: other\)"):
        source_for(kernel("*"), {"other": AptArchive("other")})


def test_a_full_disk_is_said_before_anything_is_downloaded(
    mirror: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.*"), store)
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(InfrastructureError) as caught:
        source.fetch(resolved, store)
    assert str(store.root) in str(caught.value)
    assert "1.0 MB free" in str(caught.value) and "VMTEST_CACHE" in str(caught.value)


def test_a_newer_kernel_that_cannot_be_downloaded_leaves_the_stored_one(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror))
    wanted = kernel("6.1.*")
    stored(store, "6.1.9-1")
    resolved = source.resolve(wanted, store)
    older = Resolution(store.entries()[0].key, "6.1.9-1", "the store")
    assert isinstance(wanted.spec, AptSpec)
    store.remember(source._question(wanted.spec), older)
    shutil.rmtree(mirror / "pool")
    image = source.fetch(resolved, store)
    assert image.version.text == "6.1.9-1"
    assert "the stored kernel is used" in image.note
    assert "6.1.10" in image.note


def test_a_pinned_kernel_that_cannot_be_downloaded_is_not_replaced(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.10"), store)
    shutil.rmtree(mirror / "pool")
    with pytest.raises(KernelUnavailable):
        source.fetch(resolved, store)


def test_the_offer_has_every_version_and_says_which_cannot_boot(mirror: Path, store: Store) -> None:
    offer = AptSource(archive(mirror, "good", "expired")).offer(store)
    assert [(c.version.text, bool(c.missing)) for c in offer.candidates] == [
        ("6.1.9-1", False),
        ("6.1.10-1", False),
        ("7.1.13-1", True),
        ("7.2.6-1", False),
    ]
    assert len(offer.notes) == 1 and "expired cannot be read" in offer.notes[0]


def test_an_offer_of_suites_that_cannot_be_read_is_an_error(mirror: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"\[apt\.debian\]: stranger cannot be read"):
        AptSource(archive(mirror, "stranger")).offer(store)


def test_between_two_versions_are_the_bootable_ones_in_order(mirror: Path, store: Store) -> None:
    found = AptSource(archive(mirror)).between("6.1.9", "*", kernel("*"), store)
    assert [k.name for k in found.kernels] == ["6.1.9", "6.1.10", "7.2.6"]


def test_between_two_versions_those_that_cannot_boot_are_known(mirror: Path, store: Store) -> None:
    found = AptSource(archive(mirror)).between("6.1.9", "*", kernel("*"), store)
    assert [k.name for k in found.gone] == ["7.1.13-1"]


def test_between_two_versions_in_the_cache_are_only_those(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    for version in ("6.1.9", "7.2.6"):
        source.fetch(source.resolve(kernel(version), store), store)
    found = source.between("6.1.9", "*", kernel("*"), store, cached=True)
    assert [k.name for k in found.kernels] == ["6.1.9", "7.2.6"]
    assert [k.name for k in found.left_out] == ["6.1.10-1"]


def test_an_end_that_is_not_in_the_cache_is_refused(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    source.fetch(source.resolve(kernel("6.1.9"), store), store)
    with pytest.raises(KernelUnavailable, match=r"7\.2\.6: the cache holds no such kernel"):
        source.between("6.1.9", "7.2.6", kernel("*"), store, cached=True)


def test_between_two_versions_each_resolves_to_exactly_itself(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror, "good", "expired", check_valid_until=False))
    found = source.between("6.1.9", "6.1.10", kernel("*"), store).kernels
    resolved = [source.resolve(k, store) for k in found]
    assert [r.version.text for r in resolved] == ["6.1.9-1", "6.1.10-1"]
    # Both suites hold both: a kernel is asked of the one that it was found in.
    assert {k.spec.suites for k in found if isinstance(k.spec, AptSpec)} == {("expired",)}
    assert all(r.origin.startswith("debian expired: ") for r in resolved)


def test_ends_out_of_order_are_the_users_to_mend(mirror: Path, store: Store) -> None:
    said = r"7\.2\.6 \(7\.2\.6-1\) is newer than 6\.1\.\* \(6\.1\.10-1\)"
    with pytest.raises(OutOfOrder, match=said):
        AptSource(archive(mirror)).between("7.2.6", "6.1.*", kernel("*"), store)


def test_an_end_that_cannot_boot_names_the_nearest(mirror: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable) as caught:
        AptSource(archive(mirror)).between("6.1.9", "7.1.13", kernel("*"), store)
    assert str(caught.value) == (
        "7.1.13: its linux-modules package is no longer in the index; "
        "nearest bootable: 6.1.9 (good), 6.1.10 (good), 7.2.6 (good)"
    )


def test_what_a_kernel_will_be_is_known_by_its_digest_before_it_is_fetched(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror))
    resolved = source.resolve(kernel("6.1.9-1"), store)
    assert source.fetch(resolved, store).digest == resolved.digest != ""
    assert source.resolve(kernel("6.1.9-1"), store).digest == resolved.digest


def test_in_a_cache_with_an_odd_name_apt_works(mirror: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "a b; $(touch ran) 'c'")
    found = AptSource(archive(mirror)).resolve(kernel("6.1.*"), store)
    assert found.version.text == "6.1.10-1"
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("name", ['a"b', "a\nb"])
def test_a_cache_whose_name_apts_configuration_cannot_hold_is_refused_with_the_cure(
    name: str, mirror: Path, tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError, match=r"neither double quotes.*set VMTEST_CACHE"):
        AptSource(archive(mirror)).resolve(kernel("6.1.*"), Store(tmp_path / name))


def index_file(store: Store) -> Path:
    (file,) = store.root.glob("apt/*/lists/*_Packages")
    return file


def damaged(store: Store, content: bytes) -> None:
    file = index_file(store)
    file.unlink()  # of a file: mirror it is a link to the mirror's own
    file.write_bytes(content)


@pytest.mark.parametrize("size", [0, 100, None])
def test_a_damaged_index_is_fetched_again(mirror: Path, store: Store, size: int | None) -> None:
    source = AptSource(archive(mirror))
    before = source.resolve(kernel("6.1.*"), store)
    whole = index_file(store).read_bytes()
    damaged(store, bytes(len(whole)) if size is None else whole[:size])
    assert source.resolve(kernel("6.1.*"), store) == before
    assert index_file(store).read_bytes() == whole


def test_a_damaged_index_without_a_mirror_is_said_to_be_damaged(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror))
    source.resolve(kernel("6.1.*"), store)
    damaged(store, b"Package: linux")
    shutil.rmtree(mirror / "dists")
    with pytest.raises(KernelUnavailable, match="its index in the cache was damaged"):
        source.resolve(kernel("6.1.*"), store)


@pytest.mark.parametrize("text", ["", "[]", '{"when": "x"}', "{}"])
def test_a_damaged_note_of_the_last_refresh_is_written_again(
    mirror: Path, store: Store, text: str
) -> None:
    source = AptSource(archive(mirror))
    before = source.resolve(kernel("6.1.*"), store)
    (note,) = store.root.glob("apt/*/refreshed.json")
    note.write_text(text)
    assert source.resolve(kernel("6.1.*"), store) == before


def test_an_index_that_was_read_by_a_clock_ten_years_ahead_is_read_again(
    mirror: Path, store: Store
) -> None:
    source = AptSource(archive(mirror))
    source.resolve(kernel("6.1.*"), store)
    (stamp,) = store.root.glob("apt/*/refreshed.json")
    stamp.write_text(json.dumps({"when": time.time() + 10 * 365 * 86400}))
    shutil.rmtree(mirror / "dists")
    with pytest.raises(KernelUnavailable, match="no longer has a Release"):
        source.resolve(kernel("6.1.*"), store)


def test_a_damaged_kernel_without_a_mirror_says_both(mirror: Path, store: Store) -> None:
    source = AptSource(archive(mirror, max_index_age=0.0))
    resolved = source.resolve(kernel("6.1.10"), store)
    image = source.fetch(resolved, store)
    image.image.write_bytes(bytes(image.image.stat().st_size))
    shutil.rmtree(mirror / "pool")
    with pytest.raises(KernelUnavailable, match=r"cached kernel \S+ is damaged .*failed"):
        source.fetch(resolved, store)

"""kernels.lock: written, read, held to; against a tiny signed archive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import signed_archive
from command import Said, vmtest

from vmtest.errors import KernelUnavailable, UsageError
from vmtest.kernels.lock import file as lockfile
from vmtest.kernels.lock.file import LockEntry
from vmtest.kernels.lock.source import LockedSource
from vmtest.kernels.store.store import Manifest, Store
from vmtest.model.kernels import (
    AptSpec,
    Kernel,
    KernelImage,
    KernelSpec,
    LockedSpec,
    MainlineSpec,
    PackageFile,
    PackageSpec,
    PathSpec,
    Progress,
    Resolved,
    TreeSpec,
)
from vmtest.model.versions import KernelVersion


@pytest.fixture
def mirror(made: Path, tmp_path: Path) -> Path:
    """A copy of the archive that a test may break."""
    return Path(shutil.copytree(made, tmp_path / "mirror"))


@pytest.fixture
def project(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return signed_archive.project(mirror, tmp_path, monkeypatch)


def change(project: Path, old: str, new: str) -> None:
    file = project / "kernels.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def lock(project: Path, *arguments: str) -> Said:
    return vmtest("kernels", "lock", *arguments, cwd=project)


def locked(project: Path) -> dict[str, Any]:
    kernels: dict[str, Any] = json.loads((project / "kernels.lock").read_text())["kernels"]
    return kernels


def fetch(project: Path, name: str) -> Said:
    return vmtest("kernels", "fetch", "--locked", "--kernel", name, cwd=project)


def lock_the_older(project: Path) -> None:
    """Lock "old" while kernels.toml means 6.1.9, as if 6.1.10 had come later."""
    change(project, '"6.1.*"', '"6.1.9"')
    assert lock(project).status == 0
    change(project, '"6.1.9"', '"6.1.*"')
    text = (project / "kernels.lock").read_text()
    (project / "kernels.lock").write_text(text.replace('"version": "6.1.9"', '"version": "6.1.*"'))


@signed_archive.needed
def test_a_lock_has_version_origin_and_digest_of_every_kernel(project: Path) -> None:
    said = lock(project)
    assert said.status == 0, said
    entries = locked(project)
    assert {name: entry["version"] for name, entry in entries.items()} == {
        "old": "6.1.10-1",
        "new": "7.2.6-1",
    }
    assert entries["old"]["origin"] == "debian good: linux-image-6.1.10-amd64 6.1.10-1"
    assert entries["old"]["request"] == {"apt": "debian", "version": "6.1.*", "suites": []}
    assert len(entries["old"]["digest"]) == 64


@signed_archive.needed
def test_locking_again_changes_nothing(project: Path) -> None:
    lock(project)
    before = (project / "kernels.lock").read_bytes()
    assert lock(project).status == 0
    assert (project / "kernels.lock").read_bytes() == before


@signed_archive.needed
def test_the_locked_version_is_used_where_a_newer_one_is_there(project: Path) -> None:
    lock_the_older(project)
    said = fetch(project, "old")
    assert said.status == 0 and "6.1.9-amd64 (6.1.9) is here" in said.out
    said = vmtest("kernels", "fetch", "--kernel", "old", cwd=project)
    assert "6.1.10-amd64 (6.1.10) is here" in said.out


@signed_archive.needed
def test_a_locked_kernel_in_the_store_needs_no_archive(project: Path, mirror: Path) -> None:
    lock_the_older(project)
    fetch(project, "old")
    shutil.rmtree(mirror)
    shutil.rmtree(project.parent / "cache" / "apt")
    assert fetch(project, "old").status == 0


@signed_archive.needed
def test_a_range_goes_by_the_locked_versions(project: Path) -> None:
    lock_the_older(project)
    said = vmtest("kernels", "fetch", "--locked", "--kernel", "==6.1.9", cwd=project)
    assert said.status == 0 and "6.1.9-amd64" in said.out and "7.2.6" not in said.out


@signed_archive.needed
def test_a_locked_version_that_is_gone_names_the_nearest_and_the_cure(project: Path) -> None:
    lock(project)
    file = project / "kernels.lock"
    file.write_text(file.read_text().replace("6.1.10-1", "6.1.8-1"))
    fetch(project, "old").refuses(
        3,
        "old: no kernel 6.1.8-1 in good; nearest: 6.1.9-1 (good)",
        "kernels.lock pins it",
        "vmtest kernels lock --kernel old",
    )


@signed_archive.needed
def test_the_same_version_with_other_content_is_refused(project: Path) -> None:
    lock(project)
    file = project / "kernels.lock"
    file.write_text(file.read_text().replace(locked(project)["old"]["digest"], "0" * 64))
    fetch(project, "old").refuses(
        3, "pins 6.1.10-1", "with the sha256 000000000000, and debian good", "by now"
    )


@signed_archive.needed
def test_a_kernel_that_is_not_locked_is_the_users_to_mend(project: Path) -> None:
    lock(project, "--kernel", "old")
    fetch(project, "new").refuses(2, "new is not in it", "vmtest kernels lock")


@signed_archive.needed
def test_a_request_that_changed_since_is_the_users_to_mend(project: Path) -> None:
    lock(project)
    change(project, '"6.1.*"', '"6.1.9"')
    fetch(project, "old").refuses(2, "old was locked when kernels.toml asked for something else")
    assert fetch(project, "new").status == 0


@signed_archive.needed
def test_one_kernel_can_be_locked_anew_alone(project: Path) -> None:
    lock_the_older(project)
    before = locked(project)
    said = lock(project, "--kernel", "old")
    assert "old: 6.1.10-1, was 6.1.9-1" in said.out
    after = locked(project)
    assert after["old"]["version"] == "6.1.10-1" and after["new"] == before["new"]


@signed_archive.needed
def test_a_kernel_that_left_kernels_toml_leaves_the_lock(project: Path) -> None:
    lock(project)
    change(project, 'name = "new"', 'name = "newer"')
    lock(project)
    assert set(locked(project)) == {"old", "newer"}


@signed_archive.needed
def test_nothing_is_written_when_a_kernel_cannot_be_resolved(project: Path) -> None:
    change(project, '"6.1.*"', '"6.2.*"')
    lock(project).refuses(3, "old: no kernel 6.2.*")
    assert not (project / "kernels.lock").exists()


@signed_archive.needed
def test_one_that_does_not_decide_is_left_out_and_named(project: Path) -> None:
    change(project, '"6.1.*"', '"6.2.*"\ngate = false')
    said = lock(project)
    assert said.status == 0 and "left out (gate = false): old: no kernel 6.2.*" in said.err
    assert set(locked(project)) == {"new"}


@signed_archive.needed
def test_run_takes_the_lock_too(project: Path) -> None:
    change(project, "schema = 1", 'schema = 1\n[[suite]]\nname = "s"\ntests = "kernels.toml"')
    vmtest("run", "--locked", cwd=project).refuses(2, "kernels.lock does not exist", "kernels lock")


# --- without an archive -----------------------------------------------------------------

BASE = Path("/project")


@pytest.mark.parametrize(
    ("spec", "request_"),
    [
        (
            AptSpec("debian", "*", ("sid",)),
            {"apt": "debian", "version": "*", "suites": ["sid"]},
        ),
        (
            PathSpec(Path("/project/vmlinuz"), Path("/linux/modules")),
            {"path": "vmlinuz", "modules": "../linux/modules", "config": None},
        ),
        (
            PackageSpec((PackageFile(Path("/project/k.deb")), PackageFile("http://h/m", "ab"))),
            {"package": [{"path": "k.deb", "sha256": None}, {"url": "http://h/m", "sha256": "ab"}]},
        ),
        (MainlineSpec("mainline", "v6.6.17"), {"mainline": "v6.6.17"}),
        (
            TreeSpec(Path("/linux"), "main", Path("/project/my.config")),
            {"tree": {"path": "../linux", "rev": "main", "config": "my.config"}},
        ),
    ],
)
def test_a_request_is_written_as_kernels_toml_has_it(
    spec: KernelSpec, request_: dict[str, Any]
) -> None:
    assert lockfile.request_of(spec, BASE) == request_


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    spec = PathSpec(BASE / "vmlinuz")
    kernel = Kernel("mine", spec)
    version = KernelVersion.parse("6.1")
    resolved = Resolved(kernel, version, "key", f"path {BASE}/vmlinuz", digest="d")
    entry = lockfile.entry_of(resolved, BASE)
    assert entry.origin == "path vmlinuz"
    lockfile.write(tmp_path / "kernels.lock", {"mine": entry})
    assert lockfile.read(tmp_path / "kernels.lock") == {"mine": entry}
    (pinned,) = lockfile.pin([kernel], {"mine": entry}, BASE)
    assert pinned.spec == LockedSpec(spec, "key", "6.1", "path vmlinuz", "d")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< HEAD", "damaged or holds a merge conflict"),
        ('{"schema": 2}', "its schema is 2, this vmtest reads 1"),
        ('{"schema": 1}', "cannot be understood"),
        ('{"schema": 1, "kernels": {"a": {"version": "1"}}}', "cannot be understood"),
        ("[]", "cannot be understood"),
    ],
)
def test_a_lock_that_cannot_be_read_is_the_users_to_mend(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "kernels.lock").write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        lockfile.read(tmp_path / "kernels.lock")
    assert "vmtest kernels lock" in str(caught.value)


def test_a_branch_is_locked_at_its_commit() -> None:
    spec = TreeSpec(Path("/linux"), "main")
    kernel = Kernel("next", spec)
    request = lockfile.request_of(spec, BASE)
    entry = LockEntry(request, "6.1.9", "key", "d" * 64, "tree linux 0123abcd")
    (pinned,) = lockfile.pin([kernel], {"next": entry}, BASE)
    assert isinstance(pinned.spec, LockedSpec)
    assert pinned.spec.exact == TreeSpec(Path("/linux"), "0123abcd")


class Unknowing:
    """A source that knows no digest before it fetches; what it fetches has ``digest``."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def resolve(self, kernel: Kernel, store: Store) -> Resolved:
        return Resolved(kernel, KernelVersion.parse("6.1"), "key", "somewhere")

    def fetch(
        self, resolved: Resolved, store: Store, progress: Progress | None = None
    ) -> KernelImage:
        def fill(entry: Path) -> Manifest:
            (entry / "image").write_bytes(b"kernel")
            return Manifest("6.1", "6.1", "image", None, None, self.digest, "somewhere")

        return store.add(resolved.key, fill)


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_fetched_is_held_to_the_lock_too(tmp_path: Path, stored: bool) -> None:
    entry = LockEntry({"mainline": "v6.1"}, "6.1", "key", "d" * 64, "somewhere")
    (kernel,) = lockfile.pin([Kernel("up", MainlineSpec("mainline", "v6.1"))], {"up": entry}, BASE)
    store = Store(tmp_path)
    source = LockedSource(Unknowing("e" * 64))
    if stored:
        source.source.fetch(source.source.resolve(kernel, store), store)
    with pytest.raises(KernelUnavailable, match="with the sha256 dddddddddddd, and somewhere has"):
        source.fetch(source.resolve(kernel, store), store)


def test_what_is_as_locked_is_fetched(tmp_path: Path) -> None:
    entry = LockEntry({"mainline": "v6.1"}, "6.1", "key", "d" * 64, "somewhere")
    (kernel,) = lockfile.pin([Kernel("up", MainlineSpec("mainline", "v6.1"))], {"up": entry}, BASE)
    source = LockedSource(Unknowing("d" * 64))
    store = Store(tmp_path)
    assert source.fetch(source.resolve(kernel, store), store).digest == "d" * 64
    assert source.resolve(kernel, store).cached

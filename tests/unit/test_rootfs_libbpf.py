"""[guest] libbpf: versions from Debian's suites, through the real apt, and the user's own files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import signed_archive
from fake_session import HostSession
from packaged import PACKAGED

from vmtest.config.file import load
from vmtest.errors import ConfigError, ImageError, InfrastructureError, UsageError
from vmtest.host.cache import find_tool, let_go, write_json, write_record
from vmtest.host.debian import Mirror, Mirrors
from vmtest.host.files import Files, tar
from vmtest.matrix.payload import LIBRARY_FOLDERS, install, library_path
from vmtest.model.kernels import AptArchive, GuestSpec, Library, RootImage
from vmtest.rootfs.image import image_key, prepare
from vmtest.rootfs.libbpf import Shelf, of_file
from vmtest.rootfs.prepare import distinct
from vmtest.storage.prune import items, remove, superfluous
from vmtest.storage.transfer import export_bundle, import_bundle, pack
from vmtest.storage.verify import verify

needs_linker = pytest.mark.skipif(
    find_tool("ld") is None or find_tool("clang") is None, reason="ld or clang is not installed"
)
CONFIG = f"""
schema = 1
[guest]
libbpf = {{libbpf}}
{PACKAGED}"""


def library(place: Path, version: str, soname: str = "libbpf.so.1", *options: str) -> Path:
    """A shared library with the versions of symbols that a libbpf of ``version`` has."""
    place.parent.mkdir(parents=True, exist_ok=True)
    source, script = place.with_suffix(".c"), place.with_suffix(".map")
    source.write_text("int libbpf_minor_version(void) { return 0; }\n")
    script.write_text(
        "LIBBPF_0.6.0 { global: libbpf_minor_version; local: *; };\n"
        f"LIBBPF_{version}.0 {{ }} LIBBPF_0.6.0;\n"
    )
    made = place.with_suffix(".o")
    subprocess.run(
        ["clang", "--target=x86_64-linux-gnu", "-fPIC", "-c", source, "-o", made], check=True
    )
    linking = ["ld", "-shared", f"-soname={soname}", f"--version-script={script}", *options]
    subprocess.run([*linking, made, "-o", place], check=True)
    for left in (source, script, made):
        left.unlink()
    return place


def package(archive: Path, folder: Path, version: str) -> str:
    """A package libbpf1 in the pool of ``archive``; its paragraph of the index."""
    tree = folder / version.replace(":", "_")
    (tree / "DEBIAN").mkdir(parents=True)
    number = version.partition(":")[2].partition("-")[0]
    major = ".".join(number.split(".")[:2])
    library(tree / "usr/lib/x86_64-linux-gnu" / f"libbpf.so.{number}", major)
    control = (
        f"Package: libbpf1\nVersion: {version}\nArchitecture: amd64\n"
        "Maintainer: vmtest <vmtest@example.org>\nDescription: for vmtest's own tests\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    name = f"pool/libbpf1_{number}.deb"
    (archive / "pool").mkdir(parents=True, exist_ok=True)
    build = ["dpkg-deb", "-Zxz", "--root-owner-group", "-b", str(tree), str(archive / name)]
    subprocess.run(build, check=True, capture_output=True)
    data = (archive / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return f"{control}Filename: {name}\nSize: {len(data)}\nSHA256: {digest}\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """trixie has libbpf 1.5, bookworm 1.1; sid, with 1.7, is past its date; the others are not."""
    made = tmp_path_factory.mktemp("archive")
    key = "trusted@example.org"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "gnupg"
        home.mkdir(mode=0o700)
        new_key = ("--passphrase", "", "--quick-gen-key", key, "ed25519", "sign", "never")
        signed_archive.gpg(home, *new_key)
        old = "Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n"
        for suite, version, until in (
            ("bookworm", "1:1.1.2-0+deb12u1", ""),
            ("trixie", "1:1.5.0-3", ""),
            ("sid", "1:1.7.0-1", old),
        ):
            text = package(made, folder, version)
            signed_archive.publish(made, suite, text, home, key, until)
        signed_archive.gpg(home, "--export", "-o", str(made / "keyring.gpg"), key)
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    return made


@pytest.fixture
def shelf(archive: Path, tmp_path: Path) -> Shelf:
    mirror = Mirror(f"file:{archive}", str(archive / "keyring.gpg"), "a test")
    debian = AptArchive("debian", max_index_age=3600.0)
    return Shelf(tmp_path / "cache", lambda: Mirrors(mirror, None), debian, ("trixie",))


def quiet(line: str) -> None:
    del line


def nobody() -> Mirrors:
    raise AssertionError("the mirror was asked")


pytestmark = [signed_archive.needed, needs_linker]


@pytest.mark.parametrize("version", ["1.1", "1.5"])
def test_a_version_comes_from_the_suite_that_has_it(shelf: Shelf, version: str) -> None:
    found, note = shelf.take(version, quiet)
    assert (found.version, note) == (version, "")
    assert found.data.startswith(b"\x7fELF")
    assert found.origin.startswith(f"libbpf1 1:{version}.")


def test_a_version_in_the_cache_asks_nobody(shelf: Shelf) -> None:
    first, _ = shelf.take("1.5", quiet)
    again, _ = replace(shelf, mirrors=nobody).take("1.5", quiet)
    assert again == first


def test_a_library_that_changed_in_the_cache_is_fetched_again(shelf: Shelf) -> None:
    first, _ = shelf.take("1.5", quiet)
    (file,) = shelf.cache.glob("libbpf/*/libbpf.so.1")
    file.write_bytes(b"\x7fELF and nothing else")
    again, _ = shelf.take("1.5", quiet)
    assert again == first


def test_a_version_that_no_suite_has_names_those_there_are(shelf: Shelf) -> None:
    with pytest.raises(ImageError) as caught:
        shelf.take("1.3", quiet)
    said = str(caught.value)
    assert said.startswith("no Debian suite has libbpf 1.3 that can be read: ")
    assert "there are 1.1 (bookworm), 1.5 (trixie)" in said
    assert "sid cannot be read (its Release file expired" in said


def test_the_newest_is_that_of_the_newest_suite_that_can_be_read(shelf: Shelf) -> None:
    found, note = shelf.take("newest", quiet)
    assert found.version == "1.5"
    assert "1.5 is the newest that can be had" in note and "sid cannot be read" in note


def test_an_index_past_its_date_is_taken_where_the_archive_says_so(shelf: Shelf) -> None:
    frozen = AptArchive("debian", check_valid_until=False)
    found, note = replace(shelf, archive=frozen).take("newest", quiet)
    assert found.version == "1.7" and "sid" not in note


def test_what_an_index_past_its_date_had_is_not_the_newest_where_dates_count(shelf: Shelf) -> None:
    frozen = AptArchive("debian", check_valid_until=False)
    assert replace(shelf, archive=frozen).take("newest", quiet)[0].version == "1.7"
    assert shelf.take("newest", quiet)[0].version == "1.5"


def test_the_newest_is_not_asked_for_again_while_the_index_is_fresh(shelf: Shelf) -> None:
    first = shelf.take("newest", quiet)
    assert replace(shelf, mirrors=nobody).take("newest", quiet) == first


def test_without_a_mirror_the_newest_of_the_cache_is_used(shelf: Shelf) -> None:
    shelf.take("1.1", quiet)
    alone = replace(shelf, mirrors=lambda: Mirrors(None, None))
    found, note = alone.take("newest", quiet)
    assert found.version == "1.1" and "the stored libbpf 1.1 is used" in note


def root(cache: Path, *libraries: Library) -> RootImage:
    """A guest image in ``cache`` with versions of libbpf laid over its own."""
    place = cache / "images" / image_key(GuestSpec())
    place.mkdir(parents=True)
    (place / "root.sqfs").write_bytes(b"hsqs and more")
    digest = hashlib.sha256(b"hsqs and more").hexdigest()
    write_json(place / "image.json", {"size": 13, "sha256": digest})
    return replace(prepare(GuestSpec(), cache), libraries=libraries)


@pytest.mark.parametrize("wanted", ["1.1", "newest"])
def test_what_the_image_has_from_a_package_is_exported(
    shelf: Shelf, tmp_path: Path, wanted: str
) -> None:
    first, _ = shelf.take(wanted, quiet)
    bundle, there = tmp_path / "b.tar", tmp_path / "there"
    own = of_file(library(tmp_path / "own" / "libbpf.so.1", "1.6"), Files())
    export_bundle(bundle, shelf.cache, (), root(shelf.cache, first, own))
    found = import_bundle(bundle, there)
    (entry,) = (shelf.cache / "libbpf").glob("*/")
    assert found.libraries == (entry.name,)
    alone = replace(shelf, cache=there, mirrors=lambda: Mirrors(None, None))
    assert alone.take(wanted, quiet)[0] == first
    assert import_bundle(bundle, there).already == found.names


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"version": "1.9"}, r"libbpf\.so\.1 is libbpf 1\.5, and libbpf\.json says 1\.9"),
        ({"library": "0" * 64}, r"libbpf\.so\.1 has sha256"),
    ],
)
def test_a_bundle_with_another_library_than_it_says_is_refused(
    shelf: Shelf, tmp_path: Path, record: dict[str, str], said: str
) -> None:
    found, _ = shelf.take("1.5", quiet)
    (place,) = (shelf.cache / "libbpf").glob("*/")
    told = {"version": found.version, "origin": found.origin, "library": found.sha256}
    write_record(place / "libbpf.json", {**told, **record})
    pack(tmp_path / "b.tar", shelf.cache, [place.relative_to(shelf.cache)])
    with pytest.raises(InfrastructureError, match=said):
        import_bundle(tmp_path / "b.tar", tmp_path / "there")
    assert not (tmp_path / "there" / "libbpf").exists()


def test_a_library_is_pruned_when_it_was_not_used_for_long(shelf: Shelf) -> None:
    shelf.take("1.1", quiet)
    shelf.take("1.5", quiet)
    for mark in (shelf.cache / "used").glob("libbpf-*"):
        let_go(shelf.cache, mark.name)
        os.utime(mark, (1, 1))
    shelf.take("1.5", quiet)
    (old,) = superfluous(items(shelf.cache), time.time(), 86400.0, None)
    assert (old.kind, old.broken, old.size > 0) == ("libbpf", False, True)
    assert remove(shelf.cache, [old]) == [old]
    assert [path.name[:5] for path in (shelf.cache / "libbpf").glob("*/")] == ["1_1.5"]


def test_a_library_that_changed_is_damaged_and_of_no_use(shelf: Shelf) -> None:
    shelf.take("1.5", quiet)
    (whole,) = verify(shelf.cache)
    assert (whole.kind, whole.damage, whole.size > 0) == ("libbpf", None, True)
    (file,) = shelf.cache.glob("libbpf/*/libbpf.so.1")
    file.write_bytes(b"\x7fELF and nothing else")
    (damaged,) = verify(shelf.cache)
    said = f"cached libbpf {whole.name} is damaged (libbpf.so.1 has sha256 "
    assert str(damaged.damage).startswith(said)
    (item,) = items(shelf.cache)
    assert item.broken


def test_a_file_of_the_users_has_the_version_of_its_symbols(tmp_path: Path) -> None:
    path = library(tmp_path / "own.so", "1.6")
    files = Files()
    found = of_file(path, files)
    assert (found.version, found.origin) == ("1.6", str(path))
    assert files.digests(tmp_path) == {"libbpf": {"own.so": found.sha256}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a shared library"),
        (b"\x7fELF", "cannot be read as a shared library"),
        (b"!<arch>\n", "cannot be read as a shared library"),
        (None, "No such file or directory; correct the path"),
    ],
)
def test_a_file_that_is_no_library_is_refused(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "libbpf.so.1"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"\[guest\] libbpf, or `libbpf`: {path}: {said}"):
        of_file(path, Files())


def test_a_library_of_another_name_is_refused(tmp_path: Path) -> None:
    path = library(tmp_path / "x.so", "1.6", "libbpf.so.0")
    with pytest.raises(UsageError, match=r"its name within is libbpf\.so\.0 and not libbpf\.so\.1"):
        of_file(path, Files())


def test_a_library_cut_short_is_refused(tmp_path: Path) -> None:
    path = library(tmp_path / "x.so", "1.6")
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"\[guest\] libbpf"):
            of_file(path, Files())


def config(folder: Path, libbpf: str) -> Path:
    file = folder / "kernels.toml"
    file.write_text(CONFIG.format(libbpf=libbpf))
    return file


def test_a_path_is_relative_to_kernels_toml(tmp_path: Path) -> None:
    given = load(config(tmp_path, '"out/libbpf.so.1"')).guest.libbpf
    assert given == (str(tmp_path / "out/libbpf.so.1"),)


@pytest.mark.parametrize("good", [["1.5"], ["newest"], ["1.1", "newest"]])
def test_versions_stay_as_they_are(tmp_path: Path, good: list[str]) -> None:
    assert load(config(tmp_path, json.dumps(good))).guest.libbpf == tuple(good)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('"1.5.0"', '\'1.5.0\' does not name a libbpf; write "1.5", "newest"'),
        ('"0.8"', "'0.8' does not name a libbpf"),
        ('"latest"', "'latest' does not name a libbpf"),
        ('""', "'' does not name a libbpf"),
        ("1.5", "does not name a libbpf; write a version"),
        ('["1.5", 2]', "does not name a libbpf; write a version"),
        ('["1.5", "1.5"]', "names '1.5' twice; keep one"),
    ],
)
def test_what_is_no_libbpf_is_refused_with_its_place(tmp_path: Path, bad: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path, bad))
    assert "kernels.toml: [guest]: libbpf = " in str(caught.value)
    assert said in str(caught.value)


RELEASE = Path("/proc/sys/kernel/osrelease")


def guest(folder: Path, name: str = "libbpf.so.1.5.0", release: Path = RELEASE) -> HostSession:
    """A guest whose own libbpf is ``name``; what is mounted is written down and not mounted."""
    libraries = folder / "lib" / "x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / name).write_bytes(b"its own")
    (libraries / "libbpf.so.1").symlink_to(name)
    mounts = folder / "mounts"
    mounts.write_text("bpf /sys/fs/bpf bpf rw 0 0\n")
    script = folder / "mount"
    script.write_text(f'#!/bin/sh\necho "$@" >>{folder}/mounted\n')
    script.chmod(0o755)
    moved = {
        "/tmp/vmtest": folder / "guest",
        "/proc/mounts": mounts,
        str(RELEASE): release,
        "$box mount --bind": script,
        LIBRARY_FOLDERS: folder / "lib" / "*-linux-gnu",
    }
    return HostSession(moved)


def test_a_guest_names_its_own_libbpf(tmp_path: Path) -> None:
    assert install(guest(tmp_path), tar({}), lambda: None).libbpf == "1.5"
    assert not (tmp_path / "mounted").exists()


def test_a_guest_that_does_not_say_what_it_runs_is_an_error(tmp_path: Path) -> None:
    session = guest(tmp_path, release=tmp_path / "nothing")
    with pytest.raises(InfrastructureError, match="cannot unpack the payload"):
        install(session, tar({}), lambda: None)


def test_a_library_is_laid_over_the_guests_own(tmp_path: Path) -> None:
    libraries = [Library("1.1", "", "", b"one"), Library("1.7", "", "", b"seven")]
    assert install(guest(tmp_path), tar({}), lambda: None, None, libraries).libbpf == "1.1"
    here = tmp_path / "guest" / "libbpf"
    assert (here / "1.1" / "libbpf.so.1").read_bytes() == b"one"
    assert (here / "1.7" / "libbpf.so.1").read_bytes() == b"seven"
    laid = (tmp_path / "mounted").read_text().split()
    assert laid[0] == str(here / "1.1" / "libbpf.so.1")
    assert laid[1].endswith("/libbpf.so.1") and len(laid) == 2
    assert library_path("1.1") == "/tmp/vmtest/libbpf/1.1"


def test_a_guest_without_libbpf_cannot_get_another_one(tmp_path: Path) -> None:
    session = guest(tmp_path)
    (tmp_path / "lib/x86_64-linux-gnu/libbpf.so.1").unlink()
    assert install(session, tar({}), lambda: None).libbpf == ""
    with pytest.raises(InfrastructureError, match=r"libbpf\.so\.1 of the guest's root, which has"):
        install(session, tar({}), lambda: None, None, [Library("1.1", "", "", b"one")])


def test_a_libbpf_that_is_given_twice_is_taken_once() -> None:
    """`newest` is 1.5 where no newer one can be had."""
    old, new = Library("1.1", "a package", "11", b""), Library("1.5", "a package", "55", b"")
    assert distinct([old, new, replace(new)]) == (old, new)


def test_two_files_of_one_version_are_refused() -> None:
    ours = Library("1.5", "./libbpf.so", "66", b"")
    with pytest.raises(UsageError, match=r"\./libbpf\.so and a package are both libbpf 1\.5"):
        distinct([ours, Library("1.5", "a package", "55", b"")])

"""Bundles that a stranger made: what each says of its entries is looked at before it is used."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import vmtest
from fake_kernels import elf

from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.cache import find_tool
from vmtest.kernels.store.store import Store
from vmtest.storage.transfer import unpack

needs_depmod = pytest.mark.skipif(find_tool("depmod") is None, reason="there is no depmod")
RELEASE = "6.1.9-amd64"
KEY = f"{RELEASE}-0123456789abcdef"
MODULES = f"lib/modules/{RELEASE}"
IMAGE = "bookworm-0123456789abcdef"


def entry_json(**other: Any) -> bytes:
    """A right entry.json with ``other`` values."""
    value = {
        "schema": 1,
        "key": KEY,
        "version": "6.1.9",
        "release": RELEASE,
        "image": f"boot/vmlinux-{RELEASE}",
        "modules": MODULES,
        "config": None,
        "digest": "d" * 64,
        "origin": "a friend",
        "note": "",
        "image_size": len(elf(RELEASE)),
        "tree_size": 1,
    }
    return json.dumps({**value, **other}).encode()


def kernel_files(record: bytes | None = None, **more: bytes) -> dict[str, bytes]:
    """The members of a bundle with one kernel, by path."""
    return {
        f"kernels/{KEY}/entry.json": entry_json() if record is None else record,
        f"kernels/{KEY}/boot/vmlinux-{RELEASE}": elf(RELEASE),
        f"kernels/{KEY}/{MODULES}/modules.order": b"",
        f"kernels/{KEY}/{MODULES}/modules.builtin": b"",
        f"kernels/{KEY}/{MODULES}/modules.dep": b"/etc/passwd:\n",
        **more,
    }


def bundle(
    file: Path,
    files: Mapping[str, bytes],
    entries: tuple[str, ...] = (f"kernels/{KEY}",),
    listed: Mapping[str, list[Any]] | None = None,
) -> Path:
    """Write a bundle of ``files``; ``listed`` says otherwise what its list has."""
    right = {n: [len(data), hashlib.sha256(data).hexdigest()] for n, data in files.items()}
    manifest = {"schema": 1, "entries": list(entries), "files": {**right, **(listed or {})}}
    with tarfile.open(file, "w") as tar:
        for name, data in [("bundle.json", json.dumps(manifest).encode()), *files.items()]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def assert_refused(file: Path, cache: Path, *parts: str) -> None:
    """Assert that importing ``file`` publishes nothing and says ``parts``."""
    with pytest.raises((InfrastructureError, UsageError)) as caught:
        unpack(file, cache)
    for part in (str(file), *parts):
        assert part in str(caught.value)
    assert Store(cache).entries() == []
    assert not (cache / "kernels").exists() and not (cache / "images").exists()


@needs_depmod
def test_a_right_bundle_is_taken(tmp_path: Path) -> None:
    unpack(bundle(tmp_path / "b.tar", kernel_files()), tmp_path / "cache")
    assert [entry.key for entry in Store(tmp_path / "cache").entries()] == [KEY]


@needs_depmod
def test_the_index_of_modules_is_made_anew(tmp_path: Path) -> None:
    unpack(bundle(tmp_path / "b.tar", kernel_files()), tmp_path / "cache")
    image = Store(tmp_path / "cache").get(KEY)
    assert image is not None and image.modules is not None
    assert "/etc/passwd" not in (image.modules / "modules.dep").read_text()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "boot/x;touch MARK;"),
        ("image", "boot/$(touch MARK)"),
        ("image", "/etc/passwd"),
        ("image", "../../../../etc/passwd"),
        ("image", f"boot/../../{KEY}/boot/vmlinux-{RELEASE}"),
        ("image", ""),
        ("image", ["boot"]),
        ("image", None),
        ("modules", "/lib/modules"),
        ("modules", "lib/modules/6.1.10"),
        ("modules", "lib/modules/../../x"),
        ("config", "/etc/shadow"),
        ("config", "a b"),
        ("release", "6.1.9;touch MARK"),
        ("release", "../../x"),
        ("release", 6.1),
        ("version", "six"),
        ("version", "6.1$(touch MARK)"),
        ("key", "another"),
        ("key", ""),
        ("digest", "$(touch MARK)"),
        ("image_size", -1),
        ("image_size", "7"),
        ("image_size", 7),
        ("tree_size", "many"),
        ("origin", {"a": 1}),
        ("origin", "x" * 5000),
        ("schema", 2),
    ],
)
def test_an_entry_that_says_what_no_entry_says_is_refused(
    field: str, value: object, tmp_path: Path
) -> None:
    file = bundle(tmp_path / "b.tar", kernel_files(entry_json(**{field: value})))
    assert_refused(
        file, tmp_path / "cache", f"kernels/{KEY} is not an entry of vmtest's cache: entry.json"
    )


@pytest.mark.parametrize("record", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000])
def test_an_entry_whose_record_is_none_is_refused(record: bytes, tmp_path: Path) -> None:
    file = bundle(tmp_path / "b.tar", kernel_files(record))
    assert_refused(file, tmp_path / "cache", f"kernels/{KEY} is not an entry of vmtest's cache")


@pytest.mark.parametrize("key", ["a b", "a;touch MARK", "$(x)", "..", ".", "a'b", "x" * 250])
def test_an_entry_with_an_odd_name_is_refused(key: str, tmp_path: Path) -> None:
    entry = f"kernels/{key}"
    file = bundle(tmp_path / "b.tar", {f"{entry}/entry.json": entry_json()}, (entry,))
    assert_refused(file, tmp_path / "cache")


@pytest.mark.parametrize("name", ["x;touch MARK;", "a b", "$(x)", "a\nb", "'", "x" * 256])
def test_a_file_with_an_odd_name_is_refused(name: str, tmp_path: Path) -> None:
    more = {f"kernels/{KEY}/{MODULES}/kernel/{name}": b"x"}
    file = bundle(tmp_path / "b.tar", {**kernel_files(), **more})
    assert_refused(file, tmp_path / "cache", "no name of a file of vmtest's")


def test_an_entry_listed_twice_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    file = bundle(tmp_path / "b.tar", kernel_files(), (f"kernels/{KEY}", f"kernels/{KEY}"))
    assert_refused(file, tmp_path / "cache", "it lists an entry twice")


@pytest.mark.parametrize(
    "content", [b"QFI\xfb" + bytes(100), b""], ids=["names another file", "empty"]
)
def test_a_guest_image_that_is_no_squashfs_is_refused(content: bytes, tmp_path: Path) -> None:
    record = json.dumps({"size": len(content), "sha256": "0" * 64}).encode()
    files = {f"images/{IMAGE}/root.sqfs": content, f"images/{IMAGE}/image.json": record}
    file = bundle(tmp_path / "b.tar", files, (f"images/{IMAGE}",))
    assert_refused(file, tmp_path / "cache", "root.sqfs is not squashfs")


@pytest.mark.parametrize(
    "record",
    [
        {"size": "4", "sha256": "0" * 64},
        {"size": 4},
        {"size": 4, "sha256": "0" * 64, "file": "root.ext4"},
        {"size": 4, "sha256": "0" * 64, "file": "../../../etc/passwd"},
        [],
        None,
    ],
)
def test_a_guest_image_whose_record_is_none_is_refused(record: object, tmp_path: Path) -> None:
    files = {
        f"images/{IMAGE}/root.sqfs": b"hsqs",
        f"images/{IMAGE}/image.json": json.dumps(record).encode(),
    }
    file = bundle(tmp_path / "b.tar", files, (f"images/{IMAGE}",))
    assert_refused(file, tmp_path / "cache", "image.json")


@pytest.mark.parametrize(
    "answer", [{"key": 1, "version": "6.1", "origin": ""}, {"key": KEY, "version": "x"}, [], 7]
)
def test_an_answer_that_is_none_is_refused(answer: object, tmp_path: Path) -> None:
    more = {"resolved/0123.json": json.dumps(answer).encode()}
    file = bundle(tmp_path / "b.tar", {**kernel_files(), **more})
    assert_refused(
        file, tmp_path / "cache", "resolved/0123.json is not an answer that vmtest stored"
    )


def test_a_member_larger_than_listed_is_refused_before_any_of_it_is_written(
    tmp_path: Path,
) -> None:
    big = f"kernels/{KEY}/boot/big"
    files = {**kernel_files(), big: bytes(8 << 20)}
    file = bundle(tmp_path / "b.tar", files, listed={big: [1, "0" * 64]})
    written: list[int] = []
    with pytest.raises(InfrastructureError, match=r"boot/big has 8388608 bytes there and 1 in its"):
        unpack(file, tmp_path / "cache", lambda done, total: written.append(done))
    assert max(written) < 1 << 20


def test_holes_are_refused_before_they_are_written(tmp_path: Path) -> None:
    """A sparse member of 1 TiB is a few bytes in a tar."""
    big = f"kernels/{KEY}/boot/big"
    file = bundle(tmp_path / "b.tar", kernel_files(), listed={big: [1 << 20, "0" * 64]})
    with tarfile.open(file, "a", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(big)
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": f"0,0,{1 << 20},0",
            "GNU.sparse.size": str(1 << 20),
        }
        tar.addfile(info, io.BytesIO(b""))
    assert_refused(file, tmp_path / "cache", "boot/big")


def test_through_the_command_line_nothing_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    command = f"boot/x;touch${{IFS}}{tmp_path}/MARK;"
    more = {f"kernels/{KEY}/{command}": elf(RELEASE)}
    file = bundle(tmp_path / "b.tar", {**kernel_files(entry_json(image=command)), **more})
    vmtest("image", "import", str(file), cwd=tmp_path).refuses(3, "b.tar", "refused", "touch")
    assert Store(tmp_path / "cache").entries() == []
    assert not (tmp_path / "MARK").exists()


# --- entries that are in the cache already ----------------------------------------------


@pytest.mark.parametrize("field", ["image", "config"])
def test_an_entry_of_the_cache_that_leads_out_of_it_counts_as_absent(
    field: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(elf(RELEASE))
    place = tmp_path / "cache" / "kernels" / KEY
    for name, data in kernel_files(entry_json(**{field: "boot/link"})).items():
        target = tmp_path / "cache" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (place / "boot" / "link").symlink_to(secret)
    assert Store(tmp_path / "cache").get(KEY) is None

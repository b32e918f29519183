"""What unpacks to more than it should is refused before it fills a disk or the memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from vmtest.host import packed
from vmtest.host.packed import check_unpacked, opened, unpack_limit, unpacked
from vmtest.host.tarstream import TooLarge

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "bz2": bz2.compress,
    "nothing": bytes,
}


@pytest.fixture(params=PACKERS)
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        file = tmp_path / "file"
        file.write_bytes(PACKERS[request.param](data))
        return file

    return write


def test_it_is_read_by_how_it_begins(pack: Callable[[bytes], Path]) -> None:
    with opened(pack(b"content" * 1000)) as stream:
        assert stream.read() == b"content" * 1000


def test_two_parts_are_one_content(tmp_path: Path) -> None:
    """As a gzip or a zstd may be written: by several processes, or with an index."""
    for name in ("gz", "xz", "zst", "bz2"):
        (tmp_path / name).write_bytes(PACKERS[name](b"one ") + PACKERS[name](b"two"))
        assert unpacked(tmp_path / name, 100) == b"one two"


def test_up_to_the_limit_it_is_taken(pack: Callable[[bytes], Path]) -> None:
    assert unpacked(pack(bytes(1 << 20)), 1 << 20) == bytes(1 << 20)


def test_above_the_limit_it_is_refused(pack: Callable[[bytes], Path]) -> None:
    with pytest.raises(TooLarge, match="unpacks to more than 1 MiB"):
        unpacked(pack(bytes((1 << 20) + 1)), 1 << 20)


def test_what_is_packed_too_well_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "SMALL", 1 << 20)
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(bytes(32 << 20)))
    with pytest.raises(TooLarge, match=f"more than {unpack_limit(file.stat().st_size) >> 20} MiB"):
        check_unpacked(file)


@pytest.mark.parametrize("name", ["gz", "xz", "zst", "bz2"])
@pytest.mark.parametrize("left", [0.5, -4, -1])
def test_one_that_is_cut_short_is_damaged(tmp_path: Path, name: str, left: float) -> None:
    data = PACKERS[name](random.Random(1).randbytes(300_000))
    (tmp_path / "file").write_bytes(data[: int(len(data) * left) if left > 0 else int(left)])
    with pytest.raises(packed.DAMAGED):
        unpacked(tmp_path / "file", 1 << 20)
    with pytest.raises(packed.DAMAGED):
        check_unpacked(tmp_path / "file")


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("data", [b"", b"x", bytes(1 << 20), random.Random(1).randbytes(300_000)])
def test_every_cut_of_a_zstd_is_damaged_and_the_whole_is_not(
    tmp_path: Path, data: bytes, checksum: bool
) -> None:
    packs = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=checksum)
    skipped = b"\x5a\x2a\x4d\x18\x05\0\0\0aside"
    first = packs.compress(b"first")
    whole = first + skipped + packs.compress(data) + skipped
    file = tmp_path / "file"
    file.write_bytes(whole)
    assert unpacked(file, 2 << 20) == b"first" + data
    parts = (len(first), len(first + skipped), len(whole) - len(skipped), len(whole))
    for size in (*range(5, len(whole), 1 + len(whole) // 200), *(part - 1 for part in parts)):
        if size not in parts:
            file.write_bytes(whole[:size])
            with pytest.raises(packed.DAMAGED):
                unpacked(file, 2 << 20)

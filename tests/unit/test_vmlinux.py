"""What vmtest reads out of kernel files."""

from __future__ import annotations

import pytest
from fake_kernels import COMPRESSORS, bzimage, elf

from vmtest.errors import KernelUnavailable
from vmtest.kernels.store.vmlinux import decompress, has_pvh_entry, unpack

RELEASE = "6.1.0-56-amd64"


@pytest.mark.parametrize("compression", sorted(COMPRESSORS))
def test_the_elf_in_a_bzimage_is_what_boots(compression: str) -> None:
    found = unpack(bzimage(RELEASE, compression), "k")
    assert (found.release, found.elf, found.data) == (RELEASE, True, elf(RELEASE))


def test_an_elf_is_taken_as_it_is() -> None:
    found = unpack(elf(RELEASE), "k")
    assert (found.release, found.elf) == (RELEASE, True)


def test_without_a_pvh_entry_the_compressed_image_boots() -> None:
    image = bzimage(RELEASE, "xz", elf(RELEASE, pvh=False))
    found = unpack(image, "k")
    assert (found.elf, found.data) == (False, image)
    assert "no PVH entry" in found.note


def test_an_unknown_compression_leaves_the_image_compressed() -> None:
    image = bytearray(bzimage(RELEASE, "zstd"))
    image[1024 + 16 : 1024 + 20] = b"????"
    found = unpack(bytes(image), "k")
    assert (found.release, found.elf, found.data) == (RELEASE, False, bytes(image))


def test_an_elf_without_a_pvh_entry_is_refused() -> None:
    with pytest.raises(KernelUnavailable, match=r"boot/vmlinux.*PVH.*bzImage"):
        unpack(elf(RELEASE, pvh=False), "boot/vmlinux")


def test_a_note_of_another_owner_is_no_pvh_entry() -> None:
    assert has_pvh_entry(elf(RELEASE))
    assert not has_pvh_entry(elf(RELEASE, owner=b"GNU\0"))


def test_a_kernel_for_another_machine_is_refused() -> None:
    with pytest.raises(KernelUnavailable, match="another machine"):
        unpack(elf(RELEASE, machine=183), "k")


def test_the_embedded_config_is_found() -> None:
    assert unpack(elf(RELEASE, config="CONFIG_BPF=y\n"), "k").config == "CONFIG_BPF=y\n"
    assert unpack(elf(RELEASE), "k").config is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"#!/bin/sh\n" * 100, "begin with 23 21"),
        (b"\x1f\x8b" + bytes(1000), "gzip data"),
        (b"!<arch>\ndebian-binary" + bytes(1000), "a .deb package"),
        (bytes(56) + b"ARM\x64" + bytes(1000), "an arm64 image"),
    ],
)
def test_what_is_no_kernel_is_named_with_what_it_looks_like(data: bytes, why: str) -> None:
    with pytest.raises(KernelUnavailable, match="some/file: is not a Linux kernel") as caught:
        unpack(data, "some/file")
    assert why in str(caught.value)


def test_an_elf_that_is_no_kernel_is_refused() -> None:
    data = elf(RELEASE).replace(b"Linux version", b"Other version")
    with pytest.raises(KernelUnavailable, match="no Linux kernel"):
        unpack(data, "k")


def test_a_truncated_kernel_is_refused() -> None:
    with pytest.raises(KernelUnavailable, match=r"^k: is truncated"):
        unpack(bzimage(RELEASE, "xz")[:-20], "k")


def test_a_payload_with_flipped_bits_is_refused() -> None:
    image = bytearray(bzimage(RELEASE, "xz"))
    image[-40] ^= 0xFF
    with pytest.raises(KernelUnavailable, match=r"^k: is damaged"):
        unpack(bytes(image), "k")


@pytest.mark.parametrize("kind", ["xz", "zstd", "gzip"])
def test_a_packed_module_is_unpacked_by_what_it_begins_with(kind: str) -> None:
    packed = COMPRESSORS[kind](b"\x7fELF a module")
    assert decompress(packed, "x.ko") == b"\x7fELF a module"


def test_a_damaged_module_is_named() -> None:
    with pytest.raises(KernelUnavailable, match=r"x\.ko\.xz: is damaged"):
        decompress(b"\xfd7zXZ\0" + b"junk" * 9, "x.ko.xz")


@pytest.mark.parametrize("kind", sorted(COMPRESSORS))
def test_a_payload_that_unpacks_to_more_than_any_kernel_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.store.vmlinux._LARGEST", 1 << 20)
    image = bzimage(RELEASE, kind, elf(RELEASE) + bytes(2 << 20))
    with pytest.raises(KernelUnavailable, match=r"^k: is damaged: .*unpacks to more than"):
        unpack(image, "k")


@pytest.mark.parametrize("kind", sorted(COMPRESSORS))
def test_a_module_that_unpacks_to_more_than_any_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.store.vmlinux._LARGEST", 1 << 20)
    with pytest.raises(KernelUnavailable, match=r"^x\.ko: is damaged: it unpacks to more than"):
        decompress(COMPRESSORS[kind](bytes(2 << 20)), "x.ko")

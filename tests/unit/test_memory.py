"""A guest's memory as a file without a name: what is kept of it, and who may open it."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtest.vm.memory import Memory, Part

PAGE = 4096
SIZE = 8 << 20


@pytest.fixture
def memory() -> Iterator[Memory]:
    with closing(Memory(SIZE)) as made:
        yield made


def put(memory: Memory, place: int, data: bytes) -> None:
    """As QEMU does: through a mapping of the file at its path."""
    with memory.path.open("r+b") as file, mmap.mmap(file.fileno(), memory.size) as mapped:
        mapped[place : place + len(data)] = data


def kept(memory: Memory, to: Path) -> list[Part]:
    with to.open("wb") as file:
        return memory.write_to(file)


def test_it_begins_as_zeros_and_nothing_is_kept_of_them(memory: Memory, tmp_path: Path) -> None:
    assert memory.path.read_bytes() == bytes(SIZE)
    assert kept(memory, tmp_path / "kept") == []
    assert (tmp_path / "kept").read_bytes() == b""


def test_pages_that_are_not_zero_are_kept_whole(memory: Memory, tmp_path: Path) -> None:
    put(memory, 5 * PAGE + 7, b"five")
    put(memory, 6 * PAGE + 4095, b"six")  # and the first bytes of seven
    put(memory, 20 * PAGE, bytes(PAGE))  # written, and zero
    put(memory, SIZE - 1, b"e")
    assert kept(memory, tmp_path / "kept") == [(5 * PAGE, 3 * PAGE), (SIZE - PAGE, PAGE)]
    data = (tmp_path / "kept").read_bytes()
    assert len(data) == 4 * PAGE
    assert data[7:11] == b"five" and data[2 * PAGE - 1 : 2 * PAGE + 2] == b"six"
    assert data[-1:] == b"e"


def test_a_part_goes_on_beyond_what_is_read_at_once(memory: Memory, tmp_path: Path) -> None:
    put(memory, PAGE, b"x" * (3 << 20))
    assert kept(memory, tmp_path / "kept") == [(PAGE, 3 << 20)]


@given(st.lists(st.integers(0, SIZE // PAGE - 1), max_size=40), st.randoms())
def test_what_is_kept_comes_back(pages: list[int], chance: random.Random) -> None:
    with closing(Memory(SIZE)) as one, closing(Memory(SIZE)) as other:
        for page in pages:
            put(one, page * PAGE + chance.randrange(PAGE - 8), chance.randbytes(8))
        descriptor = os.memfd_create("kept")
        with os.fdopen(descriptor, "w+b") as file:
            parts = one.write_to(file)
            file.flush()
            other.read_from(file, parts)
        assert other.path.read_bytes() == one.path.read_bytes()


def test_a_file_that_ends_too_early_is_an_error(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"x" * (PAGE - 1))
    with (tmp_path / "kept").open("rb") as file, pytest.raises(OSError, match="ends too early"):
        memory.read_from(file, [(0, PAGE)])


def test_it_is_gone_for_others_once_it_is_closed() -> None:
    memory = Memory(PAGE)
    assert memory.unreachable() == ""
    path = memory.path
    memory.close()
    assert not path.exists()


def test_a_size_that_cannot_be_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Invalid argument"):
        Memory(-1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


CLOSED = """
import ctypes, os, sys
from vmtest.vm.memory import Memory
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
print(Memory(4096).unreachable())
"""


def test_a_process_that_keeps_others_out_is_told_so() -> None:
    """As one whose program file gives it rights of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], capture_output=True, text=True, check=False
    )
    assert done.stdout == "other processes of this user may not open what this one has open\n"


def test_another_file_at_its_path_is_not_taken_for_it(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where /proc shows other processes than this one knows: QEMU would write to their file."""
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    for place in (other, tmp_path / "none"):
        monkeypatch.setattr(Memory, "path", place)
        assert memory.unreachable() == "/proc is that of another PID namespace"


def test_a_host_that_promises_no_memory_is_told_so(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = tmp_path / "overcommit_memory"
    strict.write_text("2\n")
    monkeypatch.setattr("vmtest.vm.memory._OVERCOMMIT", strict)
    assert "vm.overcommit_memory=2" in memory.unreachable()


def test_nobody_makes_it_shorter(memory: Memory) -> None:
    with memory.path.open("r+b") as file, pytest.raises(PermissionError):
        os.truncate(file.fileno(), 0)

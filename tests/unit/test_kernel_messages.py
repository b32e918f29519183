"""The guest's look at /dev/kmsg, on a fifo: what a process writes there is a record."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from vmtest.guest.kernel_messages import KernelMessages
from vmtest.vm.klog import as_dmesg

FIRST = b"6,41,8849460,-;the guest is up\n SUBSYSTEM=block\n"
SECOND = b"4,42,19948079,-;WARNING: CPU: 0\n"


class Kernel:
    """What writes the records, and who reads them; all before ``FIRST`` is read already."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._held = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.file: BinaryIO = path.open("wb", buffering=0)
        self.file.write(FIRST)
        self.messages = KernelMessages(str(path))

    def close(self) -> None:
        os.close(self._held)
        self.file.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path / "kmsg")
    yield made
    made.close()


def test_what_was_there_before_is_not_new_and_its_time_is_known(kernel: Kernel) -> None:
    assert (kernel.messages.seen, kernel.messages.new()) == (8849460, "")


def test_a_record_is_told_once(kernel: Kernel) -> None:
    kernel.file.write(SECOND)
    assert [kernel.messages.new(), kernel.messages.new()] == [SECOND.decode().strip(), ""]
    assert kernel.messages.seen == 19948079


def test_a_descriptor_that_a_test_replaced_is_not_read(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(SECOND)
    with (tmp_path / "own").open("rb") as own:
        os.dup2(own.fileno(), kernel.messages._file)
    assert kernel.messages.new() == ""


def test_a_descriptor_that_a_test_closed_is_not_read(kernel: Kernel) -> None:
    os.close(kernel.messages._file)
    assert kernel.messages.new() == ""


def test_a_descriptor_that_would_wait_is_not_read(kernel: Kernel) -> None:
    os.set_blocking(kernel.messages._file, True)
    assert kernel.messages.new() == ""


def test_a_guest_without_the_file_has_no_messages(tmp_path: Path) -> None:
    messages = KernelMessages(str(tmp_path / "none"))
    assert (messages.new(), messages.seen) == ("", 0)


def test_records_are_shown_as_dmesg_shows_them() -> None:
    lines = r"6,1,8849460,-;a\x0ab" + "\nnot a record\n4,2,19948079,-;c"
    assert as_dmesg(lines) == "[    8.849460] a\n[    8.849460] b\n[   19.948079] c\n"

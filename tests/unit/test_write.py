"""Files are written beside and renamed; what is no regular file is written through."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmtest.errors import os_words
from vmtest.host.write import LimitedLog, LimitedRows, append, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_reader_has_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "r.xml"
    file.write_text("old")
    with file.open() as reader:
        write_file(file, "new")
        assert reader.read() == "old"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["r.xml"]


def test_pieces_are_one_file(tmp_path: Path) -> None:
    file = tmp_path / "r.xml"
    write_file(file, (b"%d," % number for number in range(1000)))
    assert file.read_text() == "".join(f"{number}," for number in range(1000))
    assert names(tmp_path) == ["r.xml"]


def test_pieces_that_end_early_leave_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise ValueError("no more")

    file = tmp_path / "r.xml"
    file.write_text("old")
    with pytest.raises(ValueError, match="no more"):
        write_file(file, pieces())
    assert file.read_text() == "old"
    assert names(tmp_path) == ["r.xml"]


def test_pieces_are_whole_in_a_file_that_cannot_be_replaced(tmp_path: Path) -> None:
    """A rename over a mount fails once all pieces are written beside it."""
    (tmp_path / "volume").touch()
    (tmp_path / "r.xml").touch()
    script = (
        "from pathlib import Path; from vmtest.host.write import write_file; "
        "write_file(Path('r.xml'), (b'%d,' % number for number in range(4)))"
    )
    shell = 'mount --bind volume r.xml && exec "$0" -c "$1"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    mounted = ["unshare", *user, "--mount", "sh", "-c", shell, sys.executable, script]
    subprocess.run(mounted, cwd=tmp_path, check=True)
    assert (tmp_path / "volume").read_text() == "0,1,2,3,"
    assert names(tmp_path) == ["r.xml", "volume"]


def test_a_symbolic_link_stays_and_its_file_changes(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "r.xml"
    for _ in range(2):  # to nothing at first
        link.unlink(missing_ok=True)
        link.symlink_to("there/real.xml")
        write_file(link, "new")
        assert link.is_symlink()
        assert (tmp_path / "there" / "real.xml").read_text() == "new"


def test_permissions_stay_and_those_of_a_new_file_are_the_umasks(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch(0o640)
    mask = os.umask(0o027)
    try:
        write_file(old, "")
        write_file(new, "")
    finally:
        os.umask(mask)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (old, new)] == [0o640, 0o640]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 255)
    write_file(file, "here")
    assert file.read_text() == "here"


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, "through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


SCRIPT = """
import sys
from collections.abc import Iterator
from pathlib import Path
from vmtest.host.write import write_file
print("the table")
write_file(Path(sys.argv[1]), "the report\\n")
print("the end")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "link"])
def test_standard_output_gets_it_between_what_is_printed(name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    out = tmp_path / "out"
    with out.open("wb") as stream:
        subprocess.run(
            [sys.executable, "-c", SCRIPT, name], cwd=tmp_path, stdout=stream, check=True
        )
    assert out.read_text() == "the table\nthe report\nthe end\n"


def test_a_full_device_is_named_with_the_cure() -> None:
    with pytest.raises(OSError) as error:
        write_file(Path("/dev/full"), "x")
    assert os_words(error.value) == "/dev/full: No space left on device; make room there"


def test_a_folder_that_is_gone_is_named_with_the_cure(tmp_path: Path) -> None:
    file = tmp_path / "gone" / "r.xml"
    with pytest.raises(OSError) as error:
        write_file(file, "x")
    assert os_words(error.value) == f"{file}: No such file or directory; is its folder still there?"


def test_a_disk_that_fills_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: in the middle."""
    file = tmp_path / "r.xml"
    file.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*r\.xml'"):
            write_file(file, "x" * 2000)
        with (tmp_path / "log").open("wb", buffering=0) as log:
            with pytest.raises(OSError, match=r"File too large: '.*log'"):
                append(log, b"x" * 2000)
            log.seek(0)  # closing does not fail once more
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["log", "r.xml"]


def test_a_folder_that_takes_no_new_file_has_its_file_written_in_place(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes into any folder")
    file = tmp_path / "ro" / "r.xml"
    file.parent.mkdir()
    file.write_text("old")
    file.parent.chmod(0o555)
    try:
        write_file(file, "new")
    finally:
        file.parent.chmod(0o755)
    assert file.read_text() == "new"


def test_a_log_without_end_is_cut_and_says_so(tmp_path: Path) -> None:
    with LimitedLog(tmp_path / "log", limit=1 << 20) as log:
        for _ in range(5):
            append(log, b"x" * 300_000)
    data = (tmp_path / "log").read_bytes()
    assert data == b"x" * (1 << 20) + b"\n(vmtest: over 1 MiB: the rest is not kept)\n"


def test_a_log_that_goes_on_counts_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 10)
    with LimitedLog(tmp_path / "log", "ab", limit=15) as log:
        append(log, b"y" * 10)
    assert (tmp_path / "log").read_bytes().startswith(b"x" * 10 + b"y" * 5 + b"\n(vmtest: over")


def test_rows_without_end_are_refused_and_those_before_are_whole(tmp_path: Path) -> None:
    with LimitedRows(tmp_path / "rows", limit=1 << 20) as rows:
        append(rows, b"x" * 999_999 + b"\n")
        with pytest.raises(OSError, match="the guest sent more than 1 MiB of results") as raised:
            append(rows, b"y" * 99_999 + b"\n")
        append(rows, b"z\n")
    assert raised.value.filename == str(tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == b"x" * 999_999 + b"\nz\n"


def test_rows_of_a_second_guest_count_together_with_those_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"x" * 10)
    with LimitedRows(tmp_path / "rows", "ab", limit=15) as rows, pytest.raises(OSError):
        append(rows, b"y" * 10)
    assert (tmp_path / "rows").read_bytes() == b"x" * 10

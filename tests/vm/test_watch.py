"""``vmtest watch`` against a real kernel: one session, one save after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_kernels import KERNEL, PROJECT
from watch import Session

from vmtest.model.kernels import RootImage

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int first(struct xdp_md *ctx) { return RESULT; }
char _license[] SEC("license") = "GPL";
"""
GOOD = PROGRAM.replace("RESULT", "ctx ? XDP_PASS : XDP_DROP")
LONGER = PROGRAM.replace("RESULT", "ctx->data == ctx->data_end ? XDP_DROP : XDP_PASS")
REJECTED = PROGRAM.replace("RESULT", "*(int *)(long)ctx->data")
TEST = """
def test_kernel():
    open("/proc/sysrq-trigger", "w").write("LETTER")
"""


def descendants(pid: int) -> list[int]:
    """The processes below ``pid`` at this moment."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *descendants(child)]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = (PROJECT / "kernels.toml").read_text().partition("[[suite]]")[0]
    suite = '[[suite]]\nname = "own"\ntests = "test_own.py"\nobjects = ["one"]\n'
    build = '[[object]]\nname = "one"\npath = "build/one.bpf.o"\n'
    (tmp_path / "kernels.toml").write_text(f"{own}{suite}{build}")
    (tmp_path / "bpf/include").mkdir(parents=True)
    (tmp_path / "bpf/one.bpf.c").write_text(GOOD)
    (tmp_path / "test_own.py").write_text(TEST.replace("LETTER", "h"))
    return tmp_path


@contextmanager
def watching(folder: Path, *arguments: str) -> Iterator[Session]:
    session = Session(folder, [*arguments, "--kernel", KERNEL])
    try:
        yield session
    finally:
        session.process.kill()
        session.process.communicate()


@pytest.fixture
def session(folder: Path, root: RootImage) -> Iterator[Session]:
    assert root.path is not None, "the guest image is made before the session begins"
    with watching(folder) as session:
        yield session


def test_each_loader_answers_a_save(folder: Path, root: RootImage) -> None:
    assert root.path is not None, "the guest image is made before the session begins"
    loaders = ("--loader", "libbpf", "--loader", "cilium")
    with watching(folder, "verify", *loaders) as session:
        assert "verify: 1 kernel passed" in session.round()
        (folder / "bpf/one.bpf.c").write_text(LONGER)
        said = session.round()
        assert re.search(r"cost one: first: instructions \d+ -> \d+", said), said
        assert re.search(r"cost one \(cilium/ebpf \S+\): first: instructions", said), said
        assert session.interrupt() == 130


def test_every_save_is_answered_whatever_came_of_the_one_before(
    session: Session, folder: Path
) -> None:
    program, test = folder / "bpf/one.bpf.c", folder / "test_own.py"
    said = session.round()
    assert "verify: 1 kernel passed; run: 1 kernel passed" in said, said

    program.write_text(LONGER)
    said = session.round()
    assert "changes since the last save" in said and "instructions" in said, said

    program.write_text("int (")
    said = session.round()
    assert "clang failed" in said, said
    assert "build: failed" in said, said

    program.write_text(REJECTED)
    said = session.round()
    assert "verify: 0 of 1 kernel passed; 6.12: 2 rejected" in said, said

    test.write_text(TEST.replace("LETTER", "c"))
    said = session.round()
    assert "run: 0 of 1 kernel passed; 6.12: kernel panicked" in said, said
    assert "verifying" not in said, said

    test.write_text(TEST.replace("LETTER", "h"))
    said = session.round()
    assert "run: 1 kernel passed" in said, said

    assert (folder / ".vmtest/waiting").is_dir(), "no guest was restored ahead"
    family = descendants(session.process.pid)
    assert session.interrupt() == 130
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []

"""What ``vmtest verify`` does before it is asked: a loader that waits, and what a kernel can do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from vmtest.host.files import FileContent, Files, tar
from vmtest.matrix.bench import Job
from vmtest.verify.ahead import loader_argv, parted
from vmtest.verify.features import Features
from vmtest.vm.guest_code import guest_code

WHOLE = "Scanning eBPF helper functions...\nScanning miscellaneous eBPF features...\nyes\n"


def job(**parts: object) -> Job:
    """A job as far as it tells what bpftool would say."""
    of = {
        "digest": "kernel",
        "release": "6.12.1",
        "root": "root",
        "libraries": (),
        "cmdline": (),
        **parts,
    }
    root = SimpleNamespace(digest=of["root"], kind="disk", libraries=of["libraries"])
    image = SimpleNamespace(digest=of["digest"], release=of["release"])
    kernel = SimpleNamespace(cmdline=of["cmdline"])
    return cast(Job, SimpleNamespace(image=image, root=root, kernel=kernel))


def test_what_bpftool_said_is_known_the_next_time(tmp_path: Path) -> None:
    Features.of(job(), tmp_path).keep(WHOLE)
    assert Features.of(job(), tmp_path).known == WHOLE


@pytest.mark.parametrize(
    "part",
    [
        {"digest": "another"},
        {"root": "another"},
        {"cmdline": ("lockdown=integrity",)},
        {"libraries": (SimpleNamespace(version="1.1"),)},
    ],
)
def test_another_kernel_guest_or_command_line_is_asked_anew(
    part: dict[str, object], tmp_path: Path
) -> None:
    Features.of(job(), tmp_path).keep(WHOLE)
    assert Features.of(job(**part), tmp_path).known == ""


def test_a_kernel_or_guest_that_nothing_tells_apart_is_asked_every_time(tmp_path: Path) -> None:
    for part in ({"digest": ""}, {"root": ""}):
        Features.of(job(**part), tmp_path).keep(WHOLE)
        assert Features.of(job(**part), tmp_path).known == ""


def test_what_bpftool_did_not_say_to_its_end_is_not_kept(tmp_path: Path) -> None:
    for text in ("bpftool: No such file or directory\n", "Scanning eBPF helper functions...\n"):
        Features.of(job(), tmp_path).keep(text)
    assert Features.of(job(), tmp_path).known == ""


def test_a_damaged_file_is_not_known(tmp_path: Path) -> None:
    kept = Features.of(job(), tmp_path)
    kept.keep(WHOLE)
    assert kept.place is not None
    kept.place.write_text(kept.place.read_text().replace("yes", "no"))
    assert kept.known == ""


def test_a_payload_is_parted_into_what_waits_and_the_objects() -> None:
    code = guest_code(Files())
    program = FileContent(b"a program", True, "")
    waits: dict[str, FileContent | bytes] = {"modules": b"dummy\n", "loaders/0": program}
    whole = tar({**code, "objects/000.o": b"one", "objects/001.o": b"two", **waits})
    rest, objects = parted(whole)
    assert objects == {"objects/000.o": b"one", "objects/001.o": b"two"}
    assert rest == tar({**code, **waits})


def test_a_loader_reads_the_rules_of_reasons_once_something_failed() -> None:
    read = "import sys, vmtest.guest.loader.main; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    modules = [name for name in said.stdout.split() if name.startswith("vmtest.guest.loader.")]
    assert "vmtest.guest.loader.why" in modules
    assert not [name for name in modules if name.endswith(("rules", "reasons"))]


def test_a_loader_that_waits_differs_by_a_word() -> None:
    assert [*loader_argv("python3", "1.5"), "wait"] == loader_argv("python3", "1.5", waits=True)

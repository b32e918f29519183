"""How a guest may end, or what it may send, by the doing of a test: each costs its own kernel."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from any_guest import in_guest
from command import Said
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from real_kernels import KERNEL
from test_guest_faults import kernels_of, outcomes

from tests.faults.fixtures import Noticed
from vmtest.model.kernels import KernelImage

pytest_plugins = ("test_guest_faults",)

KILL = """
    for entry in pathlib.Path("/proc").glob("[0-9]*/comm"):
        if entry.read_text().strip() == "{name}":
            os.kill(int(entry.parent.name), 9)
    time.sleep(600)
"""
SEND = """
    if os.fork() == 0:
        for number in range(3, 64):
            try:
                if not os.path.isfile(f"/proc/self/fd/{number}"):
                    for _ in range({times}):
                        os.write(number, {data})
            except OSError:
                pass
        os._exit(0)
    os.wait()
"""
FORGED = json.dumps({"event": "finish", "key": "0" * 16, "status": 0}).encode() + b"\n"


def is_lost(said: Said, folder: Path, reason: str) -> None:
    """Assert that the test in the middle of three cost its guest."""
    assert said.status == 1, said
    (kernel,) = kernels_of(folder)
    assert (kernel["status"], outcomes(kernel)) == ("LOST", ["passed", "lost", "not run"]), said.out
    assert reason in kernel["reason"]
    assert "while test_own.py::test_it ran" in kernel["reason"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            'write("/proc/sysrq-trigger", "b")\ntime.sleep(600)', "QEMU ended", id="reboot"
        ),
        pytest.param(
            'write("/proc/sysrq-trigger", "o")\ntime.sleep(600)', "QEMU ended", id="poweroff"
        ),
        pytest.param(KILL.format(name="busybox"), "SSH server (sshd) ended", id="agent"),
        pytest.param("os.kill(os.getpid(), 9)", "exit status 137 (SIGKILL)", id="pytest"),
    ],
)
def test_a_guest_that_a_test_ends_is_lost_and_keeps_what_had_finished(
    body: str, reason: str, ran: Callable[..., Said], tmp_path: Path, noticed: Noticed
) -> None:
    is_lost(ran(body), tmp_path, reason)
    noticed.in_run(tmp_path, "test_it")


@pytest.mark.parametrize(
    ("times", "data", "reason"),
    [
        (1, repr(FORGED), "has another key: it was not written by the process that reports"),
        (65, "bytes(1 << 20)", "has more than 67108864 bytes"),
    ],
    ids=["a forged event", "64 MiB"],
)
def test_what_another_process_sends_in_place_of_pytest_is_no_event(
    times: int,
    data: str,
    reason: str,
    ran: Callable[..., Said],
    tmp_path: Path,
    noticed: Noticed,
) -> None:
    body = SEND.replace("{times}", str(times)).replace("{data}", data)
    is_lost(ran(body), tmp_path, reason)
    noticed.in_run(tmp_path, "test_it")


FILL = """
    filled = os.open("/tmp/filled", os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(filled, bytes(1 << 20))
    except OSError as error:
        assert error.errno == 28, error
    print("much to say" * 1000)
"""


def test_a_full_disk_of_the_guest_costs_the_test_that_fills_it(
    ran: Callable[..., Said], tmp_path: Path
) -> None:
    said = ran(FILL)
    (kernel,) = kernels_of(tmp_path)
    # pytest keeps what a test prints on the same disk.
    assert (said.status, outcomes(kernel)) == (1, ["passed", "failed", "passed"]), said
    assert "No space left on device" in kernel["tests"][1]["message"]


def broken(image: KernelImage) -> bytes:
    """The kernel's module dummy, whose first instruction is one that no processor has."""
    assert image.modules is not None
    (file,) = image.modules.rglob("dummy.ko.xz")
    module = bytearray(lzma.decompress(file.read_bytes()))
    del module[module.rindex(b"~Module signature appended~") :]  # it would be wrong
    elf = ELFFile(io.BytesIO(module))
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    symbols = table.get_symbol_by_name("init_module")
    assert symbols is not None
    (symbol,) = symbols
    at = elf.get_section(symbol["st_shndx"])["sh_offset"] + symbol["st_value"]
    assert module[at : at + 4] == b"\xf3\x0f\x1e\xfa"  # endbr64
    module[at : at + 2] = b"\x0f\x0b"  # ud2
    return bytes(module)


OOPS = """
import pathlib, subprocess

def test_before():
    pass

def test_it():
    module = pathlib.Path(__file__).with_name("broken.ko")
    assert subprocess.run(["insmod", module]).returncode != 0

def test_after():
    pass
"""


def test_an_oops_that_the_kernel_survives_is_no_pass_and_costs_no_result(
    project: Callable[..., Path], image: KernelImage
) -> None:
    folder = project(OOPS)
    (folder / "checks" / "broken.ko").write_bytes(broken(image))
    config = folder / "kernels.toml"
    config.write_text(config.read_text().replace("checks/test_own.py", "checks"))
    said = in_guest("run", cwd=folder)
    (kernel,) = kernels_of(folder)
    assert (said.status, kernel["status"]) == (1, "SPLAT"), said
    assert outcomes(kernel) == ["passed"] * 3
    assert "invalid opcode" in kernel["splats"][0]
    assert kernel["splat_tests"] == ["test_own.py::test_it"]


def ran_command(
    project: Callable[..., Path], script: str, *options: str
) -> tuple[Said, Path, dict[str, Any]]:
    """What ``vmtest exec`` of a script says, its log, and its only kernel's result."""
    folder = project("")
    config = folder / "kernels.toml"
    config.write_text(config.read_text().split("[[suite]]")[0])
    (folder / "t.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "t.sh").chmod(0o755)
    said = in_guest("exec", "--copy", "t.sh", *options, "./t.sh", cwd=folder)
    run = folder / ".vmtest" / "latest"
    (kernel,) = json.loads((run / "matrix.json").read_text())["kernels"]
    return said, run / KERNEL, kernel


def test_a_panic_while_results_are_copied_is_one_and_keeps_what_had_come(
    project: Callable[..., Path],
) -> None:
    # The kernel dies when half of the file has been read.
    script = (
        "mkfifo r.xml; { exec >r.xml; echo '<testsuite><testcase name=\"a\"/>'; sleep 1;"
        " echo c >/proc/sysrq-trigger; } </dev/null 2>/dev/null & echo all is well"
    )
    said, logs, kernel = ran_command(project, script, "--results", "junit:r.xml")
    assert (said.status, kernel["status"]) == (1, "PANICKED"), said
    assert "sysrq triggered crash" in kernel["reason"]
    assert (logs / "command.log").read_text() == "all is well\n"


def test_an_output_of_200_megabytes_in_lines_without_an_end_arrives_whole(
    project: Callable[..., Path],
) -> None:
    script = (
        "echo 1..2; echo ok 1 - a; tr '\\0' x </dev/zero | head -c 200000000; echo; echo ok 2 - b"
    )
    said, logs, kernel = ran_command(project, script, "--results", "tap")
    assert (said.status, kernel["status"]) == (0, "PASSED"), said.err[-2000:]
    assert [(test["test"], test["outcome"]) for test in kernel["tests"]] == [
        ("a", "passed"),
        ("b", "passed"),
    ]
    assert (logs / "command.log").stat().st_size == 200_000_000 + len(
        "1..2\nok 1 - a\n\nok 2 - b\n"
    )

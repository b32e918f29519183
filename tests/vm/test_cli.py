"""The command against real VMs, in a project that is not this one: its own suites and build."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from any_guest import in_guest
from command import Said, vmtest
from real_kernels import KERNEL

from tests.faults.fixtures import Noticed
from vmtest.host.cache import find_tool
from vmtest.model.kernels import KernelImage


def matrix(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / ".vmtest" / "latest" / "matrix.json").read_text()))


def kernel_of(project: Path) -> dict[str, Any]:
    (only,) = matrix(project)["kernels"]
    return dict(only)


def outcomes(project: Path) -> dict[str, str]:
    tests = kernel_of(project)["tests"]
    return {t["test"].split("::")[-1]: t["outcome"] for t in tests}


def ends(said: Said, status: int, *parts: str) -> None:
    """Assert how a run ended: its status, no traceback, and ``parts`` in its report."""
    assert said.status == status, said
    assert "Traceback" not in said.err, said.err
    for part in parts:
        assert part in said.out, f"{part!r} is not in:\n{said.out}"


def test_another_project_with_its_own_suite_and_build(
    project: Callable[..., Path], image: KernelImage
) -> None:
    folder = project(
        f"""
        import os

        def test_runs_in_the_guest():
            assert os.uname().release == {image.release!r}

        def test_has_the_folder_beside_it():
            assert os.path.exists("/tmp/vmtest/suites/test_own.py")
        """
    )
    files = ("--junit", "j.xml", "--markdown", "m.md", "--json", "m.json")
    said = vmtest("run", "--cold", *files, cwd=folder)
    ends(said, 0, "PASSED", "2 passed", image.release)
    assert (folder / "out" / "program.txt").read_text() == "a program\n"
    run = folder / ".vmtest" / "latest"
    for name in ("console.log", "dmesg.log", "results.jsonl", "junit.xml", "pytest.log"):
        assert (run / KERNEL / name).stat().st_size > 0, name
    assert 'classname="vmtest.k6_12.test_own"' in (folder / "j.xml").read_text()
    assert json.loads((folder / "m.json").read_text()) == matrix(folder)
    again = vmtest("report", cwd=folder)
    assert again.status == 0
    assert (
        again.out.splitlines()[0:5]
        == [line for line in said.out.splitlines() if not line.startswith("[")][0:5]
    )


@pytest.mark.parametrize(("value", "reached"), [("true", False), ('"outbound"', True)])
def test_a_network_card_has_an_address_and_reaches_the_host_only_when_asked(
    value: str, reached: bool, project: Callable[..., Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        folder = project(
            f"""
            import socket
            import subprocess

            def test_the_card_has_an_address():
                said = subprocess.run(["ip", "-4", "address"], capture_output=True, text=True)
                assert "inet 10.0.2.15/24" in said.stdout

            def test_the_hosts_loopback():
                try:
                    socket.create_connection(("10.0.2.2", {server.getsockname()[1]}), 5).close()
                    reached = True
                except OSError:
                    reached = False
                assert reached is {reached}
            """
        )
        config = folder / "kernels.toml"
        config.write_text(config.read_text() + f"network = {value}\n")
        ends(vmtest("run", "--cold", cwd=folder), 0, "2 passed")
        server.settimeout(0)
        if reached:
            server.accept()[0].close()
        else:
            with pytest.raises(BlockingIOError):
                server.accept()


def test_a_shell_needs_no_suite(project: Callable[..., Path], image: KernelImage) -> None:
    folder = project("")
    config = folder / "kernels.toml"
    config.write_text(config.read_text().split("[[suite]]")[0])
    said = in_guest("shell", KERNEL, "--", "sh", "-c", "uname -r; ls /tmp/vmtest", cwd=folder)
    assert said.status == 0, said
    assert said.out.split() == [image.release, "config", "known_failures.json", "vmtest"]


def test_failures_are_one_and_their_assertions_are_shown(project: Callable[..., Path]) -> None:
    folder = project("def test_a():\n    assert 1 == 2\ndef test_b():\n    pass\n")
    ends(in_guest("run", cwd=folder), 1, "FAILED", "assert 1 == 2", "test_a")
    assert outcomes(folder) == {"test_a": "failed", "test_b": "passed"}


def test_a_suite_that_fails_to_import_is_a_failure_not_a_fault(
    project: Callable[..., Path],
) -> None:
    folder = project("import no_such_module\n")
    ends(in_guest("run", cwd=folder), 1, "test_own.py", "No module named 'no_such_module'")


def test_no_tests_collected_is_five(project: Callable[..., Path]) -> None:
    folder = project("def test_a():\n    pass\n")
    ends(in_guest("run", "-k", "nothing_is_called_so", cwd=folder), 5, "NO_TESTS")


@pytest.mark.parametrize("arguments", [["--collect-only"], ["--", "--co"]], ids=" ".join)
def test_listing_the_tests_boots_one_kernel_and_is_no_pass(
    arguments: list[str], project: Callable[..., Path], image: KernelImage
) -> None:
    same = f'[[kernel]]\nname = "same"\npath = "{image.image}"\nmodules = "{image.modules}"\n'
    folder = project("def test_a():\n    assert False\ndef test_b():\n    pass\n", same)
    reports = ("--junit", "j.xml", "--markdown", "m.md")
    said = in_guest("run", *reports, *arguments, cwd=folder)
    ends(said, 0, "COLLECTED", "2 collected", f"collected on {KERNEL} alone: same would get")
    assert outcomes(folder) == {"test_a": "collected", "test_b": "collected"}
    assert "COLLECTED" in (folder / "m.md").read_text()
    assert (folder / "j.xml").read_text().count('type="vmtest.collected"') == 2


def test_listing_no_test_is_five(project: Callable[..., Path]) -> None:
    folder = project("def test_a():\n    pass\n")
    ends(in_guest("run", "--collect-only", "-k", "nothing", cwd=folder), 5, "NO_TESTS")


def test_a_run_whose_tests_were_all_skipped_is_five(project: Callable[..., Path]) -> None:
    folder = project("import pytest\ndef test_a():\n    pytest.skip('not here')\n")
    ends(in_guest("run", cwd=folder), 5, "1 skipped", "(exit status 5: nothing ran)")


PANICS = """
def test_a():
    pass

def test_panics():
    open("/proc/sysrq-trigger", "w").write("c")

def test_c():
    open("/dev/kmsg", "w").write("c ran")
"""


def test_a_test_that_panics_the_kernel_keeps_what_had_finished(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(PANICS)
    said = in_guest("run", cwd=folder)
    ends(said, 1, "PANICKED", "sysrq triggered crash", "while checks/test_own.py::test_panics ran")
    ends(said, 1, f"{KERNEL}/console.log")
    noticed.in_run(folder, "test_panics")
    assert outcomes(folder) == {"test_a": "passed", "test_panics": "lost", "test_c": "not run"}
    rows = (folder / ".vmtest" / "latest" / KERNEL / "results.jsonl").read_text().splitlines()
    assert [json.loads(row)["test"] for row in rows] == ["test_own.py::test_a"]


def test_with_keep_going_a_panic_costs_its_own_test(project: Callable[..., Path]) -> None:
    folder = project(PANICS)
    said = in_guest("run", "--keep-going", cwd=folder)
    ends(said, 1, "PANICKED", "test_own.py::test_panics ran", "the rest: passed")
    assert outcomes(folder) == {"test_a": "passed", "test_panics": "lost", "test_c": "passed"}
    logs = folder / ".vmtest" / "latest" / KERNEL
    assert "c ran" in (logs / "dmesg-2.log").read_text()
    rows = (logs / "results.jsonl").read_text().splitlines()
    assert [json.loads(row)["test"] for row in rows] == [
        "test_own.py::test_a",
        "test_own.py::test_c",
    ]


def test_isolated_files_do_not_see_each_other_and_are_one_result(
    project: Callable[..., Path],
) -> None:
    leaves = """
import pathlib

LEFT = pathlib.Path("/tmp/left")

def test_finds_nothing_of_another_file():
    assert not LEFT.exists()
    LEFT.touch()
"""
    folder = project(leaves)
    (folder / "checks" / "test_other.py").write_text(leaves)
    config = folder / "kernels.toml"
    config.write_text(config.read_text().replace("checks/test_own.py", "checks"))
    ends(in_guest("run", "--isolate", "file", cwd=folder), 0, "2 passed", "2 guests, one for each")


def test_a_panic_after_the_last_test_is_no_pass(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(
        """
        import os
        import subprocess
        import sys

        # As soon as pytest has ended, when the kernel frees what it had loaded: the end wakes a
        # process that runs before everybody else's.
        CRASH = '''
        import os, select, sys
        parent = os.pidfd_open(os.getppid())
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        trigger = open("/proc/sysrq-trigger", "w")
        print("ready", flush=True)
        select.select([parent], [], [])
        trigger.write("c")
        trigger.flush()
        '''

        def test_a():
            crash = subprocess.Popen(
                [sys.executable, "-c", CRASH], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )
            assert crash.stdout.readline() == b"ready\\n"
        """
    )
    ends(vmtest("run", cwd=folder), 1, "PANICKED", "sysrq triggered crash")
    assert outcomes(folder) == {"test_a": "passed"}
    noticed.in_run(folder, "test finished")


def test_a_suite_that_stops_early_is_no_pass(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(
        "import pytest\ndef test_a():\n    pytest.exit('enough')\ndef test_b():\n    pass\n"
    )
    said = in_guest("run", cwd=folder)
    ends(said, 1, "LOST", "1 lost, 1 not run: pytest stopped early (status 2)")
    noticed.in_run(folder, "test_a")


def test_a_test_that_hangs_is_given_up_at_the_deadline(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project("import time\ndef test_hangs():\n    time.sleep(3600)\n")
    config = folder / "kernels.toml"
    config.write_text(
        config.read_text().replace('silence_timeout = "20s"', 'silence_timeout = "8s"')
    )
    said = in_guest("run", cwd=folder)
    ends(said, 1, "TIMED_OUT", "silence deadline", "test_own.py::test_hangs ran")
    assert outcomes(folder) == {"test_hangs": "lost"}
    noticed.in_run(folder, "test_hangs")
    log = (folder / ".vmtest" / "latest" / KERNEL / "pytest.log").read_text()
    assert "in test_hangs" in log


def test_a_test_that_fills_the_guests_memory_is_named(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(
        """
        def test_a():
            pass

        def test_asks_for_too_much_at_once():
            bytearray(1 << 40)

        def test_fills():
            hold = []
            while True:
                hold.append(b"x" * (1 << 24))
        """
    )
    said = in_guest("run", cwd=folder)
    ends(said, 1, "LOST", "ran out of memory (512 MiB; raise memory in kernels.toml)")
    ends(said, 1, "test_own.py::test_fills ran")
    assert outcomes(folder) == {
        "test_a": "passed",
        "test_asks_for_too_much_at_once": "failed",
        "test_fills": "lost",
    }
    noticed.in_run(folder, "test_fills")


def test_a_kernel_complaint_under_passing_tests_is_no_pass(project: Callable[..., Path]) -> None:
    folder = project(
        r"""
        def test_complains():
            # As the kernel would say it, and through its log.
            with open("/dev/kmsg", "wb", buffering=0) as log:
                log.write(b"<4>WARNING: CPU: 0 PID: 1 at made/up.c:1 by_a_test+0x0/0x0\n")
        """
    )
    ends(in_guest("run", cwd=folder), 1, "SPLAT", "made/up.c:1")


def test_a_kernel_that_panics_at_boot_is_no_test_failure(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project("def test_a():\n    pass\n", 'cmdline = ["rdinit=/bin/busybox"]\nretries = 0')
    said = vmtest("run", cwd=folder)
    ends(said, 3, "BOOT_FAILED", "Attempted to kill init", "console.log")
    section = said.out[said.out.index("BOOT_FAILED 6.12") :].split("\n\n")[0]
    assert len(section.splitlines()) <= 15, section
    noticed.in_run(folder, "booting")


def test_a_kernel_that_hangs_at_boot_is_no_test_failure(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(
        "def test_a():\n    pass\n",
        'cmdline = ["boot_delay=10000", "lpj=100000000"]\nboot_timeout = "5s"\nretries = 0',
    )
    ends(vmtest("run", cwd=folder), 3, "BOOT_FAILED", "no SSH session", "last console line")
    noticed.in_run(folder, "booting")


def test_qemu_missing_is_named_with_its_cure(
    project: Callable[..., Path], tmp_path: Path, noticed: Noticed
) -> None:
    folder = project("def test_a():\n    pass\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "env", "mkdir", "cp", "depmod", "file", "strings", "unsquashfs"):
        found = find_tool(name)
        assert found is not None
        (tools / name).symlink_to(found)
    with noticed.here():
        said = vmtest("run", cwd=folder, environment={"PATH": str(tools)})
    said.refuses(3, "qemu-system-x86_64: runs the virtual machines (package qemu-system-x86)")
    assert "to install all of it: " in said.err


def test_broken_kvm_falls_back_and_says_so(project: Callable[..., Path], tmp_path: Path) -> None:
    """A QEMU that dies as soon as it is asked for KVM, as on a nested host."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm that could be broken")
    folder = project("def test_a():\n    pass\n")
    real = subprocess.run(
        ["which", "qemu-system-x86_64"], capture_output=True, text=True, check=True
    ).stdout.strip()
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "qemu-system-x86_64").write_text(
        f'#!/bin/sh\ncase "$*" in *accel=kvm*) echo failed to set MSR >&2; exit 1;; esac\n'
        f'exec {real} "$@"\n'
    )
    (bin_ / "qemu-system-x86_64").chmod(0o755)
    path = f"{bin_}:{os.environ['PATH']}"
    ends(vmtest("run", cwd=folder, environment={"PATH": path}), 0, "tcg", "PASSED")
    refused = vmtest("run", "--accel", "kvm", cwd=folder, environment={"PATH": path})
    refused.refuses(2, "--accel kvm: KVM does not work here", "failed to set MSR", "--accel auto")


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vmtest", "run"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run in the background of a script has SIGINT ignored, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def rows(folder: Path) -> int:
    log = folder / ".vmtest" / "latest" / KERNEL / "results.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for_rows(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while rows(folder) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)


SLOW = """
    import time, pytest

    @pytest.mark.parametrize("n", range(60))
    def test_n(n):
        time.sleep(0.3)
"""


def test_sigkill_of_the_runner_keeps_the_rows_and_leaves_no_vm(
    project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(SLOW)
    with start(folder) as process:
        wait_for_rows(folder, 5, process)
        process.kill()
        with noticed.here():
            deadline = time.monotonic() + 5
            while qemu_of(process.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
    written = rows(folder)
    assert written >= 5
    assert qemu_of(process.pid) == []
    said = vmtest("report", cwd=folder)
    assert f"{written} passed" in said.out
    assert "the runner ended before this kernel did" in said.out
    ends(in_guest("run", "-k", "n and 59", cwd=folder), 0, "PASSED")


def qemu_of(runner: int) -> list[str]:
    """The processes of all VMs that the runner with this process id has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"VMTEST_RUNNER={runner}".encode() in entry.read_bytes().split(b"\0"):
                found.append((entry.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_had_finished_and_is_130(
    number: signal.Signals, project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(SLOW)
    with start(folder) as process:
        wait_for_rows(folder, 3, process)
        with noticed.here():
            process.send_signal(number)
            time.sleep(0.005)
            process.send_signal(number)  # tox hands on what we have had already
            out, _ = process.communicate(timeout=30)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    assert "CANCELLED" in out
    finished = list(outcomes(folder).values())
    assert finished.count("passed") >= 3
    assert qemu_of(process.pid) == []


def test_shell_runs_a_command_and_passes_its_status_on(project: Callable[..., Path]) -> None:
    folder = project("def test_a():\n    pass\n")
    said = in_guest("shell", KERNEL, "--", "sh", "-c", "uname -r; pwd >&2; exit 42", cwd=folder)
    assert said.status == 42
    assert said.out.startswith("6.12.")


def test_shards_merge_to_the_whole(project: Callable[..., Path]) -> None:
    folder = project("def test_a():\n    pass\ndef test_b():\n    assert False\n")
    (folder / "more").mkdir()
    (folder / "more" / "test_more.py").write_text("def test_m():\n    pass\n")
    with (folder / "kernels.toml").open("a") as config:
        config.write('[[suite]]\nname = "more"\ntests = "more/test_more.py"\n')
    for number, suites in enumerate((["own"], ["more"], ["own", "more"])):
        chosen = [part for suite in suites for part in ("--suite", suite)]
        assert in_guest("run", *chosen, "--json", f"{number}.json", cwd=folder).status < 2
    said = vmtest("merge", "0.json", "1.json", "--json", "merged.json", cwd=folder)
    assert said.status == 1

    def essence(name: str) -> list[object]:
        read = json.loads((folder / name).read_text())
        return [
            read["suites"],
            [
                (k["kernel"], k["status"], sorted((t["test"], t["outcome"]) for t in k["tests"]))
                for k in read["kernels"]
            ],
        ]

    assert essence("merged.json") == essence("2.json")

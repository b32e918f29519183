"""Real complaints of real kernels that the console does not show, and what a run makes of them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from any_guest import in_guest
from command import vmtest
from real_kernels import KERNEL, image_of

from vmtest.model.kernels import RootImage
from vmtest.model.project import Config

# A real WARNING, on every kernel since 2.6: pktgen makes a file in /proc for each device,
# and has one of its own that is called pgctrl.
COMPLAIN = (
    "modprobe pktgen && ip link add pgctrl type dummy && ip link set pgctrl up && "
    "echo add_device pgctrl >/proc/net/pktgen/kpktgend_0"
)
SUITE = f"""
import glob, os, signal, subprocess

def leads(fd):
    try:
        return os.readlink(fd)
    except OSError:
        return ""

def complain():
    subprocess.run(["sh", "-c", {COMPLAIN!r}], stderr=subprocess.DEVNULL)
"""
BOOTS = """
[[kernel]]
name = "{name}"
path = "{image}"
modules = "{modules}"
config = "{config}"
cmdline = {cmdline}
"""


def kernel_of(project: Path) -> dict[str, Any]:
    found = json.loads((project / ".vmtest" / "latest" / "matrix.json").read_text())
    (only,) = found["kernels"]
    return dict(only)


@pytest.mark.parametrize("name", ["5.10", "6.1", KERNEL, "backports"])
def test_a_warning_that_a_quiet_console_hides_is_no_pass(
    name: str, tmp_path: Path, settings: Config, cache: Path, root: RootImage
) -> None:
    image = image_of(name, settings, cache)
    (tmp_path / "test_own.py").write_text(f"{SUITE}\ndef test_a():\n    complain()\n")
    (tmp_path / "kernels.toml").write_text(
        f'schema = 1\n[guest]\nroot = "{root.path}"\n'
        + BOOTS.format(
            name=name,
            image=image.image,
            modules=image.modules,
            config=image.config,
            cmdline='["quiet"]',
        )
        + '[[suite]]\nname = "own"\ntests = "test_own.py"\n'
    )
    said = vmtest("run", "--cold", cwd=tmp_path)
    assert said.status == 1, said
    assert "proc_register+0x" in said.out
    kernel = kernel_of(tmp_path)
    assert kernel["status"] == "SPLAT"
    assert len(kernel["splats"]) == 1
    console = (tmp_path / ".vmtest" / "latest" / name / "console.log").read_text(errors="replace")
    assert "proc_register" not in console, "the console was not quiet: the test shows nothing"


def test_a_test_that_quiets_the_console_and_clears_the_log_hides_nothing(
    project: Callable[..., Path],
) -> None:
    hide = """
    def test_hides():
        with open("/proc/sys/kernel/printk", "w") as file:
            file.write("1 4 1 7")
        complain()
        subprocess.run(["dmesg", "-C"], check=True)
        readers = [fd for fd in glob.glob("/proc/[0-9]*/fd/0") if leads(fd) == "/dev/kmsg"]
        assert readers
        for fd in readers:
            os.kill(int(fd.split("/")[2]), signal.SIGKILL)
    """
    folder = project(SUITE + textwrap.dedent(hide))
    said = in_guest("run", cwd=folder)
    assert said.status == 1, said
    assert kernel_of(folder)["status"] == "SPLAT"
    log = (folder / ".vmtest" / "latest" / KERNEL / "dmesg.log").read_text()
    assert "proc_register+0x" in log


def test_a_complaint_names_the_test_during_which_it_came(project: Callable[..., Path]) -> None:
    others = "\ndef test_{0}():\n    pass\n"
    suite = f"{SUITE}{others.format('a')}\ndef test_b():\n    complain()\n{others.format('c')}"
    folder = project(suite)
    said = in_guest("run", cwd=folder)
    assert '"; while checks/test_own.py::test_b ran' in said.out
    kernel = kernel_of(folder)
    assert kernel["splat_tests"] == ["test_own.py::test_b"]
    logs = {test["test"].split("::")[1]: test["kernel_log"] for test in kernel["tests"]}
    assert "proc_register+0x" in logs.pop("test_b")
    assert logs == {"test_a": "", "test_c": ""}


def test_a_complaint_on_console_and_in_the_log_counts_once(project: Callable[..., Path]) -> None:
    folder = project(f"{SUITE}\ndef test_a():\n    complain()\n")
    assert in_guest("run", cwd=folder).status == 1
    console = (folder / ".vmtest" / "latest" / KERNEL / "console.log").read_text(errors="replace")
    assert "proc_register+0x" in console
    assert len(kernel_of(folder)["splats"]) == 1


def test_a_command_under_a_quiet_console_is_judged_by_the_kernels_log(
    project: Callable[..., Path],
) -> None:
    folder = project("def test_a():\n    pass\n", 'cmdline = ["loglevel=3"]')
    said = vmtest("exec", "--cold", "--", "sh", "-c", f"{COMPLAIN}; true", cwd=folder)
    assert said.status == 1, said
    assert kernel_of(folder)["status"] == "SPLAT"

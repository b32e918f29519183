"""What a guest may send, and how its pytest may end: each costs its own kernel and nothing else."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from any_guest import in_guest
from command import vmtest
from real_kernels import image_of
from small_disk import mounted

from tests.faults.fixtures import Noticed
from vmtest.model.kernels import RootImage
from vmtest.model.project import Config
from vmtest.vm.accel import Probe

GARBLED, WHOLE = "6.1", "6.12"

SUITE = r"""
import os

import pytest

def everywhere(data):
    for number in range(3, 64):
        try:
            if not os.path.isfile(f"/proc/self/fd/{number}"):
                os.write(number, data)
        except OSError:
            pass

@pytest.mark.parametrize("x", [1], ids=["\x1b[31mred"])
def test_before(x):
    pass

def test_garbles():
    if os.uname().release.startswith("6.1."):
        everywhere(b'{"event": "\x1b]0;title\x07')
    os.fork()

def test_after():
    pass
"""


def configured(folder: Path, settings: Config, cache: Path, root: RootImage) -> None:
    """A project of two kernels and one suite."""
    text = f'schema = 1\n[guest]\nroot = "{root.path}"\n'
    for name in (GARBLED, WHOLE):
        image = image_of(name, settings, cache)
        text += (
            f'[[kernel]]\nname = "{name}"\npath = "{image.image}"\nmodules = "{image.modules}"\n'
            f'config = "{image.config}"\nmemory = "512M"\n'
        )
    text += '[[suite]]\nname = "own"\ntests = "checks/test_own.py"\n'
    (folder / "kernels.toml").write_text(text)
    (folder / "checks").mkdir()
    (folder / "checks" / "test_own.py").write_text(SUITE)


def outcomes(result: dict[str, Any]) -> list[str]:
    return [test["outcome"] for test in result["tests"]]


def test_a_guest_that_sends_garbage_costs_its_own_kernel_and_none_of_its_rows(
    tmp_path: Path, settings: Config, cache: Path, root: RootImage, probe: Probe, noticed: Noticed
) -> None:
    configured(tmp_path, settings, cache, root)
    said = vmtest("run", "--cold", cwd=tmp_path, timeout=580)
    assert said.status == 1, said
    assert "Traceback" not in said.err
    assert "\x1b" not in said.out + said.err
    matrix = json.loads((tmp_path / ".vmtest" / "latest" / "matrix.json").read_text())
    results = {result["kernel"]: result for result in matrix["kernels"]}
    garbled, whole = results[GARBLED], results[WHOLE]
    assert (whole["status"], outcomes(whole)) == ("PASSED", ["passed"] * 3), said.out
    assert garbled["status"] == "LOST"
    assert outcomes(garbled) == ["passed", "lost", "not run"]
    assert "line 6 of what the guest sent is not JSON" in garbled["reason"]
    assert "while test_own.py::test_garbles ran" in garbled["reason"]
    assert "line 6 of what the guest sent is not JSON" in said.out
    noticed.in_run(tmp_path, "test_garbles", GARBLED)


@pytest.mark.parametrize(
    ("body", "status"),
    [("pytest.exit('enough', returncode=0)", "LOST"), ("os._exit(1)", "LOST")],
)
def test_a_pytest_that_ends_early_is_not_passed(
    body: str, status: str, project: Callable[..., Path], noticed: Noticed
) -> None:
    folder = project(
        f"""
        import os
        import pytest

        def test_before():
            pass

        def test_ends():
            {textwrap.dedent(body)}

        def test_after():
            pass
        """
    )
    said = in_guest("run", cwd=folder)
    assert said.status == 1, said
    (result,) = json.loads((folder / ".vmtest" / "latest" / "matrix.json").read_text())["kernels"]
    assert (result["status"], outcomes(result)) == (status, ["passed", "lost", "not run"])
    assert "pytest could not run" not in said.out
    noticed.in_run(folder, "test_ends")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for some 300 kB."""
    with mounted(tmp_path / ".vmtest", "300k") as folder:
        yield folder


def test_a_disk_that_fills_in_the_middle_is_named_and_the_table_is_shown(
    small_disk: Path, project: Callable[..., Path]
) -> None:
    folder = project(
        """
        import pytest

        def test_small():
            pass

        @pytest.mark.parametrize("n", range(20))
        def test_large(n):
            print("x" * 60_000)
            pytest.skip("much to say")
        """
    )
    said = in_guest("run", "--json", "m.json", cwd=folder)
    assert said.status == 3, said
    assert "Traceback" not in said.err
    (result,) = json.loads((folder / "m.json").read_text())["kernels"]
    assert result["status"] == "INFRA_ERROR"
    assert "results.jsonl: No space left on device; make room there" in result["reason"]
    assert result["tests"][0]["outcome"] == "passed"
    assert len(result["tests"]) == 21
    assert "INFRA_ERROR" in said.out
    assert "matrix.json: No space left on device; make room there" in said.err

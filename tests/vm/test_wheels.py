"""Wheels in a real guest: laid over its image, found by Python and the shell."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from any_guest import in_guest
from real_kernels import KERNEL

from vmtest.host.cache import tree_size
from vmtest.model.kernels import KernelImage, RootImage

CONFIG = """
schema = 1
[guest]
wheels = ["laid-1.0-py3-none-any.whl"]
[[kernel]]
name = "{name}"
path = "{image}"
modules = "{modules}"
[[suite]]
name = "own"
tests = "test_own.py"
"""
TEST = """
import subprocess, sys
import laid, packaging, typing


def test_the_wheel():
    place = f"/usr/local/lib/python3.{sys.version_info.minor}/dist-packages/laid/__init__.py"
    assert laid.__file__ == place


def test_its_command():
    done = subprocess.run(["env", "-i", "PATH=/usr/local/bin:/usr/bin", "show-laid"],
                          capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"value {laid.VALUE}\\n", "")


def test_the_standard_library_comes_first():
    assert typing.__file__.startswith("/usr/lib/python3.")


def test_a_wheel_comes_before_a_package_of_the_image():
    assert packaging.__version__ == "of the wheel"
"""


def wheel(folder: Path, value: int) -> None:
    with zipfile.ZipFile(folder / "laid-1.0-py3-none-any.whl", "w") as archive:
        module = f"VALUE = {value}\n\ndef main():\n    print('value', VALUE)\n"
        archive.writestr("laid/__init__.py", module)
        archive.writestr("packaging/__init__.py", "__version__ = 'of the wheel'\n")
        archive.writestr("packaging/version.py", "Version = InvalidVersion = Exception\n")
        archive.writestr("typing.py", "raise ImportError('it hides the standard library')\n")
        points = "[console_scripts]\nshow-laid = laid:main\n"
        archive.writestr("laid-1.0.dist-info/entry_points.txt", points)


@pytest.fixture
def project(tmp_path: Path, image: KernelImage, root: RootImage) -> Path:
    assert root.path is not None  # it is in the cache by now
    names = {"name": KERNEL, "image": image.image, "modules": image.modules}
    (tmp_path / "kernels.toml").write_text(CONFIG.format(**names))
    (tmp_path / "test_own.py").write_text(TEST)
    return tmp_path


NATIVE = """
import pytest, yaml


def test_the_pytest_that_was_chosen():
    assert pytest.__version__.startswith("8.4.")


def test_a_native_wheel():
    assert yaml.load("a: [1, 2]", Loader=yaml.CSafeLoader) == {"a": [1, 2]}
    assert yaml.__file__.startswith("/usr/local/")
"""


def test_another_pytest_and_what_pip_resolves_lie_over_the_image(
    project: Path,
) -> None:
    own = 'wheels = ["laid-1.0-py3-none-any.whl"]'
    file = project / "kernels.toml"
    chosen = 'pytest = "8.4.*"\nrequirements = ["pyyaml>=6"]'
    file.write_text(file.read_text().replace(own, chosen))
    (project / "test_own.py").write_text(NATIVE)
    said = in_guest("run", cwd=project)
    assert said.status == 0, said.out
    assert "2 passed" in said.out


def test_a_wheel_lies_over_the_image_and_a_changed_one_takes_no_image(
    project: Path, cache: Path
) -> None:
    images, before = list((cache / "images").iterdir()), tree_size(cache / "wheels")
    for value in (1, 2):
        wheel(project, value)
        said = in_guest("run", cwd=project)
        assert said.status == 0, said.out
        assert "4 passed" in said.out and "building the guest image" not in said.err
    assert list((cache / "images").iterdir()) == images
    assert tree_size(cache / "wheels") - before < 1 << 20
    asked = "PYTHONPATH=src python3 -c 'import laid; print(laid.VALUE)'"
    assert "\n2\n" in f"\n{in_guest('shell', KERNEL, '--', 'sh', '-c', asked, cwd=project).out}"

"""guest.lock: written as pip resolves, and held to by every run after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Said, in_process
from small_wheels import small_index, small_wheel

from vmtest.config.file import load
from vmtest.errors import ImageError, UsageError
from vmtest.host.cache import sha256_file
from vmtest.host.files import Files
from vmtest.model.kernels import RootImage
from vmtest.rootfs import lock as lockfile
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.prepare import prepare_root
from vmtest.watch.due import What
from vmtest.watch.inputs import read_inputs

PYTHON = GuestPython(Path("root.sqfs"), "3.13", "8.3.5")


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip finds, and a guest image that is not built."""
    folder = small_index(tmp_path / "index", monkeypatch)
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    built = RootImage("disk", PYTHON.image, "0" * 64, "python3")
    monkeypatch.setattr("vmtest.rootfs.prepare.prepare", lambda *given, **options: built)
    monkeypatch.setattr("vmtest.rootfs.prepare.python_of", lambda image: PYTHON)
    return folder


def project(folder: Path, guest: str, name: str = "kernels.toml") -> Path:
    file = folder / name
    kernel = '[[kernel]]\nname = "a"\npath = "vmlinuz"\nmodules = "modules"\n'
    file.write_text(f"schema = 1\n{kernel}[guest]\n{guest}\n")
    return file


def lock(file: Path) -> Said:
    return in_process("image", "lock", "--config", str(file), cwd=file.parent)


def locked(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "guest.lock").read_text())
    return value


def wheels(file: Path, cache: Path) -> list[str]:
    """What a run with that configuration lays over the image."""
    found = prepare_root(load(file), cache, files=Files()).wheels
    return sorted(one.name.removesuffix("-py3-none-any.whl") for one in found)


def test_a_lock_has_each_wheel_with_its_digest(tmp_path: Path, index: Path) -> None:
    said = lock(project(tmp_path, 'requirements = ["plugin"]'))
    assert said.status == 0, said
    assert "plugin: 1.0" in said.out
    assert "guest.lock: 2 wheels for Python 3.13" in said.out
    names = ["helper-0.1-py3-none-any.whl", "plugin-1.0-py3-none-any.whl"]
    digests = [{"file": name, "sha256": sha256_file(index / name)} for name in names]
    assert locked(tmp_path) == {"schema": 1, "python": "3.13", "pytest": "", "wheels": digests}


def test_locking_again_writes_the_same_bytes(tmp_path: Path) -> None:
    file = project(tmp_path, 'requirements = ["plugin"]\npytest = "8.4.*"')
    lock(file)
    before = (tmp_path / "guest.lock").read_bytes()
    lock(file)
    assert (tmp_path / "guest.lock").read_bytes() == before
    assert locked(tmp_path)["pytest"] == "pytest==8.4.*"


def test_a_newer_wheel_changes_nothing_until_it_is_locked(tmp_path: Path, index: Path) -> None:
    file = project(tmp_path, 'requirements = ["plugin"]')
    lock(file)
    small_wheel(index, "helper", "0.2")
    assert wheels(file, tmp_path / "other") == ["helper-0.1", "plugin-1.0"]
    lock(file)
    assert wheels(file, tmp_path / "other") == ["helper-0.2", "plugin-1.0"]


def test_who_locked_asks_nobody_for_the_wheels(tmp_path: Path, index: Path) -> None:
    file = project(tmp_path, 'requirements = ["plugin"]')
    lock(file)
    shutil.rmtree(index)
    assert wheels(file, tmp_path / "cache") == ["helper-0.1", "plugin-1.0"]


def test_another_wheel_of_the_same_name_is_refused(tmp_path: Path, index: Path) -> None:
    file = project(tmp_path, 'requirements = ["helper"]')
    lock(file)
    small_wheel(index, "helper", "0.1", "plugin")
    with pytest.raises(ImageError) as caught:
        wheels(file, tmp_path / "other")
    said = str(caught.value)
    assert "guest.lock: pip cannot bring what it names; lock again with: vmtest image lock" in said
    assert "DO NOT MATCH THE HASHES" in said


@pytest.mark.parametrize(
    ("guest", "why"),
    [
        ('requirements = ["plugin", "other"]', "other is not in it"),
        ('requirements = ["plugin>=2"]', "it has plugin 1.0, and plugin>=2 is asked for"),
        ('requirements = ["plugin"]\npytest = "8.4.*"', "another pytest (the image's)"),
        ('requirements = ["helper[more]>=1"]', "it has helper 0.1, and helper[more]>=1 is"),
    ],
)
def test_what_the_lock_does_not_satisfy_is_told_with_the_cure(
    tmp_path: Path, guest: str, why: str
) -> None:
    lock(project(tmp_path, 'requirements = ["plugin"]'))
    file = project(tmp_path, guest)
    with pytest.raises(UsageError) as caught:
        wheels(file, tmp_path / "cache")
    said = str(caught.value)
    assert why in said
    assert said.endswith("lock again with: vmtest image lock")


def test_what_an_extra_of_a_locked_package_needs_is_missed(tmp_path: Path, index: Path) -> None:
    small_wheel(index, "helper", "0.1", 'absent; extra == "more"')
    lock(project(tmp_path, 'requirements = ["helper"]'))
    file = project(tmp_path, 'requirements = ["helper[more]"]')
    with pytest.raises(UsageError, match="it has nothing for absent; lock again"):
        wheels(file, tmp_path / "cache")


def test_a_narrower_requirement_that_the_lock_satisfies_is_taken(tmp_path: Path) -> None:
    lock(project(tmp_path, 'requirements = ["plugin"]'))
    file = project(tmp_path, 'requirements = ["helper==0.1", "later; python_version < \'3.13\'"]')
    assert wheels(file, tmp_path / "cache") == ["helper-0.1"]


def test_a_pytest_that_was_chosen_is_locked(tmp_path: Path, index: Path) -> None:
    file = project(tmp_path, 'pytest = "8.*"')
    lock(file)
    small_wheel(index, "pytest", "8.5.0")
    assert wheels(file, tmp_path / "other") == ["pytest-8.4.2"]
    with pytest.raises(UsageError, match=r"it has pytest 8\.4\.2, and pytest==8\.5\.\* is asked"):
        wheels(project(tmp_path, 'pytest = "8.5.*"'), tmp_path / "other")
    with pytest.raises(UsageError, match=r"another pytest \(==8\.\*\)"):
        wheels(project(tmp_path, 'requirements = ["helper"]'), tmp_path / "other")


def test_a_guest_with_another_python_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(tmp_path, 'requirements = ["plugin"]')
    lock(file)
    other = GuestPython(Path("root.sqfs"), "3.11", "7.2.1")
    monkeypatch.setattr("vmtest.rootfs.prepare.python_of", lambda image: other)
    with pytest.raises(UsageError, match=r"it is for Python 3\.13, and the guest has 3\.11"):
        wheels(file, tmp_path / "cache")


def test_a_wheel_with_an_address_is_held_to_its_digest(tmp_path: Path) -> None:
    address = small_wheel(tmp_path, "own", "1.0", "helper").as_uri()
    file = project(tmp_path, f'requirements = ["own @ {address}"]')
    lock(file)
    assert wheels(file, tmp_path / "other") == ["helper-0.1", "own-1.0"]
    small_wheel(tmp_path, "own", "1.0", "plugin")
    with pytest.raises(ImageError, match="pip cannot bring what it names"):
        wheels(file, tmp_path / "third")


def test_an_address_that_a_wheel_requires_is_to_be_named(tmp_path: Path, index: Path) -> None:
    address = small_wheel(tmp_path, "own", "1.0").as_uri()
    small_wheel(index, "upper", "1.0", f"own @ {address}")
    said = lock(project(tmp_path, 'requirements = ["upper"]'))
    said.refuses(2, "name own @ URL in requirements too")
    file = project(tmp_path, f'requirements = ["upper", "own @ {address}"]')
    lock(file)
    assert wheels(file, tmp_path / "other") == ["own-1.0", "upper-1.0"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<<<<<<< ours", "is damaged or holds a merge conflict"),
        ("[]", "is damaged"),
        ('{"schema": 2}', "its schema is 2, this vmtest reads 1"),
        (
            '{"schema": 1, "python": "3.13", "pytest": "", '
            '"wheels": [{"file": "x --find-links y.whl", "sha256": "' + "0" * 64 + '"}]}',
            "is damaged",
        ),
        (
            '{"schema": 1, "python": "3.13", "pytest": "", '
            '"wheels": [{"file": "a-1-py3-none-any.whl", "sha256": "0\\n--find-links y"}]}',
            "is damaged",
        ),
    ],
)
def test_a_lock_that_cannot_be_understood_is_told(tmp_path: Path, text: str, why: str) -> None:
    file = project(tmp_path, 'requirements = ["plugin"]')
    (tmp_path / "guest.lock").write_text(text)
    with pytest.raises(UsageError, match=why):
        wheels(file, tmp_path / "cache")


def test_a_failure_of_pip_writes_nothing(tmp_path: Path) -> None:
    said = lock(project(tmp_path, 'requirements = ["absent"]'))
    said.refuses(3, "pip has no wheels of absent")
    assert not (tmp_path / "guest.lock").exists()


def test_nothing_to_lock_is_told(tmp_path: Path) -> None:
    said = lock(project(tmp_path, 'suite = "trixie"'))
    said.refuses(2, "there is nothing to lock", "vmtest kernels lock")


def test_a_configuration_of_another_name_has_a_lock_of_its_own(tmp_path: Path) -> None:
    lock(project(tmp_path, 'requirements = ["helper"]', "ci.toml"))
    assert (tmp_path / "ci.guest.lock").exists()
    assert not (tmp_path / "guest.lock").exists()


def test_a_run_tells_the_digest_of_its_lock(tmp_path: Path) -> None:
    file = project(tmp_path, 'requirements = ["helper"]')
    lock(file)
    files = Files()
    prepare_root(load(file), tmp_path / "cache", files=files)
    digest = sha256_file(tmp_path / "guest.lock")
    assert files.digests(tmp_path)["guest.lock"] == {"guest.lock": digest}


def test_watch_notices_another_lock(tmp_path: Path) -> None:
    watched = '[[object]]\nname = "x"\npath = "x.bpf.o"'
    file = project(tmp_path, f'requirements = ["helper"]\n{watched}')

    def read() -> dict[Path, str]:
        return dict(read_inputs(load(file), What.VERIFY, [], [], tmp_path).parts)

    before = read()
    lock(file)
    assert read() != before
    assert lockfile.beside(file) in read()

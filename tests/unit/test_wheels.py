"""Wheels unpacked for the guest, as pip would."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import pytest

from vmtest.errors import ImageError
from vmtest.rootfs.wheels import unpack_wheel

PYTHON = "3.13"
SITE = "lib/python3.13/dist-packages"


def wheel(folder: Path, files: dict[str, str], name: str = "demo-1.0-py3-none-any.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    return path


def installed(folder: Path, path: Path) -> dict[str, tuple[str, int]]:
    prefix = folder / "local"
    unpack_wheel(path, prefix, PYTHON)
    return {
        place.relative_to(prefix).as_posix(): (place.read_text(), place.stat().st_mode & 0o777)
        for place in prefix.rglob("*")
        if place.is_file()
    }


def test_a_wheels_tree_goes_to_the_packages_below_usr_local(tmp_path: Path) -> None:
    found = installed(tmp_path, wheel(tmp_path, {"demo/__init__.py": "x = 1\n"}))
    assert found == {f"{SITE}/demo/__init__.py": ("x = 1\n", 0o644)}


def test_data_folders_go_where_they_belong(tmp_path: Path) -> None:
    files = {
        "demo-1.0.data/purelib/pure.py": "p",
        "demo-1.0.data/scripts/tool": "#!python\nrun\n",
        "demo-1.0.data/data/share/x": "d",
        "demo-1.0.data/headers/x.h": "h",
    }
    assert installed(tmp_path, wheel(tmp_path, files)) == {
        f"{SITE}/pure.py": ("p", 0o644),
        "bin/tool": ("#!/usr/bin/python3\nrun\n", 0o755),
        "share/x": ("d", 0o644),
    }


@pytest.mark.parametrize("place", ["demo/tool", "demo-1.0.data/data/libexec/tool"])
@pytest.mark.parametrize(("packed", "mode"), [(0o744, 0o755), (0o640, 0o644), (0, 0o644)])
def test_a_program_of_a_package_stays_one(
    tmp_path: Path, place: str, packed: int, mode: int
) -> None:
    path = wheel(tmp_path, {})
    with zipfile.ZipFile(path, "a") as archive:
        item = zipfile.ZipInfo(place)
        item.external_attr = packed << 16
        archive.writestr(item, "run")
    assert [found for _, found in installed(tmp_path, path).values()] == [mode]


def test_console_scripts_are_made(tmp_path: Path) -> None:
    points = "[console_scripts]\nDemo-Run = demo.cli:main\n"
    found = installed(tmp_path, wheel(tmp_path, {"demo-1.0.dist-info/entry_points.txt": points}))
    text, mode = found["bin/Demo-Run"]
    assert mode == 0o755
    assert text.startswith("#!/usr/bin/python3\n") and "demo.cli.main()" in text


@pytest.mark.parametrize("member", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_a_path_that_leaves_the_tree_is_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(ImageError, match="unsafe path"):
        installed(tmp_path, wheel(tmp_path, {member: "x"}))


def test_a_wheel_for_another_platform_is_refused(tmp_path: Path) -> None:
    name = "demo-1.0-cp311-cp311-macosx_11_0_arm64.whl"
    with pytest.raises(ImageError, match="is for macosx_11_0_arm64"):
        installed(tmp_path, wheel(tmp_path, {"x.py": ""}, name))


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("py3-none", True),
        ("py2.py3-none", True),
        ("py313-none", True),
        ("cp38-abi3", True),
        ("cp313-cp313", True),
        ("cp311.cp313-none", True),
        ("py2-none", False),
        ("py314-none", False),
        ("cp311-cp311", False),
        ("cp314-abi3", False),
        ("pp310-pypy310_pp73", False),
        ("pyx-none", False),
    ],
)
def test_a_wheel_for_another_python_is_refused(tmp_path: Path, tags: str, fits: bool) -> None:
    path = wheel(tmp_path, {"x.py": ""}, f"demo-1.0-{tags}-manylinux_2_17_x86_64.whl")
    if fits:
        assert list(installed(tmp_path, path)) == [f"{SITE}/x.py"]
        return
    with pytest.raises(ImageError, match=r"the guest has Python 3\.13; give the wheel for cp313"):
        installed(tmp_path, path)


def test_what_is_no_wheel_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "demo-1.0-py3-none-any.whl"
    bad.write_text("no zip")
    with pytest.raises(ImageError, match=f"{bad} cannot be read as a wheel"):
        installed(tmp_path, bad)
    with pytest.raises(ImageError, match="is not named as a wheel"):
        installed(tmp_path, tmp_path / "demo.whl")


def packed(folder: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return path


def refusal(folder: Path, path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        unpack_wheel(path, folder / "local", PYTHON)
    return str(caught.value)


def test_a_wheel_that_unpacks_to_more_than_it_should_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.packed.SMALL", 1 << 20)
    said = refusal(
        tmp_path, packed(tmp_path, {"demo/a": bytes(16 << 20), "demo/b": bytes(1 << 20)})
    )
    assert "is refused: it unpacks to 17 MiB, more than 2 MiB" in said
    assert not (tmp_path / "local").exists()


def test_a_wheel_is_not_unpacked_in_memory(tmp_path: Path) -> None:
    path = packed(tmp_path, {"demo/large": bytes(48 << 20)})
    tracemalloc.start()
    unpack_wheel(path, tmp_path / "local", PYTHON)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_file_that_is_larger_than_the_wheel_says_is_damage(tmp_path: Path) -> None:
    path = packed(tmp_path, {"demo/a": bytes(1 << 20)})
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = (10).to_bytes(4, "little")  # its size
    path.write_bytes(data)
    assert "cannot be read as a wheel" in refusal(tmp_path, path)


@pytest.mark.parametrize("flag", [1, 0x41])
def test_an_encrypted_wheel_is_named(tmp_path: Path, flag: int) -> None:
    path = packed(tmp_path, {"demo/a": b"x"})
    data = bytearray(path.read_bytes())
    for at in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[at] |= flag
    path.write_bytes(data)
    assert "cannot be read as a wheel" in refusal(tmp_path, path)


def test_a_way_of_packing_that_python_lacks_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path, {"demo/a": b"x"})
    data = bytearray(path.read_bytes())
    for at in (data.index(b"PK\x03\x04") + 8, data.index(b"PK\x01\x02") + 10):
        data[at] = 97
    path.write_bytes(data)
    assert "cannot be read as a wheel" in refusal(tmp_path, path)


@pytest.mark.parametrize("text", ["no section\n", "[console_scripts]\nx\n", "[a]\n[a]\n"])
def test_entry_points_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    path = packed(tmp_path, {"demo-1.0.dist-info/entry_points.txt": text.encode()})
    assert "cannot be read as a wheel" in refusal(tmp_path, path)


def test_a_script_too_large_to_be_one_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path, {"demo-1.0.data/scripts/tool": bytes(17 << 20)})
    assert "tool is larger than 16 MiB" in refusal(tmp_path, path)

"""Kernels and packages that a stranger made, through the command line: refused, not executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hostile_files
import pytest
import small_rpm
from command import Said, vmtest
from fake_kernels import bzimage, elf, modules_tree

from vmtest.host.cache import find_tool
from vmtest.kernels.store.store import Store
from vmtest.model.releases import is_member, is_release

GOOD = "6.1.9-amd64"
NOT_CALLED_SO = (
    "6.1.9$(touch${IFS}MARK)",
    "6.1.9;touch${IFS}MARK;",
    "6.1.9`touch${IFS}MARK`",
    "6.1.9'\"",
    "6.1.9,path=MARK",
    "6.1.9|&<>",
    "6.1.9\\x",
    "6.1.9\x1b[31m",
    "6.1.9" + "x" * 60,
    "../../6.1.9",
    "6.1.9\u0663",
)


@pytest.mark.parametrize("text", NOT_CALLED_SO)
def test_what_no_kernel_is_called(text: str) -> None:
    assert not is_release(text)


@pytest.mark.parametrize(
    "text",
    ["6.12.118+deb13-amd64", "6.11.4-301.fc41.x86_64", "6.8.0-45-generic", "7.3.4~rc2_x", "6.1"],
)
def test_what_kernels_are_called(text: str) -> None:
    assert is_release(text)


@pytest.mark.parametrize(
    "path",
    ["a/../b", "/a", "a//b", "x;y.ko", "a\nb", "a b", "$(x)", "`x`", "a'", 'a"', "", "x" * 256],
)
def test_what_no_kernels_file_is_called(path: str) -> None:
    assert not is_member(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a project; MARK in a name would be made in it."""
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def fetched(folder: Path, source: str) -> Said:
    """``vmtest kernels fetch`` in ``folder``, whose one kernel is ``source``."""
    (folder / "kernels.toml").write_text(f'schema = 1\n[[kernel]]\nname = "vendor"\n{source}\n')
    return vmtest("kernels", "fetch", cwd=folder)


def assert_nothing_came_of_it(folder: Path) -> None:
    cache = folder.parent / "cache"
    assert Store(cache).entries() == []
    assert not list(folder.parent.rglob("MARK"))


@pytest.mark.parametrize("release", [NOT_CALLED_SO[0], NOT_CALLED_SO[7]])
def test_a_bzimage_that_calls_itself_by_a_command_is_refused(release: str, place: Path) -> None:
    (place / "bzImage").write_bytes(bzimage(release))
    said = fetched(place, 'path = "bzImage"')
    said.refuses(3, "vendor", "bzImage", "which no kernel is called")
    assert "\x1b" not in said.err
    assert_nothing_came_of_it(place)


def test_a_bzimage_whose_kernel_has_another_banner_than_its_header_is_refused(place: Path) -> None:
    image = bzimage(GOOD, payload=elf("6.1.9$(touch${IFS}MARK)"))
    (place / "bzImage").write_bytes(image)
    fetched(place, 'path = "bzImage"').refuses(3, "vendor", "bzImage", "which no kernel is called")
    assert_nothing_came_of_it(place)


def test_an_elf_that_calls_itself_by_a_command_is_refused(place: Path) -> None:
    (place / "vmlinux").write_bytes(elf("6.1.9;touch${IFS}MARK"))
    fetched(place, 'path = "vmlinux"').refuses(3, "vendor", "vmlinux", "which no kernel is called")
    assert_nothing_came_of_it(place)


def test_a_module_with_a_commands_name_is_refused(place: Path) -> None:
    (place / "bzImage").write_bytes(bzimage(GOOD))
    (modules_tree(place, GOOD) / "kernel" / "x.ko\ninsmod MARK\n.ko").write_bytes(b"no module")
    said = fetched(place, f'path = "bzImage"\nmodules = "{place}"')
    said.refuses(3, "vendor", "a name that no kernel's file has")
    assert_nothing_came_of_it(place)


# --- packages ---------------------------------------------------------------------------

Pack = Callable[[Path, dict[str, bytes]], Path]


def deb(folder: Path, members: dict[str, bytes]) -> Path:
    return hostile_files.deb(folder / "linux-6.1.9.deb", members)


def rpm(folder: Path, members: dict[str, bytes]) -> Path:
    return small_rpm.write(folder / "linux-6.1.9.rpm", members)


FORMATS = [
    pytest.param(
        deb,
        marks=pytest.mark.skipif(find_tool("dpkg-deb") is None, reason="there is no dpkg-deb"),
        id="deb",
    ),
    pytest.param(
        rpm,
        marks=pytest.mark.skipif(find_tool("bsdtar") is None, reason="there is no bsdtar"),
        id="rpm",
    ),
]


def members(release: str, **more: bytes) -> dict[str, bytes]:
    """A kernel's package that calls it ``release``, and its image ``GOOD``."""
    folder = f"lib/modules/{release}"
    return {
        f"boot/vmlinuz-{release}": bzimage(GOOD),
        f"{folder}/kernel/fs/README": b"no module",
        f"{folder}/modules.order": b"",
        f"{folder}/modules.builtin": b"",
        **more,
    }


@pytest.mark.parametrize("pack", FORMATS)
def test_a_package_whose_kernel_has_a_commands_name_is_refused(pack: Pack, place: Path) -> None:
    file = pack(place, members("6.1.9;touch${IFS}MARK;"))
    said = fetched(place, f'package = [{{ path = "{file.name}" }}]')
    said.refuses(3, "vendor", file.name, "which no kernel is called")
    assert_nothing_came_of_it(place)


@pytest.mark.parametrize("pack", FORMATS)
def test_a_package_with_a_module_of_a_commands_name_is_refused(pack: Pack, place: Path) -> None:
    more = {f"lib/modules/{GOOD}/kernel/fs/x;touch MARK;.ko.zst": b"no module"}
    file = pack(place, {**members(GOOD), **more})
    said = fetched(place, f'package = [{{ path = "{file.name}" }}]')
    said.refuses(3, "vendor", file.name, "a name that no kernel's file has")
    assert_nothing_came_of_it(place)


@pytest.mark.parametrize("pack", FORMATS)
def test_a_packages_members_outside_a_kernels_places_are_not_written(
    pack: Pack, place: Path
) -> None:
    more = {
        name: b"no"
        for name in (
            "../MARK",
            f"lib/modules/{GOOD}/../../../../MARK",
            f"{place.parent}/MARK",
            "boot/MARK",
        )
    }
    file = pack(place, {**members(GOOD), **more})
    said = fetched(place, f'package = [{{ path = "{file.name}" }}]')
    assert said.status == 0, said
    assert not list(place.parent.rglob("MARK"))

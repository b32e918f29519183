"""``vmtest doctor --cache``: the whole cache, hashed."""

from __future__ import annotations

import json
from pathlib import Path

from command import vmtest
from test_kconfig import DEBIAN
from test_seal import KEY, MODULE, rot, stored


def about_kernels(cache: Path) -> list[dict[str, object]]:
    said = vmtest(
        "doctor", "--cache", "--json", cwd=cache, environment={"VMTEST_CACHE": str(cache)}
    )
    return [one for one in json.loads(said.out) if one["name"] == "cached kernel"]


def test_a_whole_kernel_is_said_to_be_whole(tmp_path: Path) -> None:
    stored(tmp_path)
    (found,) = about_kernels(tmp_path)
    assert found["ok"] and f"{KEY} is whole" in str(found["state"])


def test_how_the_kernels_in_the_cache_boot_is_counted(tmp_path: Path) -> None:
    entry = stored(tmp_path)

    def state() -> str:
        said = vmtest("doctor", "--json", cwd=tmp_path, environment={"VMTEST_CACHE": str(tmp_path)})
        (found,) = [one for one in json.loads(said.out) if one["name"] == "kernels"]
        assert found["ok"]
        return str(found["state"])

    assert state() == "in the cache: 1 cannot boot here (vmtest kernels list says why)"
    (config,) = entry.place.glob("boot/config-*")
    symbols = {symbol for symbol in DEBIAN if symbol != "SQUASHFS"} | {"EXT4_FS"}
    config.write_text("".join(f"CONFIG_{symbol}=y\n" for symbol in symbols))
    assert state() == "in the cache: 1 by 9P, root on ext4"


def test_damage_that_no_stamp_tells_is_found_and_stays_for_its_next_use(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    rot(entry, MODULE)
    (found,) = about_kernels(tmp_path)
    assert not found["ok"] and f"{KEY} is damaged ({MODULE}" in str(found["state"])
    assert entry.place.is_dir() and entry.glance() is not None

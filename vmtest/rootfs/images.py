"""The guest images in the cache: an image, its record and its seal in a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vmtest.errors import ImageError, InfrastructureError, UsageError
from vmtest.host.cache import (
    disk_errors,
    hold,
    locked,
    publish,
    read_json,
    scratch,
    sha256_file,
    tree_size,
    write_json,
)
from vmtest.host.seal import Entry, seal
from vmtest.model.kernels import Filesystem, RootImage

GUEST_PYTHON = "/usr/bin/python3"

Log = Callable[[str], None]
"""Called with a line now and then while an image is built."""

Make = Callable[[Path, Path], Mapping[str, object]]
"""Makes the image that the first path names, with the second, a folder, for what is needed on the
way; returns what its record is to have beside digest and size."""

_RECORD = "image.json"
_FILES: Mapping[str, Filesystem] = {
    "root.sqfs": "squashfs",
    "root.ext4": "ext4",
    "root.erofs": "erofs",
}


def quiet(line: str) -> None:
    """Tell nobody."""
    del line


def place_of(cache: Path, key: str) -> Path:
    """Where the image ``key`` is, or would be."""
    return cache / "images" / key


def cached(cache: Path, key: str) -> RootImage | None:
    """The image ``key``, None where the cache has none that is complete."""
    place = place_of(cache, key)
    meta = read_json(place / _RECORD)
    try:
        if not isinstance(meta, dict):
            return None
        name = meta.get("file", "root.sqfs")  # an older vmtest made no other
        image, filesystem = place / name, _FILES[name]
        if image.stat().st_size != meta["size"]:
            return None
        digest = str(meta["sha256"])
    except (OSError, KeyError, TypeError):
        return None
    return RootImage("disk", image, digest, GUEST_PYTHON, filesystem=filesystem)


def images(cache: Path) -> list[tuple[str, Path, int]]:
    """The images in the cache: name, file, bytes on the disk."""
    found = ((place, cached(cache, place.name)) for place in sorted((cache / "images").glob("*")))
    return [
        (place.name, image.path, tree_size(place))
        for place, image in found
        if image is not None and image.path is not None
    ]


def recheck_image(place: Path) -> str:
    """What is wrong with an image of an older vmtest, which knew its digest."""
    image = cached(place.parents[1], place.name)
    if image is None or image.path is None:
        return "is incomplete"
    found = sha256_file(image.path)
    if found == image.digest:
        return ""
    return f"{image.path.name} has sha256 {found[:12]}, expected {image.digest[:12]}"


def take(
    cache: Path, key: str, make: Make, log: Log, filesystem: Filesystem = "squashfs"
) -> RootImage:
    """The image ``key`` for use, made where the cache lacks it or has it damaged.

    Until this process ends it is not pruned.  Raises ImageError, and what ``make`` raises.
    """
    hold(cache, f"image-{key}")
    entry = Entry(cache, "image", place_of(cache, key))
    damage = None
    if os.path.lexists(entry.place):
        damage = entry.glance(recheck_image) and entry.take_away(recheck_image)
    if damage is None:
        return _made(cache, key, make, filesystem)
    log(f"{damage}: it was removed and is built again")
    hold(cache, entry.lock)
    try:
        made = _made(cache, key, make, filesystem)
    except (InfrastructureError, UsageError) as error:
        raise ImageError(
            f"{damage}: it was removed, and building it again failed: {error}"
        ) from error
    return replace(made, note=f"{damage}: it was removed and built again")


def _made(cache: Path, key: str, make: Make, filesystem: Filesystem) -> RootImage:
    found = cached(cache, key)
    if found is not None:
        return found
    (name,) = (name for name, one in _FILES.items() if one == filesystem)
    with locked(cache, f"image-{key}"):
        found = cached(cache, key)  # another runner may have been faster
        if found is not None:
            return found
        with scratch(cache, f"image-{key}") as folder, disk_errors(cache, "guest image"):
            made = folder / "image"
            made.mkdir()
            image = made / name
            described = make(image, folder)
            record = {
                "schema": 1,
                "key": key,
                "file": name,
                "sha256": sha256_file(image),
                "size": image.stat().st_size,
            }
            write_json(made / _RECORD, {**record, **described})
            seal(made)
            publish(made, place_of(cache, key))
    found = cached(cache, key)
    if found is None:
        raise ImageError(f"{place_of(cache, key)}: the image just built cannot be read back")
    return found

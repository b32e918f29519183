"""The wheels that ``[guest] requirements`` and ``pytest`` come to for the guest's Python.

pip resolves them once; what it found is kept, so the same requirements are the same wheels from
then on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from vmtest.errors import ImageError, UsageError
from vmtest.host import interrupt
from vmtest.host.cache import read_record, sha256_file, sha256_json, write_record
from vmtest.model.versions import unique
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.kept import kept
from vmtest.rootfs.needed import closure, in_guest, without_marker

KIND = "requirements"
"""The folder of the cache for resolved requirements, and the kind of its entries."""

_RECIPE = 2
"""Raised when the same requirements should be resolved again."""
_RECORD = "requirements.json"
# What runs on Debian 11 and later; pip takes each by its name only.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(31, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)
_MOST = 12  # lines of what pip says
_PYTEST = "pytest"
_CONSTRAINT = "(constraint) pytest"


def resolve(
    wanted: Sequence[str], pytest: str, python: GuestPython, cache: Path, log: Callable[[str], None]
) -> tuple[Path, ...]:
    """The wheels for ``wanted`` and all that they need, by pip the first time.

    ``pytest`` is a requirement too, "" for the pytest of the image, which then stays.  Raises
    UsageError where ``wanted`` needs another, ImageError when pip fails.
    """
    constraint = pytest or f"pytest=={python.pytest}"
    asked = [_RECIPE, sorted(wanted), constraint, python.version]

    def make(folder: Path) -> None:
        log(f"resolving {', '.join(filter(None, (*wanted, pytest)))}")
        (folder / "constraints.txt").write_text(f"{constraint}\n", encoding="utf-8")
        made = folder / "entry"
        found = {}
        for wheel in _all(wanted, pytest, python, folder):
            found[wheel.name] = sha256_file(wheel.rename(made / wheel.name))
        write_record(made / _RECORD, {"asked": asked, "wheels": found})

    entry = f"python{python.version}-{sha256_json(asked)[:16]}"
    return kept(cache, KIND, entry, read_entry, make)


def _all(named: Sequence[str], pytest: str, python: GuestPython, folder: Path) -> list[Path]:
    """The wheels for ``named`` and ``pytest`` in ``folder``, also what only the guest needs.

    pip goes by the Python that it runs on wherever a requirement has a marker.  So it is asked
    again, for everything together, until its wheels have all that they require in the guest.
    """
    given = (Requirement(one) for one in filter(None, (*named, pytest)))
    wanted = [one for one in given if in_guest(one, python.version)]
    asked = [without_marker(one) for one in wanted]
    there = {_PYTEST: python.pytest}
    found: list[Path] = []
    missing = asked
    while missing:
        into = folder / f"asked-{len(asked)}"
        said = _download(asked, python, folder, into)
        if said is not None:
            raise _refusal(said, asked, pytest, python)
        _check_wheels(into)
        found, missing = closure(wanted, into.glob("*.whl"), python.version, there)
        if set(missing) <= set(asked):
            break
        asked = list(unique((*asked, *missing)))
    if missing:
        raise ImageError(
            f"[guest] requirements, or pytest: pip brought no wheel of {', '.join(missing)}; "
            "name one in [guest] wheels"
        )
    return found


def _check_wheels(folder: Path) -> None:
    """Raise UsageError for what is not a wheel: a wheel may require the address of an archive."""
    others = sorted(path.name for path in folder.iterdir() if path.suffix != ".whl")
    if others:
        raise UsageError(
            f"[guest] requirements, or pytest: {', '.join(others)} is not a wheel, and "
            "vmtest installs only wheels; build one and name it in [guest] wheels"
        )


def _download(wanted: Sequence[str], python: GuestPython, folder: Path, into: Path) -> str | None:
    """Have pip put the wheels for ``wanted`` in the folder ``into``; what it says when it fails."""
    abi = f"cp{python.version.replace('.', '')}"
    done = interrupt.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-input"),
            *(
                "--progress-bar=off",
                "--disable-pip-version-check",
                "--only-binary=:all:",
                "--implementation",
                "cp",
            ),
            *("--python-version", python.version),
            *(word for one in (abi, "abi3", "none") for word in ("--abi", one)),
            *(word for one in _PLATFORMS for word in ("--platform", one)),
            *("--dest", str(into), "--constraint", str(folder / "constraints.txt")),
            *wanted,
        ],
        merged=True,
    )
    return done.stdout if done.returncode else None


def _refusal(
    output: str, wanted: Sequence[str], pytest: str, python: GuestPython
) -> ImageError | UsageError:
    """Why there are no wheels for ``wanted``, by the ``output`` of pip."""
    if "No module named pip" in output:
        return ImageError(
            "[guest] requirements, or pytest: vmtest's environment has no pip to resolve them; "
            "install pip there, or name all wheels in [guest] wheels"
        )
    _, error, rest = output.partition("ERROR: ")
    said = [line for line in f"{error}{rest}".splitlines() if line.strip()]
    told = "".join(f"\n  {line}" for line in said[:_MOST])
    if _CONSTRAINT in output:
        words = f'the guest\'s {python.pytest}; choose one with pytest = "..." there'
        if pytest:
            chosen = pytest.removeprefix(_PYTEST)
            words = f'pytest = "{chosen}", which is chosen there; choose another'
        return UsageError(
            f"[guest] requirements: they need another pytest than {words}. pip says:{told}"
        )
    return ImageError(
        f"[guest] requirements, or pytest: pip has no wheels of {', '.join(wanted)} for Python "
        f"{python.version} on Linux x86_64:{told}"
    )


def places(cache: Path) -> list[Path]:
    """The folders of all resolved requirements in ``cache``, damaged ones too."""
    return sorted(path for path in (cache / KIND).glob("*") if path.is_dir())


def read_entry(place: Path) -> tuple[Path, ...]:
    """The wheels in the folder ``place`` of the cache.

    Raises ValueError with the file and what is wrong with it.
    """
    record = read_record(place / _RECORD)
    if record is None:
        raise ValueError(f"{_RECORD} is missing or damaged")
    wheels = record.get("wheels")
    if not isinstance(wheels, dict):
        raise ValueError(f"{_RECORD} names no wheels")
    for name, noted in wheels.items():
        try:
            digest = sha256_file(place / name)
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error.strerror}") from error
        if digest != noted:
            raise ValueError(f"{name} has sha256 {digest[:12]}, expected {noted[:12]}")
    return tuple(place / name for name in wheels)

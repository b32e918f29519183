"""guest.lock: the exact wheels that ``[guest] requirements``, ``extras`` and ``pytest`` come to.

JSON with sorted keys, an entry a wheel: to be committed and compared, as kernels.lock is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from pydantic import ConfigDict, StringConstraints, TypeAdapter

from vmtest.errors import UsageError
from vmtest.host.cache import write_json
from vmtest.host.files import Files
from vmtest.host.lockfile import read_lock
from vmtest.rootfs.needed import in_guest

_SCHEMA = 1
_CURE = "make it with: vmtest image lock"
_PYTEST = "pytest"
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """The wheel in the file of that name, with the sha256 of what is in it."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    file: str
    sha256: _Digest

    @property
    def name(self) -> str:
        """The package's name, as packages are compared."""
        return str(parse_wheel_filename(self.file)[0])

    @property
    def version(self) -> str:
        """The package's version."""
        return str(parse_wheel_filename(self.file)[1])


_WHEELS = TypeAdapter(tuple[LockedWheel, ...])


@dataclass(frozen=True, slots=True)
class Lock:
    """What ``file`` says: ``wheels`` for a guest with that ``python`` (``3.13``).

    ``pytest`` is what was chosen in place of the image's when it was made, "" for nothing.
    """

    file: Path
    python: str
    pytest: str
    wheels: tuple[LockedWheel, ...]

    def refusal(self, why: str) -> UsageError:
        """The error for a lock that is not for what is asked now."""
        return UsageError(
            f"{self.file.name} does not fit [guest] requirements, extras and pytest of "
            f"kernels.toml: {why}; lock again with: vmtest image lock"
        )

    def check(self, wanted: Sequence[str], pytest: str) -> None:
        """Raise UsageError unless it has what ``wanted`` and ``pytest`` name.

        What the wheels require themselves is in them, and not known here.
        """
        locked = {one.name: one for one in self.wheels}
        problems = []
        for needed in map(Requirement, wanted):
            if not in_guest(needed, self.python):
                continue
            one = locked.get(canonicalize_name(needed.name))
            if one is None and canonicalize_name(needed.name) != _PYTEST:
                problems.append(f"{needed.name} is not in it")
            elif one is not None and not needed.specifier.contains(one.version, prereleases=True):
                problems.append(f"it has {one.name} {one.version}, and {needed} is asked for")
        if bool(pytest) != bool(self.pytest):
            told = self.pytest.removeprefix(_PYTEST) or "the image's"
            problems.append(f"it was made for another pytest ({told})")
        elif pytest and _PYTEST in locked:
            version = locked[_PYTEST].version
            if not Requirement(pytest).specifier.contains(version, prereleases=True):
                problems.append(f"it has pytest {version}, and {pytest} is asked for")
        if problems:
            raise self.refusal("; ".join(problems))

    def check_python(self, python: str) -> None:
        """Raise UsageError unless it was made for a guest with that ``python``."""
        if python != self.python:
            raise self.refusal(f"it is for Python {self.python}, and the guest has {python}")


def beside(config: Path) -> Path:
    """The lock of a configuration's guest: guest.lock of kernels.toml, x.guest.lock of x.toml."""
    plain = config.name == "kernels.toml"
    return config.with_name("guest.lock" if plain else f"{config.stem}.guest.lock")


def find(config: Path, files: Files) -> Lock | None:
    """The lock beside ``config``, read by ``files``; None where there is none.

    Raises UsageError for one that cannot be understood.
    """
    file = beside(config)

    def text() -> str:
        return files.read(file, "guest.lock").data.decode()

    def parsed(value: dict[str, Any]) -> Lock:
        wheels = _WHEELS.validate_python(value["wheels"])
        for one in wheels:
            parse_wheel_filename(one.file)  # raises ValueError for what is not a wheel
        return Lock(file, str(value["python"]), str(value["pytest"]), wheels)

    try:
        return read_lock(file, text, parsed, schema=_SCHEMA, cure=_CURE)
    except FileNotFoundError:
        return None


def write(lock: Lock) -> None:
    """Write ``lock`` so that a reader sees all of it or the old one."""
    wheels = [asdict(one) for one in sorted(lock.wheels, key=lambda one: one.name)]
    write_json(
        lock.file,
        {"schema": _SCHEMA, "python": lock.python, "pytest": lock.pytest, "wheels": wheels},
    )

"""The wheels that ``[guest] requirements`` and ``pytest`` come to for the guest's Python.

pip resolves them once; what it found is kept, so the same requirements are the same wheels from
then on.  Where they are locked, pip brings exactly what the lock names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vmtest.errors import ImageError, UsageError
from vmtest.host import attempts, interrupt
from vmtest.host.cache import (
    disk_errors,
    locked,
    read_record,
    scratch,
    sha256_file,
    sha256_json,
    write_record,
)
from vmtest.host.files import Files
from vmtest.model.text import last_line, one_line
from vmtest.model.versions import unique
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.kept import kept
from vmtest.rootfs.lock import Lock, LockedWheel
from vmtest.rootfs.needed import closure, in_guest, requires, without_marker

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
_SHOWN = 120  # characters of why a request of pip's failed
# urllib3's words in pip's log; the number is of the attempts that are left behind the next.
_LEFT = r"Retry\(total=(?P<left>\d+),.*\)"
_RETRIES = (
    re.compile(
        rf"Retrying \({_LEFT}\) after connection broken by ['\"](?P<why>.*)['\"]: (?P<what>\S+)"
    ),
    re.compile(
        r'"[A-Z]+ (?P<what>\S+) HTTP/[0-9.]+" (?P<status>[0-9]+) .*\n'
        rf".* Incremented Retry for .*: {_LEFT}"
    ),
)
_PYTEST = "pytest"
_CONSTRAINT = "(constraint) pytest"
_NO_PIP = (
    "[guest] requirements, or pytest: vmtest's environment has no pip to resolve them; "
    "install pip there, or name all wheels in [guest] wheels"
)


def resolve(
    wanted: Sequence[str], pytest: str, python: GuestPython, cache: Path, log: Callable[[str], None]
) -> tuple[Path, ...]:
    """The wheels for ``wanted`` and all that they need, by pip the first time.

    ``pytest`` is a requirement too, "" for the pytest of the image, which then stays.  Raises
    UsageError where ``wanted`` needs another, ImageError when pip fails.
    """
    asked = [_RECIPE, sorted(wanted), _constraint(pytest, python), python.version]

    def make(folder: Path) -> None:
        log(f"resolving {', '.join(filter(None, (*wanted, pytest)))}")
        _keep(_all(wanted, pytest, python, folder), folder / "entry", asked)

    return kept(cache, KIND, _entry(asked, python), read_entry, make)


def resolve_anew(
    wanted: Sequence[str], pytest: str, python: GuestPython, cache: Path
) -> tuple[LockedWheel, ...]:
    """What ``wanted`` and ``pytest`` come to today, as a lock names it; raises as `resolve` does.

    The wheels are kept as those of that lock: who takes it on this host asks nobody.
    """
    name = f"{KIND}-lock"
    with locked(cache, name), scratch(cache, name) as folder, disk_errors(cache, name):
        wheels = _all(wanted, pytest, python, folder)
        _check_addresses(wheels, wanted, python)
        found = tuple(LockedWheel(wheel.name, sha256_file(wheel)) for wheel in wheels)
        asked = _asked_of(found, python)

        def make(made: Path) -> None:
            _keep(wheels, made / "entry", asked)

        kept(cache, KIND, _entry(asked, python), read_entry, make)
    return found


def _check_addresses(wheels: Sequence[Path], wanted: Sequence[str], python: GuestPython) -> None:
    """Raise UsageError for a wheel's requirement of an address: a lock has only names for pip."""
    named = _addresses(wanted)
    files = Files()
    for wheel in wheels:
        for needed in requires(wheel, python.version, files):
            if needed.url is not None and canonicalize_name(needed.name) not in named:
                raise UsageError(
                    f"[guest] requirements: {wheel.name} requires {needed.name} at an address, "
                    f"which a lock cannot hold; name {needed.name} @ URL in requirements too"
                )


def _addresses(wanted: Sequence[str]) -> dict[str, str]:
    """The address of each package of ``wanted`` that is named with one."""
    given = map(Requirement, wanted)
    return {canonicalize_name(one.name): one.url for one in given if one.url is not None}


def resolve_locked(
    wanted: Sequence[str],
    pytest: str,
    python: GuestPython,
    lock: Lock,
    cache: Path,
    log: Callable[[str], None],
) -> tuple[Path, ...]:
    """Those wheels of ``lock`` that ``wanted`` and ``pytest`` need: exactly these, or an error.

    Raises UsageError where the lock is not for this Python or does not satisfy them, ImageError
    when pip cannot bring what it names.
    """
    lock.check_python(python.version)
    lock.check(wanted, pytest)
    asked = _asked_of(lock.wheels, python)

    def make(folder: Path) -> None:
        log(f"fetching {len(lock.wheels)} wheels of {lock.file.name}")
        into = folder / "locked"
        into.mkdir()
        _download_locked(lock, _addresses(wanted), python, into)
        _keep(sorted(into.glob("*.whl")), folder / "entry", asked)

    wheels = kept(cache, KIND, _entry(asked, python), read_entry, make)
    found, missing = closure(_given(wanted, pytest, python), wheels, python.version, _there(python))
    if missing:
        raise lock.refusal(f"it has nothing for {', '.join(missing)}")
    return tuple(found)


def _asked_of(wheels: Sequence[LockedWheel], python: GuestPython) -> list[object]:
    return [_RECIPE, "locked", sorted([one.file, one.sha256] for one in wheels), python.version]


def _entry(asked: Sequence[object], python: GuestPython) -> str:
    return f"python{python.version}-{sha256_json(asked)[:16]}"


def _keep(wheels: Sequence[Path], made: Path, asked: Sequence[object]) -> None:
    """Move ``wheels`` into the entry ``made``, and write down what they are."""
    found = {wheel.name: sha256_file(wheel.rename(made / wheel.name)) for wheel in wheels}
    write_record(made / _RECORD, {"asked": asked, "wheels": found})


def _constraint(pytest: str, python: GuestPython) -> str:
    return pytest or f"{_PYTEST}=={python.pytest}"


def _there(python: GuestPython) -> dict[str, str]:
    """What the image has of what wheels require."""
    return {_PYTEST: python.pytest}


def _given(named: Sequence[str], pytest: str, python: GuestPython) -> list[Requirement]:
    """``named`` and ``pytest``, as far as they are for the guest's Python."""
    given = (Requirement(one) for one in filter(None, (*named, pytest)))
    return [one for one in given if in_guest(one, python.version)]


def _all(named: Sequence[str], pytest: str, python: GuestPython, folder: Path) -> list[Path]:
    """The wheels for ``named`` and ``pytest`` in ``folder``, also what only the guest needs.

    pip goes by the Python that it runs on wherever a requirement has a marker.  So it is asked
    again, for everything together, until its wheels have all that they require in the guest.
    """
    constraint = _constraint(pytest, python)
    (folder / "constraints.txt").write_text(f"{constraint}\n", encoding="utf-8")
    wanted = _given(named, pytest, python)
    asked = [without_marker(one) for one in wanted]
    found: list[Path] = []
    missing = asked
    while missing:
        into = folder / f"asked-{len(asked)}"
        said = _download(asked, python, folder, into)
        if said is not None:
            raise _refusal(said, asked, pytest, python)
        _check_wheels(into)
        found, missing = closure(wanted, into.glob("*.whl"), python.version, _there(python))
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
    return _pip(python, into, ["--constraint", str(folder / "constraints.txt"), *wanted])


def _download_locked(
    lock: Lock, addresses: Mapping[str, str], python: GuestPython, into: Path
) -> None:
    """The same for what ``lock`` names: no other file, and nothing that it requires.

    ``addresses`` are those of packages that no index has.  Raises ImageError.
    """
    if not lock.wheels:
        return
    listed = into.with_name("locked.txt")
    lines = []
    for one in lock.wheels:
        address = addresses.get(one.name)
        pinned = f"{one.name}=={one.version}" if address is None else f"{one.name} @ {address}"
        lines.append(f"{pinned} --hash=sha256:{one.sha256}\n")
    listed.write_text("".join(lines), encoding="utf-8")
    said = _pip(python, into, ["--no-deps", "--require-hashes", "--requirement", str(listed)])
    if said is not None:
        if "No module named pip" in said:
            raise ImageError(_NO_PIP)
        raise ImageError(
            f"{lock.file}: pip cannot bring what it names; lock again with: vmtest image lock; "
            f"pip says:{_told(said)}"
        )


def _pip(python: GuestPython, into: Path, words: Sequence[str]) -> str | None:
    """Have pip put what ``words`` ask for in ``into``; what it says when it fails."""
    abi = f"cp{python.version.replace('.', '')}"
    log = into.with_name("pip.log")
    log.unlink(missing_ok=True)  # pip would write behind it
    done = interrupt.run(
        [
            # Only its log, and only with -v, has what it asked again after a 503.
            *(sys.executable, "-m", "pip", "download", "--no-input", "-v", "--log", str(log)),
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
            *("--dest", str(into)),
            *words,
        ],
        merged=True,
    )
    if log.exists():  # there is a pip
        _tell_of_retries(log.read_text(encoding="utf-8", errors="replace"))
    return done.stdout if done.returncode else None


def _tell_of_retries(log: str) -> None:
    """Say which requests pip made again, by its ``log``."""
    found = [one for kind in _RETRIES for one in kind.finditer(log)]
    most = max((int(one["left"]) for one in found), default=0)
    for one in sorted(found, key=lambda one: one.start()):
        said = one.groupdict()
        why = one_line(said["why"], _SHOWN) if "why" in said else f"HTTP status {said['status']}"
        attempts.again(f"pip: {said['what']}", why, most - int(said["left"]) + 1, most + 2)


def _refusal(
    output: str, wanted: Sequence[str], pytest: str, python: GuestPython
) -> ImageError | UsageError:
    """Why there are no wheels for ``wanted``, by the ``output`` of pip."""
    if "No module named pip" in output:
        return ImageError(_NO_PIP)
    told = _told(output)
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


def _told(output: str) -> str:
    """The lines of pip's ``output`` that say what is wrong."""
    _, error, rest = output.partition("ERROR: ")
    if "Traceback (most recent call last)" in rest:  # as after the last of several 503
        return f"\n  {last_line(rest)}"
    said = [line for line in f"{error}{rest}".splitlines() if line.strip()]
    return "".join(f"\n  {line}" for line in said[:_MOST])


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

"""The folder vmtest keeps things in: locks, scratch space, publishing by rename.

Everything below the root follows one rule: an entry is complete or absent.  It
is made in a scratch folder next to its place, under a lock, and renamed.  A
writer that dies leaves a scratch folder behind, which nobody reads and which the
next writer removes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from vmtest.errors import InfrastructureError, UsageError
from vmtest.host import interrupt
from vmtest.host.requirements import search_path
from vmtest.host.write import write_file

ENVIRONMENT = "VMTEST_CACHE"
"""The environment variable that moves the cache somewhere else."""

_PATIENCE = 0.5
FULL = (errno.ENOSPC, errno.EDQUOT)
"""The error numbers of a full disk."""
_FULL_BELOW = 64 << 10
_PIECE = 1 << 18
"""Bytes that are hashed at a time: they fit into a processor's cache."""
_UNSAFE = re.compile(r"[^A-Za-z0-9.+_~-]")


def default_cache() -> Path:
    """Where kernels and guest images are kept: $VMTEST_CACHE or the user's cache folder.

    Raises UsageError for one in a home folder that is not known.
    """
    configured = os.environ.get(ENVIRONMENT)
    if configured:
        try:
            return Path(configured).expanduser().absolute()
        except RuntimeError:
            raise UsageError(
                f"{ENVIRONMENT}={configured}: the home folder that it begins with is not known; "
                "write the path in full"
            ) from None
    return platformdirs.user_cache_path("vmtest")


def safe_name(text: str) -> str:
    """``text`` as a single file name."""
    name = _UNSAFE.sub("_", text)
    return name if name.strip(".") else f"_{name}"


def ensure(directory: Path) -> Path:
    """Make ``directory``; raises InfrastructureError naming it when that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"{directory}: cannot make this folder: {error.strerror}; "
            f"set {ENVIRONMENT} to a folder you may write to"
        ) from error
    return directory


def _lock(root: Path, name: str, timeout: float = -1) -> FileLock:
    return FileLock(ensure(root / "locks") / f"{safe_name(name)}.lock", timeout=timeout)


def _read_only(root: Path) -> bool:
    """Whether there is a cache in which this user can neither make nor take a lock."""
    place = root / "locks" if (root / "locks").is_dir() else root
    return root.is_dir() and not os.access(place, os.W_OK)


@contextmanager
def locked(root: Path, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock ``name`` of the cache ``root``; it ends with its process, however that ends.

    ``waiting`` is called twice a second while another has it; what it raises ends the waiting,
    as an interrupt does.  A cache that this user can only read is not locked: an entry is whole or
    not there, and whoever then writes is told that he cannot.
    """
    if _read_only(root):
        yield
        return
    lock = _lock(root, name)
    try:
        while True:
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                interrupt.current().check()
                if waiting is not None:
                    waiting()
            else:
                break
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        if error.filename is None or str(root / "locks") not in str(error.filename):
            raise
        raise InfrastructureError(
            f"{error.filename}: cannot lock: {error.strerror}; "
            f"set {ENVIRONMENT} to a folder you may write to"
        ) from error


@contextmanager
def try_locked(root: Path, name: str) -> Iterator[bool]:
    """Hold the lock ``name`` if nobody has it: whether it is ours; does not wait."""
    lock = _lock(root, name, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


_held: dict[Path, int] = {}  # descriptors: nobody closes them before the process ends
_holding = threading.Lock()


def _mark(root: Path, name: str) -> Path:
    return root / "used" / safe_name(name)


def hold(root: Path, name: str) -> None:
    """Keep the entry ``name`` from being pruned until this process ends, and note its use.

    A shared lock, which ends with its process, on a file whose time of change is that of the
    last use.  Waits for one who is removing the entry.  In a cache that can only be read it
    does nothing: nobody prunes there.
    """
    path = _mark(root, name)
    with _holding, suppress(OSError, InfrastructureError):
        if path not in _held:
            ensure(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            except BaseException:
                os.close(descriptor)
                raise
            _held[path] = descriptor
        os.utime(path)


def let_go(root: Path, name: str) -> None:
    """End what :func:`hold` began: the entry is not used any more by this process."""
    with _holding:
        descriptor = _held.pop(_mark(root, name), None)
        if descriptor is not None:
            os.close(descriptor)


def last_used(root: Path, name: str) -> float | None:
    """When ``name`` was last held, in seconds since the epoch; None when it never was."""
    try:
        return _mark(root, name).stat().st_mtime
    except OSError:
        return None


def in_use(root: Path, name: str) -> bool:
    """Whether a process holds ``name`` now."""
    if last_used(root, name) is None:
        return False
    with unused(root, name) as free:
        return not free


@contextmanager
def unused(root: Path, name: str) -> Iterator[bool]:
    """Whether nobody holds ``name``; if so, nobody can until this is left."""
    path = _mark(root, name)
    ensure(path.parent)
    with path.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def scratch(root: Path, name: str) -> Iterator[Path]:
    """An empty folder on the same file system as the cache, gone afterwards.

    The caller holds the lock ``name``: whatever scratch of that name is there
    was left by a writer that died.
    """
    parent = ensure(root / "tmp")
    sweep(root, held=name)
    try:
        path = Path(tempfile.mkdtemp(prefix=f"{safe_name(name)}@", dir=parent))
    except OSError as error:
        raise InfrastructureError(
            f"{parent}: cannot make a folder here: {error.strerror}; "
            f"set {ENVIRONMENT} to a folder you may write to"
        ) from error
    path.chmod(0o755)
    try:
        yield path
    finally:
        remove_tree(path)


def sweep(root: Path, held: str | None = None) -> list[Path]:
    """Remove scratch folders whose writer is gone; returns those removed.

    ``held`` names a lock that the caller holds.
    """
    removed = []
    for left in sorted((root / "tmp").glob("*@*")):
        name = left.name.rpartition("@")[0]
        if held is not None and name == safe_name(held):
            remove_tree(left)
            removed.append(left)
            continue
        with suppress(Timeout, OSError), _lock(root, name, timeout=0):
            remove_tree(left)
            removed.append(left)
    return removed


def remove_tree(path: Path) -> None:
    """Remove ``path`` and what is in it, whatever its permissions; missing is fine."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def remove_unused(root: Path, name: str, place: Path) -> bool:
    """Remove the entry ``name`` at ``place``; False, and it stays, when a process holds it.

    It is renamed first: whoever dies in the middle leaves no half entry behind.
    """
    with unused(root, name) as free:
        if free:
            with locked(root, name), scratch(root, name) as folder, suppress(FileNotFoundError):
                place.rename(folder / "old")
        return free


def put_aside(root: Path, name: str, place: Path) -> None:
    """Take the entry ``name`` away from ``place``; the caller has its lock.

    Another process may run a guest on it: then its files stay, below ``damaged/``, until
    :func:`clear_damaged` finds that nobody uses them.  Raises InfrastructureError.
    """
    let_go(root, name)
    folder = ensure(root / "damaged")
    try:
        place.rename(Path(tempfile.mkdtemp(prefix=f"{safe_name(name)}@", dir=folder)) / "old")
    except FileNotFoundError:
        return  # somebody else took it away
    except OSError as error:
        raise InfrastructureError(
            f"{place}: cannot be removed from the cache: {error.strerror}; remove it yourself, or "
            f"set {ENVIRONMENT} to a folder you may write to"
        ) from error
    finally:
        clear_damaged(root)


def clear_damaged(root: Path) -> None:
    """Remove what :func:`put_aside` took away and no process uses any more."""
    for left in (root / "damaged").glob("*@*"):
        with suppress(OSError), unused(root, left.name.rpartition("@")[0]) as free:
            if free:
                remove_tree(left)


def publish(made: Path, place: Path) -> None:
    """Rename ``made`` to ``place``; what is broken there already makes room first.

    Raises InfrastructureError where that is not allowed, OSError for a full disk.
    """
    ensure(place.parent)
    try:
        if os.path.lexists(place):
            old = made.with_name(f"{made.name}.old")
            place.rename(old)
            made.rename(place)
            remove_tree(old)
        else:
            made.rename(place)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InfrastructureError(
            f"{place}: cannot be put into the cache: {error.strerror}; "
            f"set {ENVIRONMENT} to a folder you may write to"
        ) from error


def require_space(directory: Path, need: int, what: str) -> None:
    """Raise InfrastructureError when ``directory`` has less than ``need`` bytes free."""
    free = shutil.disk_usage(ensure(directory)).free
    if free < need:
        raise InfrastructureError(
            f"{what}: {directory} has {megabytes(free)} free and {megabytes(need)} are needed; "
            f"make room there or set {ENVIRONMENT} to a folder on another disk"
        )


@contextmanager
def disk_errors(directory: Path, what: str) -> Iterator[None]:
    """Turn a full disk met on the way into an InfrastructureError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(directory, what) from error


def disk_full(directory: Path, what: str) -> InfrastructureError:
    """The error for a disk that filled while ``what`` was being written."""
    free = shutil.disk_usage(directory).free if directory.exists() else 0
    return InfrastructureError(
        f"{what}: no space left in {directory} ({megabytes(free)} free); nothing was published; "
        f"make room there or set {ENVIRONMENT} to a folder on another disk"
    )


def check_room(directory: Path, what: str) -> None:
    """Raise InfrastructureError when ``directory`` for temporary files is full.

    For after a failure of a program that does not say why.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return
    if free < _FULL_BELOW:
        raise InfrastructureError(
            f"{what}: no space left in {directory} ({megabytes(free)} free), where temporary files "
            f"go; make room there or set TMPDIR to a folder on another disk"
        )


def megabytes(size: int) -> str:
    """``size`` in bytes, for people."""
    return f"{size / 1e6:.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.1f} MB"


def tree_size(path: Path) -> int:
    """What the file or folder ``path`` takes on the disk, in bytes; hard links once."""
    if path.is_file():
        return path.stat().st_blocks * 512
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                status = (Path(folder) / name).lstat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file, in hex."""
    # A kernel has thousands of small files: a stream of Python's costs more than to read one.
    file, digest = os.open(path, os.O_RDONLY | os.O_CLOEXEC), hashlib.sha256()
    try:
        while data := os.read(file, _PIECE):
            digest.update(data)
    except OSError as error:
        error.filename = str(path)  # which a descriptor does not tell
        raise
    finally:
        os.close(file)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in its canonical form, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as :func:`write_text` writes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` to ``path`` so that a reader sees all of it or the old one."""
    ensure(path.parent)
    write_file(path, text, mode)


def read_json(path: Path) -> Any:
    """What :func:`write_json` wrote, or None when there is nothing readable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


_DIGEST = "sha256"


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as :func:`write_json` does, with a digest of itself among its members.

    A folder that somebody made in its place is removed.
    """
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    write_json(path, {**value, _DIGEST: sha256_json(value)})


def read_record(path: Path, *, older: bool = False) -> dict[str, Any] | None:
    """What :func:`write_record` wrote, or None when it is missing or damaged.

    ``older`` takes one without a digest too, which an older vmtest wrote.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return None
    if older and _DIGEST not in value:
        return value
    digest = value.pop(_DIGEST, None)
    return value if digest == sha256_json(value) else None


def read_recorded(place: Path, record: str, file: str, member: str) -> tuple[dict[str, Any], bytes]:
    """The record of that name in ``place``, and the ``file`` whose digest is its ``member``.

    Raises ValueError with the file and what is wrong with it.
    """
    known = read_record(place / record)
    if known is None:
        raise ValueError(f"{record} is missing or damaged")
    try:
        data = (place / file).read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    digest, noted = hashlib.sha256(data).hexdigest(), str(known.get(member))
    if digest != noted:
        raise ValueError(f"{file} has sha256 {digest[:12]}, expected {noted[:12]}")
    return known, data


def age_of(record: Mapping[str, Any]) -> float | None:
    """How many seconds ago ``when`` of ``record`` was, below 0 in the future; None without one."""
    try:
        return time.time() - float(record["when"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def find_tool(name: str) -> str | None:
    """The path of a program, looked for in PATH and in the administrator's folders."""
    return shutil.which(name, path=search_path())


def require_tool(name: str, package: str, purpose: str) -> str:
    """The path of a program; raises InfrastructureError with its package when it is missing."""
    found = find_tool(name)
    if found is None:
        raise InfrastructureError(
            f"{name} is not installed and is needed {purpose}; "
            f"install the package {package} (on Debian: apt-get install {package})"
        )
    return found

"""An sshd for tests that reach hosts by SSH: the installed one, or one that nobody installed.

``python -m tests.sshd``, as ``tox -e setup`` does, fetches the packages with the host's own apt and
unpacks them into the tests' cache.  An installed SSH server would run as a service, on every
network of a developer's machine; this one runs when a test starts it.  Python's standard library
only.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmtest.host.requirements import search_path

PACKAGE = "openssh-server"
USER = "sshd"
"""The user without rights that an sshd of root's needs, which the package's installation makes."""
WRAPPER = "libnss-wrapper"
"""Tells a program of users whom the host does not have."""


@dataclass(frozen=True, slots=True)
class Sshd:
    """An sshd: ``environment`` and lines of its configuration, ``settings``, are what it takes."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[str] = ()

    def start(self, config: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start it in the foreground with the file ``config``."""
        with log.open("wb") as out:
            argv = [str(self.program), "-D", "-e", "-f", str(config)]
            environment = {**os.environ, **self.environment}
            return subprocess.Popen(argv, env=environment, stdout=out, stderr=out)


def cache() -> Path:
    """Where the packages are unpacked."""
    own = os.environ.get("VMTEST_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(user) / "vmtest") / "tests" / "sshd"


def find() -> Sshd | None:
    """The installed one, else the unpacked one; None where there is none that runs."""
    installed = shutil.which("sshd", path=search_path())
    if installed is not None:
        return Sshd(Path(installed))
    found = _unpacked(cache())
    return found if found is not None and _runs(found) else None


def _unpacked(root: Path) -> Sshd | None:
    program = root / "usr" / "sbin" / "sshd"
    if not program.exists():
        return None
    libraries = sorted({path.parent for path in root.rglob("lib*.so*")})
    environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    if _lacks_user():
        users = root / "passwd"
        if not users.exists():
            return None  # unpacked by one who is not root
        wrapper = next(root.rglob("libnss_wrapper.so*"))
        environment |= {
            "LD_PRELOAD": str(wrapper),
            "NSS_WRAPPER_PASSWD": str(users),
            "NSS_WRAPPER_GROUP": "/etc/group",
        }
    return Sshd(program, environment, tuple(_settings(root)))


def _settings(root: Path) -> Iterator[str]:
    """Where the parts are that newer ones start, and look for in /usr/lib."""
    for name in ("session", "auth"):
        part = root / "usr" / "lib" / "openssh" / f"sshd-{name}"
        if part.exists():
            yield f"Sshd{name.capitalize()}Path {part}"


def _lacks_user() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return True
    return False


def _runs(sshd: Sshd) -> bool:
    """Whether it starts at all: the libraries that it was unpacked for may be gone."""
    argv, environment = [str(sshd.program), "-V"], {**os.environ, **sshd.environment}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    return (
        "OpenSSH_" in done.stderr
    )  # older ones do not know -V, and say their version all the same


def fetch() -> None:
    """Unpack it into the cache; raises OSError, subprocess.CalledProcessError."""
    place = cache()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sshd-", dir=place.parent) as name:
        folder = Path(name)
        # apt of root's fetches as another user, who may not write here.
        own = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        _run(["apt-get", *own, "download", *_lacking()], folder)
        root = folder / "root"
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(root)], folder)
        if _lacks_user():
            users = Path("/etc/passwd").read_text()
            nobody = f"{USER}:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
            (root / "passwd").write_text(f"{users.rstrip()}\n{nobody}")
        shutil.rmtree(place, ignore_errors=True)
        root.rename(place)


def _lacking() -> list[str]:
    """What apt would install for it, as NAME=VERSION."""
    names = [PACKAGE, WRAPPER] if _lacks_user() else [PACKAGE]
    argv = ["apt-get", "install", "--simulate", "--no-install-recommends", *names]
    said = _run(argv, Path("/"))
    found = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", said, re.MULTILINE)
    return [f"{name}={version}" for name, version in found]


def _run(argv: Sequence[str], folder: Path) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> int:
    """Have one; returns 0 when there is."""
    if (found := find()) is not None:
        print(f"vmtest setup: the tests' sshd is {found.program}")
        return 0
    try:
        try:
            fetch()
        except subprocess.CalledProcessError:  # a fresh machine's index is empty or stale
            elevate = [] if os.geteuid() == 0 else ["sudo"]
            subprocess.run([*elevate, "apt-get", "update"], check=False)
            fetch()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"vmtest setup: no sshd for the tests could be fetched: {error}", file=sys.stderr)
        return 1
    found = find()
    if found is None:
        print(f"vmtest setup: the sshd in {cache()} does not run", file=sys.stderr)
        return 1
    print(f"vmtest setup: unpacked an sshd for the tests: {found.program}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

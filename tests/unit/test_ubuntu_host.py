"""A host of another shape: its own /etc/os-release and apt sources over ours, in a namespace.

What the package python-apt-common knows of distributions is the real one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TEMPLATES = Path("/usr/share/python-apt/templates")
pytestmark = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="python-apt-common is not installed")

_ASK = """
import json, sys
from vmtest.errors import UsageError
from vmtest.host.debian import find_mirrors
try:
    found = find_mirrors(sys.argv[1], distribution=sys.argv[1], environment={})
except UsageError as error:
    print(json.dumps({"error": str(error)}))
else:
    for one in (found.main, found.security):
        print(json.dumps(one and {"uri": one.uri, "keys": one.signed_by, "from": one.source}))
"""
_UBUNTU = """\
PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
"""
_UBUNTU_SOURCES = """\
# See http://help.example/community/UpgradeNotes
Types: deb
URIs: http://mirror.example/ubuntu/
Suites: noble noble-updates noble-backports
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.example/ubuntu/
Suites: noble-security
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""


@dataclass
class Host:
    """A host's shape: the files that lie over ours, all below ``folder``."""

    folder: Path
    os_release: str
    sources: dict[str, str]
    keyrings: tuple[str, ...] = ()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` where these files are the host's."""
        apt, keys = self.folder / "apt", self.folder / "keyrings"
        for place in (apt / "sources.list.d", keys):
            place.mkdir(parents=True, exist_ok=True)
        (self.folder / "os-release").write_text(self.os_release)
        for name, text in self.sources.items():
            (apt / name).write_text(text)
        for name in self.keyrings:
            (keys / name).touch()
        mounts = {
            self.folder / "os-release": Path("/etc/os-release").resolve(),
            apt: Path("/etc/apt"),
            keys: Path("/usr/share/keyrings"),
        }
        binds = [f"mount --bind {shlex.quote(str(a))} {b}" for a, b in mounts.items()]
        script = " && ".join([*binds, f"exec {shlex.join(command)}"])
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        namespace = ["unshare", "--mount", *user]
        if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
            pytest.skip("a mount namespace of its own may not be made here")
        return subprocess.run(
            [*namespace, "sh", "-c", script], capture_output=True, text=True, check=False
        )

    def mirrors(self, distribution: str) -> list[dict[str, str]]:
        """The mirror and the security mirror that vmtest finds there; a dict with the error."""
        done = self.run(sys.executable, "-c", _ASK, distribution)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def ubuntu(tmp_path: Path) -> Host:
    sources = {
        "sources.list": "# Ubuntu sources have moved to the ubuntu.sources file\n",
        "sources.list.d/ubuntu.sources": _UBUNTU_SOURCES,
    }
    keyrings = ("debian-archive-keyring.gpg", "ubuntu-archive-keyring.gpg")
    return Host(tmp_path, _UBUNTU, sources, keyrings)


@pytest.fixture
def debian(tmp_path: Path) -> Host:
    source = "deb http://mirror.example/debian trixie main\n"
    keyrings = ("debian-archive-keyring.gpg",)
    return Host(tmp_path, "ID=debian\n", {"sources.list": source}, keyrings)


def known(file: str, suite: str) -> str:
    """The address that a template of python-apt-common has for a suite on amd64."""
    for part in (TEMPLATES / file).read_text(encoding="utf-8").split("\n\n"):
        if re.search(rf"^Suite: {re.escape(suite)}$", part, re.MULTILINE):
            for name in ("BaseURI-amd64", "BaseURI"):
                if found := re.search(rf"^{name}: (\S+)$", part, re.MULTILINE):
                    return found[1]
    raise AssertionError(f"{file} has no {suite}")


def test_ubuntu_knows_debians_mirrors_and_keys_without_a_variable(ubuntu: Host) -> None:
    main, security = ubuntu.mirrors("debian")
    assert main["uri"] == known("Debian.info", "{series}")
    there = known("Debian.info", "{series}-security").rstrip("/")
    assert security["uri"] in (there, f"{there}/debian-security")
    assert security["uri"].endswith("/debian-security")
    assert main["keys"] == security["keys"] == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_ubuntus_own_kernels_come_from_its_own_sources(ubuntu: Host) -> None:
    main, security = ubuntu.mirrors("ubuntu")
    assert main["uri"] == "http://mirror.example/ubuntu/"
    assert security["uri"] == "http://security.example/ubuntu/"


def test_ubuntu_without_debians_keys_is_told_their_package(ubuntu: Host) -> None:
    ubuntu.keyrings = ("ubuntu-archive-keyring.gpg",)
    (found,) = ubuntu.mirrors("debian")
    assert "install the package debian-archive-keyring or set keyring there" in found["error"]


def test_an_ubuntu_in_a_cloud_has_its_mirrors_in_a_list(ubuntu: Host, tmp_path: Path) -> None:
    listed = tmp_path / "apt" / "apt-mirrors.txt"
    listed.parent.mkdir()
    listed.write_text("http://cloud.example/ubuntu/\tpriority:1\n")
    source = "deb mirror+file:/etc/apt/apt-mirrors.txt jammy main\n"
    ubuntu.sources = {"sources.list": source}
    main, _ = ubuntu.mirrors("ubuntu")
    assert main["uri"] == "mirror+file:/etc/apt/apt-mirrors.txt"


def test_debian_knows_ubuntus_mirrors_and_asks_for_its_keys(debian: Host, tmp_path: Path) -> None:
    (found,) = debian.mirrors("ubuntu")
    assert "set keyring there" in found["error"]
    debian.keyrings = ("debian-archive-keyring.gpg", "ubuntu-archive-keyring.gpg")
    main, security = debian.mirrors("ubuntu")
    assert main["uri"] == known("Ubuntu.info", "devel")
    assert security["uri"] == known("Ubuntu.info", "devel-security")


def test_a_debian_whose_apt_names_no_mirror_of_debians_has_the_packages(debian: Host) -> None:
    debian.sources = {"sources.list": "deb http://proxy.example/everything trixie main\n"}
    main, _ = debian.mirrors("debian")
    assert main["uri"] == known("Debian.info", "{series}")

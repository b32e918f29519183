"""A host of another shape: its own /etc/os-release and apt sources over ours, in a namespace.

What the package python-apt-common knows of distributions is the real one.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from shaped_host import Host

TEMPLATES = Path("/usr/share/python-apt/templates")
pytestmark = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="python-apt-common is not installed")

_ASK = """
import json, sys
from vmtest.errors import UsageError
from vmtest.host.debian import find_mirrors
try:
    variables = dict(one.split("=") for one in sys.argv[2:])
    found = find_mirrors(sys.argv[1], distribution=sys.argv[1], environment=variables)
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


def mirrors(host: Host, distribution: str, *variables: str) -> list[dict[str, str]]:
    """The mirror and the security mirror that vmtest finds there; a dict with the error."""
    done = host.run(sys.executable, "-c", _ASK, distribution, *variables)
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
    main, security = mirrors(ubuntu, "debian")
    assert main["uri"] == known("Debian.info", "{series}")
    there = known("Debian.info", "{series}-security").rstrip("/")
    assert security["uri"] in (there, f"{there}/debian-security")
    assert security["uri"].endswith("/debian-security")
    assert main["keys"] == security["keys"] == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_ubuntus_own_kernels_come_from_its_own_sources(ubuntu: Host) -> None:
    main, security = mirrors(ubuntu, "ubuntu")
    assert main["uri"] == "http://mirror.example/ubuntu/"
    assert security["uri"] == "http://security.example/ubuntu/"


def test_ubuntu_without_debians_keys_is_told_their_package(ubuntu: Host) -> None:
    ubuntu.keyrings = ("ubuntu-archive-keyring.gpg",)
    (found,) = mirrors(ubuntu, "debian")
    assert "install the package debian-archive-keyring or set keyring there" in found["error"]


def test_an_ubuntu_in_a_cloud_has_its_mirrors_in_a_list(ubuntu: Host, tmp_path: Path) -> None:
    listed = tmp_path / "apt" / "apt-mirrors.txt"
    listed.parent.mkdir()
    listed.write_text("http://cloud.example/ubuntu/\tpriority:1\n")
    source = "deb mirror+file:/etc/apt/apt-mirrors.txt jammy main\n"
    ubuntu.sources = {"sources.list": source}
    main, _ = mirrors(ubuntu, "ubuntu")
    assert main["uri"] == "mirror+file:/etc/apt/apt-mirrors.txt"


def test_debian_knows_ubuntus_mirrors_and_asks_for_its_keys(debian: Host, tmp_path: Path) -> None:
    (found,) = mirrors(debian, "ubuntu")
    assert "set keyring there" in found["error"]
    debian.keyrings = ("debian-archive-keyring.gpg", "ubuntu-archive-keyring.gpg")
    main, security = mirrors(debian, "ubuntu")
    assert main["uri"] == known("Ubuntu.info", "devel")
    assert security["uri"] == known("Ubuntu.info", "devel-security")


def test_a_debian_whose_apt_names_no_mirror_of_debians_has_the_packages(debian: Host) -> None:
    debian.sources = {"sources.list": "deb http://proxy.example/everything trixie main\n"}
    main, _ = mirrors(debian, "debian")
    assert main["uri"] == known("Debian.info", "{series}")


def test_a_mirror_of_ubuntus_that_is_named_has_its_security_updates_too(debian: Host) -> None:
    debian.keyrings = ("debian-archive-keyring.gpg", "ubuntu-archive-keyring.gpg")
    there = "http://named.example/ubuntu"
    main, security = mirrors(debian, "ubuntu", f"VMTEST_UBUNTU_MIRROR={there}")
    assert main["uri"] == security["uri"] == there

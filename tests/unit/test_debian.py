"""Versions as dpkg sorts them; mirrors as the host's apt configuration names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.host.debian import (
    DebianVersion,
    find_mirrors,
    host_mirrors,
    host_options,
    paragraphs,
    sources_text,
)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.192-1~deb11u1", "6.1.192-1"),
        ("6.1.192-1", "6.1.192-2"),
        ("6.1.99-1", "6.1.192-1"),
        ("6.12.117-1~bpo13+1", "6.12.117-1"),
        ("7.4~rc1-1~exp1", "7.4-1"),
        ("7.3.4-1~bpo13+1", "7.3.4-1~bpo13+2"),
        ("6.9-1", "6.12-1"),
        ("2.0-1", "1:1.0-1"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+1"),
    ],
)
def test_versions_sort_as_dpkg_sorts_them(older: str, newer: str) -> None:
    assert DebianVersion(older) < DebianVersion(newer)
    assert DebianVersion(newer) > DebianVersion(older)


def test_leading_zeros_make_no_difference() -> None:
    assert DebianVersion("1.01-1") == DebianVersion("1.1-1")
    assert hash(DebianVersion("1.01-1")) == hash(DebianVersion("1.1-1"))


def test_a_version_has_an_upstream_part_and_a_revision() -> None:
    version = DebianVersion("1:7.3.4-1~bpo13+1")
    assert (version.epoch, version.upstream, version.revision) == (1, "7.3.4", "1~bpo13+1")


def test_paragraphs_join_continuation_lines() -> None:
    text = "Key:\n -----BEGIN\n .\n abc\nOther: x\n\nKey: y\n"
    assert [p["key"] for p in paragraphs(text)] == ["\n-----BEGIN\n.\nabc", "y"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def debian(tmp_path: Path, name: str = "debian") -> Path:
    return write(tmp_path / "os-release", f'NAME="Some"\nID={name}\n')


DEB822 = """\
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /keys/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://disabled.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /keys/debian-archive-keyring.gpg
"""


def test_deb822_sources_name_both_mirrors(tmp_path: Path) -> None:
    write(tmp_path / "apt/sources.list.d/debian.sources", DEB822)
    found = host_mirrors(tmp_path / "apt")
    assert found.main is not None and found.security is not None
    assert found.main.uri == "http://mirror.example/debian"
    assert found.security.uri == "http://mirror.example/debian-security"
    assert found.main.signed_by == "/keys/debian-archive-keyring.gpg"


def test_one_line_sources_name_both_mirrors(tmp_path: Path) -> None:
    write(
        tmp_path / "apt/sources.list",
        "# deb http://commented.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/keys/k.gpg] http://mirror.example/debian/ bookworm main\n"
        "deb http://mirror.example/debian-security bookworm-security main # security\n",
    )
    found = host_mirrors(tmp_path / "apt")
    assert found.main is not None and found.security is not None
    assert (found.main.uri, found.main.signed_by) == (
        "http://mirror.example/debian/",
        "/keys/k.gpg",
    )
    assert found.security.uri == "http://mirror.example/debian-security"


def test_third_parties_are_not_taken_for_debian(tmp_path: Path) -> None:
    write(
        tmp_path / "apt/sources.list.d/others.list",
        "deb https://download.example/linux/debian bookworm stable\n"
        "deb https://apt.example bookworm main\n"
        "deb cdrom:[Debian]/ bookworm main\n",
    )
    found = host_mirrors(tmp_path / "apt")
    assert (found.main, found.security) == (None, None)


def test_a_mirror_list_of_a_cloud_image_is_a_mirror(tmp_path: Path) -> None:
    write(
        tmp_path / "apt/sources.list.d/debian.sources",
        "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm\n"
        "Components: main\n",
    )
    found = host_mirrors(tmp_path / "apt")
    assert found.main is not None
    assert found.main.uri == "mirror+file:///etc/apt/mirrors/debian.list"


def test_without_any_mirror_the_error_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[apt\.debian\].*VMTEST_DEBIAN_MIRROR"):
        find_mirrors("debian", environment={}, etc=tmp_path, os_release=debian(tmp_path, "fedora"))


def test_a_derivative_does_not_lend_its_own_archive(tmp_path: Path) -> None:
    write(tmp_path / "apt/sources.list.d/debian.sources", DEB822)
    with pytest.raises(UsageError):
        find_mirrors(
            "debian", environment={}, etc=tmp_path / "apt", os_release=debian(tmp_path, "ubuntu")
        )


def test_environment_goes_before_configuration_and_that_before_the_host(tmp_path: Path) -> None:
    write(tmp_path / "apt/sources.list.d/debian.sources", DEB822)
    keyring = write(tmp_path / "keys.gpg", "")
    found = find_mirrors(
        "debian",
        "http://configured.example/debian",
        "http://configured.example/security",
        keyring,
        environment={"VMTEST_DEBIAN_MIRROR": "http://environment.example/debian"},
        etc=tmp_path / "apt",
        os_release=debian(tmp_path),
    )
    assert found.main is not None and found.security is not None
    assert found.main.uri == "http://environment.example/debian"
    assert found.security.uri == "http://configured.example/security"
    assert found.main.signed_by == str(keyring)


def test_a_missing_keyring_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"keyring: .*absent\.gpg: no such file"):
        find_mirrors("debian", "http://m.example/debian", keyring=tmp_path / "absent.gpg")


@pytest.mark.parametrize(
    ("environment", "mirror", "source"),
    [
        ({"VMTEST_DEBIAN_MIRROR": "notaurl"}, None, r"\$VMTEST_DEBIAN_MIRROR"),
        ({}, "notaurl", r"kernels\.toml: \[apt\.debian\] mirror"),
    ],
)
def test_a_mirror_that_is_no_url_is_named_with_its_place(
    environment: dict[str, str], mirror: str | None, source: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"^{source}: 'notaurl' is not a URL; write"):
        find_mirrors("debian", mirror, environment=environment, etc=tmp_path)


def test_security_suites_come_from_the_security_mirror(tmp_path: Path) -> None:
    write(tmp_path / "apt/sources.list.d/debian.sources", DEB822)
    found = host_mirrors(tmp_path / "apt")
    assert found.of("trixie-security") is found.security
    assert found.of("trixie-backports") is found.main


def test_a_key_block_survives_the_way_into_a_source(tmp_path: Path) -> None:
    block = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END\n"
    text = "Types: deb\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\n" + block
    write(tmp_path / "apt/sources.list.d/debian.sources", text)
    found = host_mirrors(tmp_path / "apt").main
    assert found is not None
    again = sources_text(found, "sid")
    assert "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END" in again


def test_only_options_for_reaching_a_network_are_taken_from_the_host() -> None:
    dump = "\n".join(
        [
            'Acquire::http::Proxy "http://proxy.example:3128";',
            'Acquire::https::CAInfo "/ca.pem";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::AllowInsecureRepositories "true";',
            'APT::Update::Post-Invoke:: "touch /oops";',
            'Dir::Etc::sourceparts "/etc/apt/sources.list.d";',
        ]
    )
    assert host_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CAInfo "/ca.pem";',
    ]

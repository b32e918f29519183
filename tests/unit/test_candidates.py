"""Which kernels an index offers and which of them a request means; the indexes are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.kernels.archive.candidates import Candidate, matching, nearest, releases, selected
from vmtest.kernels.debian.index import find_candidates, read_packages

RECORDED = Path(__file__).parent / "data" / "packages"
SUITES = ("bullseye-security", "bookworm-security", "trixie-security", "trixie-backports")


def offered(*suites: str) -> list[Candidate]:
    found: list[Candidate] = []
    for suite in suites or SUITES:
        text = (RECORDED / f"{suite}.txt").read_text()
        found += find_candidates(read_packages(text), suite)
    return found


def newest(version: str, *suites: str) -> str:
    return matching(offered(*suites), version)[-1].version.text


def test_only_generic_kernels_are_offered() -> None:
    found = {candidate.release for candidate in offered()}
    assert "6.1.0-56-amd64" in found
    assert not [r for r in found if "cloud" in r or "rt" in r.split("-") or "dbg" in r]


def test_metapackages_are_no_kernels() -> None:
    assert "6.12-amd64" not in {c.release for c in offered("bookworm-security")}


def test_a_pattern_means_the_newest_over_all_suites() -> None:
    assert newest("6.12.*") == "6.12.117-1"
    assert newest("6.1.*") == "6.1.192-2"
    assert newest("5.10.*") == "5.10.262-1"


def test_a_pattern_for_6_1_never_means_6_12() -> None:
    found = matching(offered(), "6.1.*")
    assert found
    assert all(c.kernel_version.numbers[:2] == (6, 1) for c in found)


def test_the_newest_of_a_suite() -> None:
    assert newest("*", "trixie-backports") == "7.3.4-1~bpo13+1"


def test_signed_goes_before_unsigned_of_the_same_version() -> None:
    best = matching(offered(), "6.1.*")[-1]
    assert [p.name for p in best.packages] == ["linux-image-6.1.0-56-amd64"]
    assert best.signed


def test_an_exact_version_is_upstreams_or_the_packages() -> None:
    assert newest("6.12.117") == "6.12.117-1"
    assert newest("6.12.117-1") == "6.12.117-1"
    assert matching(offered(), "6.12.117-2") == []
    assert matching(offered(), "6.12") == []


def test_since_6_19_a_kernel_is_three_packages() -> None:
    best = matching(offered("trixie-backports"), "7.3.4")[-1]
    assert sorted(p.name for p in best.packages) == [
        "linux-base-7.3.4+deb13-amd64",
        "linux-binary-7.3.4+deb13-amd64",
        "linux-modules-7.3.4+deb13-amd64",
    ]
    assert best.size == sum(p.size for p in best.packages) > 100_000_000


def test_before_6_19_it_is_one() -> None:
    best = matching(offered("trixie-backports"), "6.18.15")[-1]
    assert [p.name for p in best.packages] == ["linux-image-6.18.15+deb13-amd64"]


def test_a_kernel_whose_modules_are_gone_is_found_by_name_and_says_why() -> None:
    best = matching(offered("trixie-backports"), "7.1.13")[-1]
    assert best.missing == "its linux-modules package is no longer in the index"


def test_a_pattern_passes_over_kernels_whose_modules_are_gone() -> None:
    assert matching(offered("trixie-backports"), "7.1.*") == []


def test_the_nearest_to_a_version_are_its_bootable_neighbours() -> None:
    near = nearest(offered(), "7.1.13")
    assert [c.version.upstream for c in near] == ["6.12.117", "6.18.15", "7.2.12", "7.3.4"]


def test_the_nearest_to_a_pattern_are_the_newest_of_the_neighbouring_series() -> None:
    near = nearest(offered(), "6.13.*")
    assert [c.version.upstream for c in near] == ["6.1.192", "6.12.117", "6.18.15", "7.2.12"]


def test_the_nearest_to_a_packages_version_are_packages() -> None:
    near = nearest(offered("bookworm-security"), "6.1.192-7")
    assert [c.version.text for c in near][:2] == ["6.1.192-1", "6.1.192-2"]


@pytest.mark.parametrize("version", ["6.1*", "6.*.3", "newest", "", ">=6.1"])
def test_what_is_neither_version_nor_pattern_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match="neither a version"):
        matching(offered(), version)


def test_the_key_changes_with_the_packages_digest() -> None:
    text = (RECORDED / "trixie-security.txt").read_text()
    before = matching(find_candidates(read_packages(text), "s"), "6.12.117")[-1]
    changed = text.replace(before.packages[0].sha256, "0" * 64)
    after = matching(find_candidates(read_packages(changed), "s"), "6.12.117")[-1]
    assert before.key != after.key
    assert before.key.startswith("6.12.117+deb13-amd64_6.12.117-1-")


def test_a_listing_has_one_line_a_package_version_in_version_order() -> None:
    found = releases([*offered(), *offered()])
    versions = [c.version for c in found]
    assert versions == sorted(versions) and len(set(versions)) == len(versions)
    assert len(found) < len(offered())


def test_of_signed_and_unsigned_a_listing_has_the_signed_one() -> None:
    (found,) = [c for c in releases(offered()) if c.version.text == "6.1.192-2"]
    assert found.signed


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("6.12", ["6.12.90", "6.12.111", "6.12.116", "6.12.117"]),
        ("6.12.*", ["6.12.90", "6.12.111", "6.12.116", "6.12.117"]),
        (">=5.10,<6.1", ["5.10.259", "5.10.262"]),
        ("7.2.12", ["7.2.12"]),
        ("7.2.12-1~bpo13+1", ["7.2.12"]),
        ("6.13", []),
    ],
)
def test_a_listing_shows_what_the_pattern_asks_for(pattern: str, shown: list[str]) -> None:
    found = selected(releases(offered()), pattern)
    assert [c.version.upstream for c in found] == shown


def test_a_listing_shows_what_cannot_boot_too() -> None:
    (found,) = selected(releases(offered("trixie-backports")), "7.1.13")
    assert found.missing


@pytest.mark.parametrize("pattern", ["newest", ">=newest", ""])
def test_a_listing_of_no_version_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        selected(offered(), pattern)

"""The suites on objects as others build them: other sections, no BTF of maps, parts missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import vmtest
from real_kernels import KERNEL, PROJECT

MISSING = ("bpf_redirect_dns_send", "bpf_restore_dns_recv", "km_cgr_tail6")


@pytest.fixture
def others(tmp_path: Path) -> Callable[..., Path]:
    """A project of our suites and of our programs, built as an old release of others would be.

    The program of sendmsg is in a section that libbpf does not know, the maps that user space
    fills have sizes only and ask to be pinned, and what is ``MISSING`` has another name.
    """

    def make(addopts: str) -> Path:
        shutil.copy(PROJECT / "kernels.toml", tmp_path)
        shutil.copytree(PROJECT / "bpf", tmp_path / "bpf")
        shutil.copytree(PROJECT / "tests" / "suites", tmp_path / "tests" / "suites")
        ini = tmp_path / "tests" / "suites" / "pytest.ini"
        change(ini, r"^addopts = .*$", rf"\g<0> {addopts}")
        change(tmp_path / "bpf" / "sendmsg.bpf.c", r'SEC\("sk_msg"\)', 'SEC("sk_msg/sendmsg")')
        for name in MISSING:
            change(tmp_path / "bpf" / "cgroup_sock.bpf.c", rf"\b{name}\b", f"x_{name}")
        balance = tmp_path / "bpf" / "include" / "load_balance.h"
        change(balance, r"__type\((key|value), (.*)\);", r"__uint(\1_size, sizeof(\2));")
        change(balance, r"(__uint\(type, .*\);)", r"\1 __uint(pinning, LIBBPF_PIN_BY_NAME);")
        return tmp_path

    return make


def change(path: Path, pattern: str, new: str) -> None:
    """Replaces ``pattern``, which has to be there: a variant that is none would prove nothing."""
    text, count = re.subn(pattern, new, path.read_text(), flags=re.MULTILINE)
    assert count, f"{path.name} has no {pattern}"
    path.write_text(text)


def outcomes_of(project: Path) -> dict[str, dict[str, str]]:
    matrix = json.loads((project / ".vmtest" / "latest" / "matrix.json").read_text())
    (kernel,) = matrix["kernels"]
    return {test["test"].split("::")[-1]: test for test in kernel["tests"]}


def test_what_an_old_release_lacks_is_not_applicable_and_all_else_is_asked(
    others: Callable[..., Path],
) -> None:
    folder = others("--upstream")
    said = vmtest("run", "--kernel", KERNEL, cwd=folder)
    assert said.status == 0, said
    tests = outcomes_of(folder)
    lacking = {
        name: test["message"] for name, test in tests.items() if "not in this object" in str(test)
    }
    for program in MISSING:
        if program != "bpf_restore_dns_recv":  # Named by the first that is missing.
            assert any(program in message for message in lacking.values()), lacking
    for name, missing in (
        ("test_connected_dns_query_leads_to_the_meshs_server", True),
        ("test_virtual_address_of_a_waypoint_leads_to_the_waypoints_endpoint[v6]", True),
        ("test_virtual_address_of_a_waypoint_leads_to_the_waypoints_endpoint[v4]", False),
        ("test_service_with_waypoint_leads_to_the_waypoint[v6]", False),
        ("test_first_payload_carries_the_original_destination_in_front[v6]", False),
    ):
        expected = "not applicable" if missing else "passed"
        assert tests[name]["outcome"] == expected, tests[name]
        assert (name in lacking) == missing


def test_what_our_own_objects_lack_is_a_failure(others: Callable[..., Path]) -> None:
    folder = others("")
    said = vmtest("run", "--kernel", KERNEL, "-k", "virtual_address_of_a_waypoint", cwd=folder)
    assert said.status == 1, said
    assert "cgroup_sock.o has no km_cgr_tail6" in said.out, said
    assert {name[-4:]: test["outcome"] for name, test in outcomes_of(folder).items()} == {
        "[v4]": "passed",
        "[v6]": "error",
        "ped]": "error",
    }

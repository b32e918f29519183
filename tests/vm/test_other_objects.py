"""The suites on objects as others build them: other sections, no BTF of maps, older ABIs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from any_guest import in_guest
from real_kernels import KERNEL, PROJECT


class Change(NamedTuple):
    """What makes a variant of our programs: `pattern` in a file of bpf/ becomes `new`."""

    file: str
    pattern: str
    new: str


ELSEWHERE_BUILT = (
    # A section that libbpf does not know; maps that have sizes only and ask to be pinned.
    Change("sendmsg.bpf.c", r'SEC\("sk_msg"\)', 'SEC("sk_msg/sendmsg")'),
    Change(
        "include/load_balance.h", r"__type\((key|value), (.*)\);", r"__uint(\1_size, sizeof(\2));"
    ),
    Change(
        "include/load_balance.h",
        r"(__uint\(type, .*\);)",
        r"\1 __uint(pinning, LIBBPF_PIN_BY_NAME);",
    ),
)
MISSING = ("bpf_redirect_dns_send", "bpf_restore_dns_recv", "km_cgr_tail6")
PARTS_MISSING = tuple(Change("cgroup_sock.bpf.c", rf"\b{name}\b", f"x_{name}") for name in MISSING)
FIRST_WORD = (
    Change("include/load_balance.h", r"!is_zero\(&service->wp_addr\)", "service->wp_addr.ip4"),
)
ONE_ARRAY = (
    # For both tail calls, of which one that leads nowhere is an error in upstream's log.
    Change("cgroup_sock.bpf.c", r", km_cgr_tail6 SEC\(.*\);", ";"),
    Change("cgroup_sock.bpf.c", r"&km_cgr_tail6,", "&km_cgr_tailcall,"),
    Change("cgroup_sock.bpf.c", r"LOG_DEBUG, (.* did not resolve)", r"LOG_ERROR, \1"),
)
UNWRITTEN = (
    # What only IPv6 uses is not zero in a record of IPv4, and not written in a v4-mapped key.
    Change("include/probe.h", r"memset\(info, 0,", "memset(info, 0x5a,"),
    Change(
        "include/auth.h",
        r"write_auth_tuple\(&request->tuple, ends\);",
        r"""\g<0>
    if (ends->is_v4)
        __builtin_memset((char *)&request->tuple + 12, 0x5a, 24);""",
    ),
    Change("include/ends.h", r"bool is_v4;.*", r"\g<0>\n    bool mapped;"),
    Change("include/ends.h", r"unmap_v4\(&ends.local\);", r"ends.mapped = true; \g<0>"),
    Change(
        "include/auth.h",
        r"__builtin_memset\(tuple, 0, sizeof\(\*tuple\)\);",
        r"""\g<0>
    if (ends->mapped) {
        tuple->ipv6.saddr[3] = ends->remote.ip4;
        tuple->ipv6.daddr[2] = bpf_htonl(0xffff);
        tuple->ipv6.daddr[3] = ends->local.ip4;
        tuple->ipv6.sport = ends->remote_port;
        tuple->ipv6.dport = ends->local_port;
    }""",
    ),
)
CLIENT_PORT_IN_NETWORK_ORDER = Change(
    "include/auth.h", r"ends->remote_port(?=, &ends->local)", r"bpf_htons(\g<0>)"
)
SERVER_PORT_IN_NETWORK_ORDER = Change(
    "include/auth.h", r"ends->local_port(?=\);)", r"bpf_htons(\g<0>)"
)
NETWORK_ORDER = (CLIENT_PORT_IN_NETWORK_ORDER, SERVER_PORT_IN_NETWORK_ORDER)

REQUESTED = "test_authorization_of_an_inbound_connection_is_requested"
DELETED = "test_authorization_is_deleted_with_the_connection_and_no_other_is"
DIALLED_FIRST = "test_waypoint_that_is_a_service_itself_reads_the_address_dialled_first"
REPORTED = "test_connection_via_a_waypoint_is_reported_first_periodically_and_last"
FAMILIES = ("v4", "v6", "mapped")


@pytest.fixture
def others(tmp_path: Path) -> Callable[..., Path]:
    """A project of our suites and of our programs, changed."""

    def make(addopts: str, *changes: Change) -> Path:
        shutil.copy(PROJECT / "kernels.toml", tmp_path)
        shutil.copytree(PROJECT / "bpf", tmp_path / "bpf")
        shutil.copytree(PROJECT / "tests" / "suites", tmp_path / "tests" / "suites")
        ini = tmp_path / "tests" / "suites" / "pytest.ini"
        change(ini, r"^addopts = .*$", rf"\g<0> {addopts}")
        for file, pattern, new in changes:
            change(tmp_path / "bpf" / file, pattern, new)
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


def assert_outcomes(tests: dict[str, dict[str, str]], expected: dict[str, str]) -> None:
    """Each test ended so; of one that is n-a ``expected`` has a piece of the reason."""
    for name, end in expected.items():
        seen = tests[name]
        assert seen["outcome"] == end or (
            seen["outcome"] == "not applicable" and end in seen["message"]
        ), f"expected {end!r}, seen {seen}"


def test_what_an_old_release_lacks_is_not_applicable_and_all_else_is_asked(
    others: Callable[..., Path],
) -> None:
    folder = others(
        "--upstream",
        *(*ELSEWHERE_BUILT, *PARTS_MISSING, *FIRST_WORD, *UNWRITTEN, *NETWORK_ORDER),
    )
    said = in_guest("run", "--kernel", KERNEL, cwd=folder, timeout=1800)
    assert said.status == 0, said
    tests = outcomes_of(folder)
    lacking = {
        name: test["message"] for name, test in tests.items() if "not in this object" in str(test)
    }
    for program in MISSING:
        if program != "bpf_restore_dns_recv":  # Named by the first that is missing.
            assert any(program in message for message in lacking.values()), lacking
    assert_outcomes(
        tests,
        {
            "test_connected_dns_query_leads_to_the_meshs_server": "bpf_redirect_dns_send",
            "test_virtual_address_of_a_waypoint_leads_to_the_waypoints_endpoint[v6]": "tail6",
            "test_virtual_address_of_a_waypoint_leads_to_the_waypoints_endpoint[v4]": "passed",
            "test_service_with_waypoint_leads_to_the_waypoint[v6]": "passed",
            "test_first_payload_carries_the_original_destination_in_front[v6]": "passed",
            # The suite `mesh` runs with what is there.
            f"{DIALLED_FIRST}[v6]": "km_cgr_tail6",
            f"{DIALLED_FIRST}[v4]": "passed",
            f"{REPORTED}[v6]": "passed",
            "test_connections_at_once_are_reported_one_by_one[mapped]": "passed",
            # Of authorization only the byte order is another.
            **{f"{REQUESTED}[{family}]": "in network order" for family in FAMILIES},
            **{f"{DELETED}[{family}]": "in network order" for family in FAMILIES},
            "test_authorization_is_deleted_although_the_address_is_unmanaged_meanwhile": (
                "up to v1.2.0"
            ),
            "test_request_for_authorization_wakes_its_reader": "passed",
            "test_connection_whose_address_is_unmanaged_meanwhile_has_a_last_record": "passed",
        },
    )


def test_bytes_that_an_ipv4_reader_never_reads_are_not_asked_of_upstream(
    others: Callable[..., Path],
) -> None:
    folder = others("--upstream", *(*FIRST_WORD, *UNWRITTEN))
    suites = [word for name in ("sockops", "cgroup_skb", "mesh") for word in ("--suite", name)]
    said = in_guest("run", "--kernel", KERNEL, *suites, cwd=folder, timeout=1800)
    assert said.status == 0, said
    assert_outcomes(
        outcomes_of(folder),
        {
            **{f"{REQUESTED}[{family}]": "passed" for family in FAMILIES},
            f"{DELETED}[v4]": "passed",
            f"{DELETED}[v6]": "passed",
            f"{DELETED}[mapped]": "bytes of IPv6 behind its IPv4 part",
            "test_full_ring_loses_the_first_record_but_not_the_last": "passed",
            "test_last_record_of_an_inbound_connection_is_complete[mapped]": "passed",
            "test_record_of_an_inbound_connection_names_the_client_first[ingress-mapped]": "passed",
        },
    )


def test_mesh_runs_where_one_array_is_for_both_tail_calls(others: Callable[..., Path]) -> None:
    folder = others("--upstream", *ONE_ARRAY)
    # Newer kernels refuse such an object as a whole.
    asked = ["--kernel", "5.10", "--suite", "mesh", "-k", "waypoint_that_is or reported_first"]
    said = in_guest("run", *asked, cwd=folder)
    assert said.status == 0, said
    assert_outcomes(
        outcomes_of(folder),
        {
            f"{DIALLED_FIRST}[v4]": "passed",
            f"{DIALLED_FIRST}[v6]": "km_cgr_tail6",
            # A tail call that leads nowhere would be a complaint, at which the test fails.
            **{f"{REPORTED}[{family}]": "passed" for family in FAMILIES},
        },
    )


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        pytest.param(
            [CLIENT_PORT_IN_NETWORK_ORDER],
            [*(f"{name}[{family}]" for name in (REQUESTED, DELETED) for family in FAMILIES)],
            id="one port in network order",
        ),
        pytest.param(
            [Change("include/auth.h", r"bpf_map_delete_elem\(.*\);", ";"), *NETWORK_ORDER],
            [*(f"{name}[{family}]" for name in (REQUESTED, DELETED) for family in FAMILIES)],
            id="network order and answers that stay",
        ),
        pytest.param(
            [
                *UNWRITTEN,
                Change(
                    "include/probe.h", r"to->ipv4.addr = .*$", r"\g<0> to->ipv4.addr |= 0x01000000;"
                ),
            ],
            [
                "test_first_record_of_an_outbound_connection_names_its_ends_and_original_destination"
                f"[{client}]"
                for client in ("v4", "mapped")
            ],
            id="another original destination",
        ),
        pytest.param(
            [Change("include/ends.h", r"tuple->ipv4.sport = .*", "")],
            [
                "test_first_record_of_an_inbound_connection_names_the_client_first[v4]",
                "test_first_record_of_an_inbound_connection_names_the_client_first[mapped]",
                f"{REQUESTED}[v4]",
                f"{DELETED}[v4]",
            ],
            id="a port not written",
        ),
    ],
)
def test_broken_object_fails_also_where_upstream_is_given_way(
    others: Callable[..., Path], changes: list[Change], failing: list[str]
) -> None:
    folder = others("--upstream", *changes)
    asked = ["--suite", "sockops", "-k", "authorization or first_record"]
    said = in_guest("run", "--kernel", KERNEL, *asked, cwd=folder)
    assert said.status == 1, said
    assert_outcomes(outcomes_of(folder), dict.fromkeys(failing, "failed"))


def test_what_our_own_objects_lack_is_a_failure(others: Callable[..., Path]) -> None:
    folder = others("", *PARTS_MISSING)
    said = in_guest("run", "--kernel", KERNEL, "-k", "virtual_address_of_a_waypoint", cwd=folder)
    assert said.status == 1, said
    assert "cgroup_sock.o has no km_cgr_tail6" in said.out, said
    assert {name[-4:]: test["outcome"] for name, test in outcomes_of(folder).items()} == {
        "[v4]": "passed",
        "[v6]": "error",
        "ped]": "error",
    }


def test_our_own_objects_have_no_habits_of_older_ones(others: Callable[..., Path]) -> None:
    folder = others("", *NETWORK_ORDER)
    said = in_guest("run", "--kernel", KERNEL, "--suite", "sockops", "-k", REQUESTED, cwd=folder)
    assert said.status == 1, said
    assert_outcomes(
        outcomes_of(folder), dict.fromkeys((f"{REQUESTED}[{name}]" for name in FAMILIES), "failed")
    )

"""A run with 97 failing results and 17 causes, as the suites of this project would give it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult

KERNELS = {
    "5.10": ("5.10.262", "5.10.0-46-amd64"),
    "6.1": ("6.1.192", "6.1.0-57-amd64"),
    "6.12": ("6.12.118", "6.12.118+deb13-amd64"),
    "backports": ("7.3.4", "7.3.4+deb13-amd64"),
}
SUITES = ("sendmsg", "cgroup_skb", "cgroup_sock", "sockops", "mesh", "log")
_ALL = tuple(KERNELS)
_NEW = ("6.12", "backports")


@dataclass(frozen=True, slots=True)
class _Wrong:
    """One cause: the tests (with their parameters) that it fails on ``kernels``."""

    suite: str
    test: str
    parameters: tuple[str, ...]
    kernels: tuple[str, ...]
    line: int
    error: str
    output: int = 0
    helper: str = ""


_WRONG = (
    _Wrong("sendmsg", "test_first_payload_is_preceded_by_the_destination", ("v4", "v6", "mapped"),
           _ALL, 25, "AssertionError: assert b'' == b'\\x01\\x00\\x00\\x00\\n\\x60\\x00\\x05'", 60),
    _Wrong("sendmsg", "test_a_second_payload_stays_as_it_is", ("v4", "v6"),
           _ALL, 41, "AssertionError: assert 34 == 17"),
    _Wrong("cgroup_skb", "test_stale_connection_gives_exactly_one_event", ("ingress-v4",
           "ingress-v6", "egress-v4", "egress-v6"), _NEW, 88,
           "AssertionError: assert 2 == 1", 30),
    _Wrong("cgroup_skb", "test_record_names_the_client_first", ("ingress-v4", "ingress-v6"),
           _ALL, 121, "AssertionError: assert '10.96.0.2' == '10.96.0.1'"),
    _Wrong("cgroup_skb", "test_connection_without_storage_is_not_reported", ("egress",),
           ("5.10",), 140, "TimeoutError: no event within 2.0 s"),
    _Wrong("cgroup_sock", "test_service_leads_to_its_endpoint_on_the_target_port",
           ("v4", "v6", "mapped"), _ALL, 203, "ConnectionRefusedError: [Errno 111]", 4),
    _Wrong("cgroup_sock", "test_managed_key_is_the_cookie_of_the_netns", ("",),
           ("6.1", "6.12", "backports"), 222, "KeyError: 4026531840"),
    _Wrong("cgroup_sock", "test_waypoint_without_port_is_none", ("v4", "v6"),
           _ALL, 260, "AssertionError: assert 15008 is None"),
    _Wrong("cgroup_sock", "test_failover_policy_knows_seven_priorities", ("v4",),
           ("backports",), 301, "OSError: [Errno 7] Argument list too long"),
    _Wrong("cgroup_sock", "test_random_is_spread_over_backends", ("v4", "v6"),
           _NEW, 333, "AssertionError: assert 0.91 < 0.6"),
    _Wrong("sockops", "test_records_of_an_inbound_connection_have_zeros_behind_the_ipv4_parts",
           ("v4", "v6"), _ALL, 77, "AssertionError: assert 192 == 0", 12),
    _Wrong("sockops", "test_peer_that_differs_in_one_word_is_followed", ("node_ip",),
           ("6.12",), 98, "AssertionError: assert False"),
    _Wrong("sockops", "test_connection_for_which_there_is_no_storage_is_authorized", ("",),
           ("5.10", "6.1"), 119, "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
    _Wrong("mesh", "test_waypoint_reads_where_the_client_wanted_to", ("16368-v4", "65537-v4",
           "16368-v6", "65537-v6"), _ALL, 55, "ConnectionResetError: [Errno 104]", 9, "mesh.py"),
    _Wrong("mesh", "test_sockops_alone_puts_the_socket_into_km_socket", ("v4",),
           _NEW, 70, "AssertionError: assert None is not None"),
    _Wrong("log", "test_number_is_shown_in_decimal", ("0", "999999999999999999"),
           ("backports",), 31, "ValueError: invalid literal for int() with base 10: ''"),
    _Wrong("log", "test_level_of_a_full_ring_is_a_warning", ("",),
           ("5.10",), 64, "AssertionError: assert 'ERROR' == 'WARNING'"),
)  # fmt: skip
RESULTS = sum(len(wrong.parameters) * len(wrong.kernels) for wrong in _WRONG)
CAUSES = len(_WRONG)


def _details(wrong: _Wrong, name: str) -> str:
    file = f"tests/suites/{wrong.suite}/{wrong.helper or f'test_{wrong.suite}.py'}"
    context = "\n".join(
        (
            f"programs = <guest.objects.Programs object at 0x7f{wrong.line:010x}>",
            "",
            f"    def {wrong.test}(programs, family):",
            "        with programs.attached(family) as mesh:",
            "            client = mesh.connect(mesh.service, timeout=2.0)",
            "            client.sendall(PAYLOAD)",
            *(f"            mesh.step({n}, client)" for n in range(8)),
            f">           check(client, {name!r})",
            f"E           {wrong.error}",
            *(f"E             step {n}: at 0x{n:016x}" for n in range(3)),
            "",
        )
    )
    return f"{context}{file}:{wrong.line}: {wrong.error.partition(':')[0]}"


def _failed(wrong: _Wrong) -> list[TestResult]:
    results = []
    for parameter in wrong.parameters:
        name = f"{wrong.test}[{parameter}]" if parameter else wrong.test
        results.append(
            TestResult(
                f"test_{wrong.suite}.py::{name}",
                wrong.suite,
                Outcome.FAILED,
                1.2,
                wrong.error,
                _details(wrong, name),
                "".join(f"event {n} cookie=4242\n" for n in range(wrong.output)),
                file=f"tests/suites/{wrong.suite}/{wrong.helper or f'test_{wrong.suite}.py'}",
                line=wrong.line,
            )
        )
    return results


def _passed(wrong: _Wrong) -> list[TestResult]:
    return [
        replace(failed, outcome=Outcome.PASSED, message="", details="", output="")
        for failed in _failed(wrong)
    ]


def many() -> Matrix:
    """Four kernels, six suites, 24 passing tests a suite; 97 results fail for 17 causes."""
    kernels = []
    for name, (version, release) in KERNELS.items():
        tests = []
        for suite in SUITES:
            tests += [
                TestResult(f"test_{suite}.py::test_fine[{n}]", suite, Outcome.PASSED, 0.1)
                for n in range(24)
            ]
            for wrong in _WRONG:
                if wrong.suite == suite:
                    tests += _failed(wrong) if name in wrong.kernels else _passed(wrong)
        skip = "the kernel has no so_netns_cookie (probe: getsockopt: ENOPROTOOPT)"
        if name == "5.10":
            managed = next(test for test in tests if "test_managed_key" in test.test)
            skipped = replace(managed, outcome=Outcome.SKIPPED, message=skip)
            tests[tests.index(managed)] = skipped
        bad = sum(test.outcome.bad for test in tests)
        kernels.append(
            KernelResult(
                name,
                Status.FAILED,
                version,
                release,
                "tcg",
                "cold",
                tuple(tests),
                f"{bad} failed",
                boot_seconds=7.5,
                duration=161.4,
                factor=1.5,
                directory=name,
            )
        )
    run, at = "20261129T073449Z-3cf43a", "2026-11-29T07:34:49+00:00"
    return Matrix(SCHEMA, run, at, 343.6, SUITES, tuple(kernels))

"""Why a program was refused: never more than the log or a probe shows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vmtest.guest.reasons import LACKING, UNKNOWN, Failure, explain

RECORDED = Path(__file__).parent / "data" / "verifier"


@dataclass(frozen=True)
class Answers:
    """What a kernel answered when it was asked: a vmtest.guest.reasons.Kernel."""

    without_program_types: frozenset[str] = frozenset()
    without_map_types: frozenset[str] = frozenset()
    without_attach_types: frozenset[str] = frozenset()
    functions: frozenset[str] | None = frozenset()
    tracepoints: frozenset[str] | None = frozenset()
    btf: bool = True
    symbols: dict[str, str] | None = field(default_factory=dict)
    memlock: int | None = None
    old_accounting: bool = False

    def has_program_type(self, name: str) -> bool | None:
        return name not in self.without_program_types

    def has_map_type(self, name: str) -> bool | None:
        return name not in self.without_map_types

    def has_attach_type(self, name: str) -> bool | None:
        return name not in self.without_attach_types

    def has_function(self, name: str) -> bool | None:
        return None if self.functions is None else name in self.functions

    def has_tracepoint(self, name: str) -> bool | None:
        return None if self.tracepoints is None else name in self.tracepoints

    def has_btf(self) -> bool:
        return self.btf

    def config(self, symbol: str) -> str | None:
        return None if self.symbols is None else self.symbols.get(symbol, "n")

    def helper_name(self, number: int) -> str | None:
        return {208: "bpf_ktime_get_tai_ns"}.get(number)

    def memlock_limit(self) -> int | None:
        return self.memlock

    def counts_memlock(self) -> bool | None:
        return self.old_accounting


MODERN = Answers()
# As Debian's kernels answered when the logs were recorded.
KERNELS = {
    "5.10": Answers(
        without_program_types=frozenset({"syscall"}),
        without_map_types=frozenset({"bloom_filter"}),
        without_attach_types=frozenset({"trace_kprobe_multi"}),
        old_accounting=True,
    ),
    "6.1": MODERN,
    "6.12": MODERN,
    "7.3": MODERN,
}
RECORDS: list[tuple[str, dict[str, Any]]] = [
    (kernel, json.loads(line))
    for kernel in KERNELS
    for line in (RECORDED / f"{kernel}.jsonl").read_text().splitlines()
]


def failure(record: dict[str, Any]) -> Failure:
    return Failure(
        errno=record["errno"],
        messages=record["messages"],
        log=record["log"],
        program_type=record["type"],
        attach_type=record["attach_type"],
        map_types=tuple((name, kind) for name, kind in record["maps"]),
    )


def program_refused(errno: str = "EINVAL", **more: Any) -> Failure:
    said = "libbpf: prog 'p': BPF program load failed: Invalid argument\n"
    return replace(Failure(errno, said, program_type="kprobe"), **more)


def map_refused(error: int, kind: str) -> Failure:
    said = f"libbpf: map 'm': failed to create: Refused({error})\n"
    return Failure("EINVAL", said, map_types=(("m", kind),))


@pytest.mark.parametrize(
    ("kernel", "record"),
    RECORDS,
    ids=lambda given: given if isinstance(given, str) else f"{given['object']}-{given['program']}",
)
def test_a_recorded_log_has_the_reason_that_is_known(kernel: str, record: dict[str, Any]) -> None:
    reason = explain(failure(record), KERNELS[kernel])
    assert reason.code == record["code"]
    assert bool(reason.evidence) == (reason.code != "unknown")


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_failure_in_silence_is_explained_by_nothing(kernel: str) -> None:
    for errno in ("EINVAL", "EACCES", "EPERM", "E2BIG", "ENOSPC", "EOPNOTSUPP"):
        assert explain(program_refused(errno), KERNELS[kernel]) is UNKNOWN


def test_every_record_is_of_a_kernel_that_was_asked() -> None:
    assert {kernel for kernel, _ in RECORDS} == set(KERNELS)
    assert len(RECORDS) > 50


def test_an_unknown_number_of_a_helper_gets_its_name() -> None:
    reason = explain(program_refused(log="invalid func unknown#208\n"), MODERN)
    assert reason.text == "this kernel has no helper bpf_ktime_get_tai_ns"


def test_a_helper_that_this_type_never_gets_is_not_said_to_be_missing() -> None:
    log = "program of this type cannot use helper bpf_loop#181\n"
    reason = explain(program_refused(log=log, program_type="xdp"), MODERN)
    assert reason.text == "this kernel gives the helper bpf_loop to no program of type xdp"


def test_a_missing_kconfig_is_named_only_where_the_config_is_known() -> None:
    refused = program_refused(log="unknown func bpf_override_return#58\n")
    assert explain(refused, MODERN).code == "kconfig"
    assert explain(refused, replace(MODERN, symbols=None)).code == "helper"
    on = replace(MODERN, symbols={"CONFIG_BPF_KPROBE_OVERRIDE": "y"})
    assert explain(refused, on).code == "helper"


def test_the_name_of_a_helper_in_a_comment_of_the_log_shows_nothing() -> None:
    log = "; // invalid func unknown#208\nR1 invalid mem access 'scalar'\n"
    assert explain(program_refused(log=log), MODERN) is UNKNOWN


def test_an_eacces_of_the_verifier_is_no_missing_capability() -> None:
    log = "R1 type=ctx expected=fp, pkt, pkt_meta\nprocessed 3 insns (limit 1000000)\n"
    assert explain(program_refused("EACCES", log=log), MODERN) is UNKNOWN


def test_an_eacces_for_a_packet_is_what_the_log_says() -> None:
    log = "invalid access to packet, off=20 size=1, R1(id=0,off=20,r=14)\nR1 offset is outside\n"
    assert explain(program_refused("EACCES", log=log), MODERN).code == "packet-bounds"


def test_what_the_verifier_said_is_not_overruled_by_a_probe() -> None:
    kernel = replace(MODERN, without_program_types=frozenset({"kprobe"}))
    log = "R0 !read_ok\n"
    assert explain(program_refused(log=log), kernel) is UNKNOWN


def test_a_failed_map_is_of_a_missing_type_only_if_the_probe_says_so() -> None:
    assert explain(map_refused(-22, "array"), MODERN) is UNKNOWN
    without = replace(MODERN, without_map_types=frozenset({"bloom_filter"}))
    assert explain(map_refused(-22, "bloom_filter"), without).code == "map-type"
    assert explain(map_refused(-22, "array"), without) is UNKNOWN


def test_a_map_without_memory_is_no_missing_map_type() -> None:
    assert explain(map_refused(-12, "hash"), MODERN) is UNKNOWN


def test_a_failed_map_is_not_blamed_on_the_programs_type() -> None:
    kernel = replace(MODERN, without_program_types=frozenset({"syscall"}))
    refused = replace(map_refused(-22, "array"), program_type="syscall")
    assert explain(refused, kernel) is UNKNOWN


def test_a_failed_attachment_is_of_a_missing_type_only_if_the_kernel_has_no_such() -> None:
    refused = Failure(
        "EINVAL",
        "libbpf: prog 'p': failed to attach: Invalid argument\n",
        program_type="kprobe",
        attach_type="trace_kprobe_multi",
        attaching=True,
    )
    built_in = {"CONFIG_FPROBE": "y"}
    assert explain(refused, replace(MODERN, symbols=built_in)) is UNKNOWN
    without = frozenset({"trace_kprobe_multi"})
    kernel = replace(MODERN, symbols=built_in, without_attach_types=without)
    assert explain(refused, kernel).code == "attach-type"
    assert explain(refused, MODERN).code == "kconfig"


def test_lsm_in_a_log_is_no_denial_of_a_policy() -> None:
    for log in ("lsm hook is not allowed to sleep\n", "denied by lsm: bpf_lsm_socket_connect\n"):
        assert explain(program_refused("EPERM", log=log, program_type="lsm"), MODERN) is UNKNOWN


MEMLOCK = Failure(
    "EPERM",
    "libbpf: map 'm': failed to create: Operation not permitted(-1)\n"
    "libbpf: permission error while running as root; try raising 'ulimit -l'? "
    "current value: 64.0 KiB\n",
    map_types=(("m", "ringbuf"),),
)


def test_memlock_is_named_where_the_kernel_counts_and_there_is_a_limit() -> None:
    old = replace(MODERN, memlock=65536, old_accounting=True)
    assert explain(MEMLOCK, old).code == "memlock"
    assert explain(MEMLOCK, replace(old, memlock=None)) is UNKNOWN
    assert explain(MEMLOCK, replace(old, old_accounting=False)) is UNKNOWN


def test_a_permission_that_is_denied_otherwise_is_not_memlock() -> None:
    old = replace(MODERN, memlock=65536, old_accounting=True)
    said = "libbpf: map 'm': failed to create: Operation not permitted(-1)\n"
    assert explain(replace(MEMLOCK, messages=said), old) is UNKNOWN


def test_the_poisoned_call_of_a_relocation_is_no_helper() -> None:
    for log in ("invalid func unknown#195896080\n", "3: <invalid CO-RE relocation>\n"):
        assert explain(program_refused(log=log), MODERN).code == "core-relocation"


def test_a_stack_within_its_bounds_is_not_said_to_be_too_large() -> None:
    deep, odd = "invalid stack off=-520 size=8\n", "invalid stack off=8 size=8\n"
    assert explain(program_refused("EACCES", log=deep), MODERN).code == "stack"
    assert explain(program_refused("EACCES", log=odd), MODERN) is UNKNOWN


def test_a_function_that_the_kernel_has_is_not_said_to_be_missing() -> None:
    said = "libbpf: prog 'p': failed to find kernel BTF type ID of 'tcp_connect': -3\n"
    there = replace(MODERN, functions=frozenset({"tcp_connect"}))
    assert explain(Failure("ESRCH", said, program_type="tracing"), there) is UNKNOWN
    unknown = replace(MODERN, functions=None)
    assert explain(Failure("ESRCH", said, program_type="tracing"), unknown) is UNKNOWN
    assert explain(Failure("ESRCH", said, program_type="tracing"), MODERN).code == "attach-target"


def test_a_missing_tracepoint_is_named_only_where_tracefs_shows_it() -> None:
    said = (
        "libbpf: failed to determine tracepoint 'sched/x' perf event ID: "
        "No such file or directory\n"
    )
    refused = Failure("ENOENT", said, program_type="tracepoint", attaching=True)
    assert explain(refused, MODERN).code == "attach-target"
    assert explain(refused, replace(MODERN, tracepoints=None)) is UNKNOWN


def test_a_kernel_that_shows_its_btf_does_not_lack_it() -> None:
    refused = Failure("ENOENT", "libbpf: Error loading vmlinux BTF: -2\n")
    assert explain(refused, MODERN) is UNKNOWN
    assert explain(refused, replace(MODERN, btf=False)).code == "btf"


def test_a_symbol_that_is_set_does_not_explain_an_unresolved_extern() -> None:
    refused = Failure("ESRCH", "libbpf: extern 'CONFIG_X' (strong): not resolved\n")
    assert explain(refused, MODERN).code == "kconfig"
    assert explain(refused, replace(MODERN, symbols={"CONFIG_X": "y"})) is UNKNOWN
    assert explain(refused, replace(MODERN, symbols=None)) is UNKNOWN


def test_the_verifiers_findings_are_no_lack_of_the_kernel() -> None:
    found = {"stack", "packet-bounds", "loop", "instruction-limit", "complexity", "unknown"}
    assert not found & LACKING

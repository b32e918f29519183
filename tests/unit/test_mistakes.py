"""Mistakes that the verifier tells in words which mislead; logs of Linux 6.12."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_reasons import MODERN, code, program_refused

from vmtest.guest.failures import MapShape
from vmtest.guest.loader.reasons import Reason, explain

RELEASED = """\
0: R1=ctx() R10=fp0
4: (85) call bpf_ringbuf_reserve#131          ; R0_w=ringbuf_mem_or_null(id=2,ref_obj_id=2,sz=4) refs=2
5: (bf) r6 = r0                       ; R0_w=ringbuf_mem_or_null(id=2,ref_obj_id=2,sz=4) R6_w=ringbuf_mem_or_null(id=2,ref_obj_id=2,sz=4) refs=2
; if (!e) return 1; @ t.bpf.c:7
6: (15) if r6 == 0x0 goto pc+5        ; R6_w=ringbuf_mem(ref_obj_id=2,sz=4) refs=2
7: (bf) r1 = r6                       ; R1_w=ringbuf_mem(ref_obj_id=2,sz=4) R6_w=ringbuf_mem(ref_obj_id=2,sz=4) refs=2
8: (b7) r2 = 0                        ; R2_w=0 refs=2
9: (85) call bpf_ringbuf_submit#132   ;
10: (b7) r1 = 1                       ; R1_w=1
; *(volatile int *)e = 1; @ t.bpf.c:9
11: (63) *(u32 *)(r6 +0) = r1
"""  # noqa: E501
MOVED = """\
0: R1=ctx() R10=fp0
2: (61) r6 = *(u32 *)(r1 +76)         ; R1=ctx() R6_w=pkt(r=0)
3: (bf) r3 = r6                       ; R3_w=pkt(r=0) R6_w=pkt(r=0)
4: (07) r3 += 4                       ; R3_w=pkt(off=4,r=0)
5: (2d) if r3 > r2 goto pc+3          ; R2_w=pkt_end() R3_w=pkt(off=4,r=4)
7: (85) call bpf_skb_pull_data#39     ; R0=scalar()
8: (71) r0 = *(u8 *)(r6 +0)
"""
ALLOCATED = """\
8: (85) call bpf_arena_alloc_pages#22901      ; R0=scalar()
9: (15) if r0 == 0x0 goto pc+2        ; R0=scalar(umin=1)
10: (bf) r1 = r0                      ; R0=scalar(id=1,umin=1) R1_w=scalar(id=1,umin=1)
11: (07) r1 += 8                      ; R1_w=scalar()
12: (7b) *(u64 *)(r1 +0) = r6
"""


def numbered(register: int, trace: str, *, maps: tuple[MapShape, ...] = ()) -> Reason:
    line = f"R{register} invalid mem access 'scalar'\n"
    return explain(program_refused(log=line, trace=trace + line, maps=maps), MODERN)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (RELEASED, "R6 is used after a call of bpf_ringbuf_submit, which released"),
        (MOVED, "into the packet before the call of bpf_skb_pull_data"),
        (MOVED.replace("bpf_skb_pull_data#39", "pc+3"), "the call of a function of the program"),
    ],
)
def test_a_pointer_that_a_call_took_away_is_told_with_that_call(trace: str, said: str) -> None:
    found = numbered(6, trace)
    assert (found.code, said in found.text) == ("stale-pointer", True)


def test_a_reference_that_is_released_twice_is_told_as_released() -> None:
    line = "R1 type=scalar expected=ringbuf_mem\n"
    again = (
        "11: (bf) r1 = r6    ; R1_w=scalar() R6=scalar()\n12: (85) call bpf_ringbuf_submit#132\n"
    )
    trace = RELEASED[: RELEASED.index("11: ")] + again + line
    assert explain(program_refused(log=line, trace=trace), MODERN).code == "stale-pointer"


def test_a_number_that_is_passed_is_told_with_what_is_expected() -> None:
    found = explain(program_refused(log="R1 type=scalar expected=ctx\n"), MODERN)
    assert (found.code, found.text) == (
        "scalar-as-pointer",
        "a plain number (R1) is passed where a pointer is expected, to the context",
    )
    assert "the context that the program was called with" in found.remedy


ARENA = (MapShape("arena", "arena"),)


def test_an_address_in_an_arena_that_nobody_cast_is_told() -> None:
    assert numbered(1, ALLOCATED, maps=ARENA).code == "arena"


@pytest.mark.parametrize(
    ("trace", "maps"),
    [
        (ALLOCATED, ()),
        (ALLOCATED.replace("bpf_arena_alloc_pages", "bpf_cpumask_first"), ARENA),
        (ALLOCATED.replace("(bf) r1 = r0", "(79) r1 = *(u64 *)(r0 +0)"), ARENA),
    ],
)
def test_a_number_that_is_not_from_an_arena_is_a_number(
    trace: str, maps: tuple[MapShape, ...]
) -> None:
    assert numbered(1, trace, maps=maps).code == "scalar-as-pointer"


def test_an_arena_without_a_path_to_it_explains_nothing() -> None:
    line = "R1 invalid mem access 'scalar'\n"
    kfunc = code((0x85, 0x20, 0, 1))
    assert explain(program_refused(log=line, maps=ARENA, code=kfunc), MODERN).code == (
        "scalar-as-pointer"
    )


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        ("R1 offset is outside of the packet", "packet-bounds", "it ends before"),
        ("invalid indirect access to stack R1 off=-64 size=65", "stack-access", "65 bytes at"),
        ("invalid stack type R4 off=-4 access_size=8", "stack-access", "8 bytes at offset -4"),
        ("invalid write to stack R2 off=-520 size=8", "stack", "512"),
        ("invalid write to stack R1 off=0 size=1", "stack-access", "ends at offset 0"),
        ("R3 pointer arithmetic on pkt_end prohibited", "pointer-arithmetic", "kind pkt_end"),
        ("R0 pointer arithmetic on sock_or_null prohibited", "possible-null", "may be NULL"),
        ("invalid read from stack R2 off=-8 size=8", "uninitialised", "not set"),
        ("BPF_ST stores into R1 ctx is not allowed", "context-access", "a constant is stored"),
        ("BPF_XADD stores into R1 ctx is not allowed", "atomic-target", "an atomic operation"),
        ("div by zero", "malformed-instruction", "divides by the constant 0"),
        (
            "write into map forbidden, value_size=48 off=0 size=8",
            "read-only",
            "a map that programs",
        ),
        ("the call stack of 8 frames is too deep !", "stack", "deeper than the verifier follows"),
        ("invalid access to map value, value_size=48 off=4 size=0", "bounds", "may be 0"),
        ("invalid access to memory, mem_size=48 off=48 size=0", "bounds", "may be 0"),
        ("invalid access to map value, value_size=48 off=49 size=0", "bounds", "an index, an"),
        ("frame pointer is read only", "malformed-instruction", "writes to R10"),
        ("dereference of modified ctx ptr R1 off=8 disallowed", "context-access", "changed"),
        ("math between ctx pointer and 4 is not allowed", "context-access", "changed"),
        ("math between fp pointer and 2147483647 is not allowed", "pointer-arithmetic", "2^29"),
        ("value 1073741824 makes pkt pointer be out of bounds", "pointer-arithmetic", "2^29"),
        ("R2 invalid zero-sized read: u64=[0,8]", "bounds", "may be 0"),
        ("R0 invalid sock_common access off=8 size=4", "context-access", "a full socket"),
        ("R0 invalid sock_common access off=0 size=8", "context-access", "that field's size"),
        ("R0 invalid tcp_sock access off=96 size=8", "context-access", "that field's size"),
        ("R1 must be referenced when passed to release function", "not-acquired", "not hold"),
        ("release kernel function f expects refcounted PTR_TO_BTF_ID", "not-acquired", "not hold"),
        ("func bpf_sk_release#86 reference has not been acquired before", "not-acquired", "hold"),
        ("R1 must have zero offset when passed to release func or", "argument", "an offset (R1)"),
        ("R1 must be referenced or trusted", "argument", "still valid (R1)"),
        ("R2 must be a rcu pointer", "argument", "still valid (R2)"),
        ("helper access to the packet is not allowed", "argument", "only memory of the stack"),
        ("get_local_storage() doesn't support non-zero flags", "argument", "constant 0"),
        ("arg#1 arg#2 memory, len pair leads to invalid memory access", "bounds", "larger than"),
        ("R2 memory, len pair leads to invalid memory access", "bounds", "larger than"),
        ("Caller passes invalid args into func#1 ('f')", "global-function", "the call of the"),
        ("fd 1 is not pointing to valid bpf_map", "relocation", "file descriptor"),
        ("same insn cannot be used with different pointers", "context-access", "one path"),
        ("bpf_spin_lock cannot be accessed directly by load/store", "lock", "the bytes of"),
        ("bpf_timer cannot be accessed indirectly by helper", "kptr", "the bytes of"),
        ("function calls are not allowed while holding a lock", "lock", "is called while"),
    ],
)
def test_a_mistake_is_told_as_what_it_is(line: str, reason: str, said: str) -> None:
    found = explain(program_refused("EACCES", log=f"{line}\n"), MODERN)
    assert (found.code, said in found.text) == (reason, True)


@pytest.mark.parametrize(
    ("before", "last", "reason"),
    [
        (
            "R2 min value is negative, either use unsigned or 'var &= const'",
            "arg#1 arg#2 memory, len pair leads to invalid memory access",
            "bounds",
        ),
        (
            "invalid read from stack R1 off -8+0 size 8",
            "arg#1 arg#2 memory, len pair leads to invalid memory access",
            "uninitialised",
        ),
        (
            "R1 type=ptr_or_null_ expected=ptr_, trusted_ptr_, rcu_ptr_",
            "Caller passes invalid args into func#1 ('f')",
            "possible-null",
        ),
        (
            "invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)",
            "R1 offset is outside of the packet",
            "packet-bounds",
        ),
    ],
)
def test_the_line_above_says_more_where_the_last_one_only_sums_up(
    before: str, last: str, reason: str
) -> None:
    found = explain(program_refused(log=f"{before}\n{last}\n"), MODERN)
    assert (found.code, before in found.evidence) == (reason, True)


def test_a_call_of_a_global_function_is_told_with_the_argument_that_it_does_not_take() -> None:
    log = "invalid bpf_context access off=3 size=1\nCaller passes invalid args into func#1 ('f')\n"
    found = explain(program_refused(log=log), MODERN)
    assert (found.code, "off=3 size=1" in found.evidence) == ("global-function", True)


@pytest.mark.parametrize(("load", "said"), [("*(s32 *)", True), ("*(u32 *)", False)])
def test_a_signed_load_of_the_context_is_told_as_such(load: str, said: bool) -> None:
    line = "invalid bpf_context access off=4 size=4\n"
    trace = f"0: R1=ctx() R10=fp0\n0: (81) r2 = {load}(r1 +4)\n{line}"
    found = explain(program_refused(log=line, trace=trace), MODERN)
    assert (found.code, "sign extension" in found.text) == ("context-access", said)


IGNORED = """\
libbpf: BTF loading error: -22
libbpf: -- BEGIN BTF LOAD LOG ---
libbpf: Error loading .BTF into kernel: -22. BTF is {}
libbpf: prog 'p': BPF program load failed: Invalid argument
"""


def test_btf_that_libbpf_goes_on_without_is_not_why_a_load_failed() -> None:
    old = replace(MODERN, without_program_types=frozenset({"syscall"}))
    for optional, reason in (("optional, ignoring.", "program-type"), ("mandatory", "object-btf")):
        refused = program_refused(messages=IGNORED.format(optional), program_type="syscall")
        assert explain(refused, old).code == reason


def test_a_remark_on_the_program_s_result_is_not_why_it_was_refused() -> None:
    remark = "Global function p() doesn't return scalar. Only those are supported.\n"
    refused = program_refused(log=f"{remark}R0 says something new\n")
    assert explain(refused, MODERN).code == "unknown"
    assert explain(program_refused(log=remark), MODERN).code == "global-function"


ARGUMENT = "func 'bpf_lsm_file_open' arg0 {}\n"


@pytest.mark.parametrize(
    ("said", "last", "reason"),
    [
        ("has btf_id 729 type STRUCT 'file'", "R0 says something new", "unknown"),
        (
            "has btf_id 729 type STRUCT 'file'",
            "invalid bpf_context access off=64",
            "context-access",
        ),
        ("type INT is not a struct", "invalid bpf_context access off=8 size=8", "arguments"),
    ],
)
def test_an_argument_that_was_read_is_not_why_a_program_was_refused(
    said: str, last: str, reason: str
) -> None:
    log = f"{ARGUMENT.format(said)}{last}\n"
    assert explain(program_refused(log=log), MODERN).code == reason


def test_numbers_of_an_access_stand_in_the_evidence() -> None:
    log = "invalid access to map value, value_size=48 off=48 size=8\n"
    last = "R0 min value is outside of the allowed memory range"
    assert "value_size=48" in explain(program_refused(log=f"{log}{last}\n"), MODERN).evidence


def test_maps_in_a_section_of_another_loader_are_told_as_maps() -> None:
    said = "libbpf: prog 'p': bad map relo against '{}' in section '{}'\n"
    old = said.format("m", "lirc_mode2/maps")
    assert explain(program_refused(messages=old), MODERN).code == "legacy-maps"
    odd = explain(program_refused(messages=said.format("m", "config")), MODERN)
    assert (odd.code, "m in the section config" in odd.text) == ("relocation", True)

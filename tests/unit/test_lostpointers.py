"""What a register held before a call took it away, on the path that a log at level 1 shows."""

from __future__ import annotations

import pytest

from vmtest.guest.loader import lostpointers

LINE = "R7 invalid mem access 'scalar'"
ACQUIRED = "1: (85) call bpf_sk_lookup_udp#85  ; R0_w=sock_or_null(id=2,ref_obj_id=2) refs=2\n"
CHECKED = "3: (15) if r6 == 0x0 goto pc+9  ; R6_w=sock(ref_obj_id=2) refs=2\n"
RELEASE = "5: (85) call bpf_sk_release#86  ;\n"
USE = "9: (61) r0 = *(u32 *)(r7 +4)\n"


def calls(*steps: str, register: int = 7) -> list[str] | None:
    held = lostpointers.before("".join(steps) + f"{LINE}\n", LINE, register)
    return None if held is None else held.calls


def test_a_copy_of_a_pointer_is_lost_with_it() -> None:
    copied = "2: (bf) r6 = r0\n2: (bf) r7 = r0  ; R7_w=sock_or_null(id=2,ref_obj_id=2)\n"
    first = copied + "2: (bf) r6 = r0  ; R6_w=sock_or_null(id=2,ref_obj_id=2)\n"
    assert calls(ACQUIRED, first, CHECKED, RELEASE, USE) == ["bpf_sk_release"]


def test_a_copy_that_was_not_compared_may_be_null_and_says_nothing() -> None:
    copied = "2: (bf) r7 = r0  ; R7_w=sock_or_null(id=2,ref_obj_id=2)\n"
    null = "3: (55) if r7 != 0x0 goto pc+9  ; R7_w=0\n"
    assert calls(ACQUIRED, copied, RELEASE, null, USE) is None


def test_a_pointer_is_followed_through_the_stack() -> None:
    moved = (
        "2: (61) r3 = *(u32 *)(r1 +0)  ; R3_w=pkt(r=0)\n"
        "3: (7b) *(u64 *)(r10 -16) = r3  ; R3_w=pkt(r=0) R10=fp0 fp-16_w=pkt(r=0)\n"
        "4: (85) call bpf_xdp_adjust_head#44  ; R0=scalar()\n"
        "5: (79) r7 = *(u64 *)(r10 -16)  ; R7_w=scalar() R10=fp0 fp-16=scalar()\n"
    )
    assert calls(moved, USE) == ["bpf_xdp_adjust_head"]


@pytest.mark.parametrize(
    "overwritten",
    [
        "4: (63) *(u32 *)(r10 -12) = r2\n",
        "4: (7b) *(u64 *)(r10 -16) = r2\n",
        "4: (7a) *(u64 *)(r10 -16) = 0\n",
        "4: (7b) *(u64 *)(r4 -16) = r2\n",
        "4: (db) lock *(u64 *)(r10 -16) += r2\n",
        "4: (85) call bpf_probe_read_kernel#113  ; R0=scalar() fp-16_w=mmmmmmmm\n",
    ],
)
def test_a_slot_that_was_written_again_holds_no_pointer(overwritten: str) -> None:
    kept = (
        "2: (61) r3 = *(u32 *)(r1 +0)  ; R3_w=pkt(r=0)\n"
        "3: (7b) *(u64 *)(r10 -16) = r3  ; R3_w=pkt(r=0) R10=fp0 fp-16_w=pkt(r=0)\n"
    )
    called = "5: (85) call bpf_xdp_adjust_head#44  ; R0=scalar()\n"
    fill = "6: (79) r7 = *(u64 *)(r10 -16)  ; R7_w=scalar() R10=fp0\n"
    assert calls(kept, overwritten, called, fill, USE) is None


@pytest.mark.parametrize(
    "changed",
    [
        "r7 = 5",
        "w7 = w1",
        "r7 = *(u64 *)(r6 +8)",
        "r7 &= 255",
        "r7 s>>= 3",
        "r7 s/= r1",
        "r7 = -r7",
    ],
)
def test_a_register_that_was_set_anew_is_no_lost_pointer(changed: str) -> None:
    moved = "2: (61) r7 = *(u32 *)(r1 +0)  ; R7_w=pkt(r=0)\n4: (85) call bpf_xdp_adjust_head#44\n"
    assert calls(moved, f"5: (b7) {changed}  ; R7_w=scalar()\n", USE) is None


def test_registers_of_a_function_are_not_those_of_its_caller() -> None:
    inside = (
        "2: (b7) r7 = 5  ; R7_w=5\n"
        "3: (85) call pc+9\n"
        "caller:\n R7_w=5 R10=fp0\n"
        "callee:\n frame1: R1_w=ctx() R10=fp0\n"
        "13: (61) r7 = *(u32 *)(r1 +0)  ; frame1: R7_w=pkt(r=0)\n"
        "14: (95) exit\n"
        "returning from callee:\n frame1: R0=0 R7_w=pkt(r=0) R10=fp0\n"
        "to caller at 4:\n R0=0 R7=5 R10=fp0\n"
        "4: (85) call bpf_xdp_adjust_head#44  ; R0=scalar()\n"
    )
    assert calls(inside, USE) is None


def test_what_a_function_calls_takes_away_its_caller_s_pointers() -> None:
    inside = (
        "2: (61) r7 = *(u32 *)(r1 +0)  ; R7_w=pkt(r=0)\n"
        "3: (85) call pc+9\n"
        "caller:\n R7_w=pkt(r=0) R10=fp0\n"
        "callee:\n frame1: R1_w=ctx() R10=fp0\n"
        "13: (85) call bpf_xdp_adjust_head#44  ; frame1: R0=scalar()\n"
        "14: (95) exit\n"
        "returning from callee:\n frame1: R0=scalar() R10=fp0\n"
        "to caller at 4:\n R0=scalar() R7=scalar() R10=fp0\n"
    )
    assert calls(inside, USE) == ["bpf_xdp_adjust_head"]


def test_another_path_begins_with_what_its_line_shows() -> None:
    moved = "2: (61) r7 = *(u32 *)(r1 +0)  ; R7_w=pkt(r=0)\n4: (85) call bpf_xdp_adjust_head#44\n"
    assert calls(moved, "from 3 to 8: R1=ctx() R7=scalar() R10=fp0\n", USE) is None


def test_the_source_in_a_log_is_not_its_states() -> None:
    assert calls("; R7=pkt(r=0) is what this comment says\n1: (85) call bpf_x#1\n", USE) is None


def test_a_log_that_was_cut_before_the_refusal_shows_no_path() -> None:
    trace = "2: (61) r7 = *(u32 *)(r1 +0)  ; R7_w=pkt(r=0)\n4: (85) call bpf_xdp_adjust_head#44\n"
    assert lostpointers.before(trace + USE, LINE, 7) is None


def test_an_address_of_an_arena_in_the_program_is_a_number_that_nobody_knows() -> None:
    load = "1: (18) r7 = 0x100000000  ; R7_w={}\n"
    held = lostpointers.before(load.format("scalar()") + USE + LINE, LINE, 7)
    assert held is not None
    assert held.kind == lostpointers.ARENA
    assert lostpointers.before(load.format("0x100000000") + USE + LINE, LINE, 7) is None

"""Reading verifier logs of several kernels."""

from __future__ import annotations

from vmtest.guest.loader.verifierlog import embedded, findings, last_line, source_line, statistics

OLD = """\
verification time 865 usec
stack depth 400+16
processed 123 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 2 mark_read 1
"""
NEW = """\
verification time 1043 usec
stack depth max 16
subprog 0 (with_subprogram) main insns_self 11 insns_total 15 stack 0
subprog 1 (half) static insns_self 4 insns_total 4 stack 8
processed 15 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""
# Level 2 of 6.12.
WHOLE = """\
func#0 @0
0: R1=ctx() R10=fp0
; char *data = (void *)(long)ctx->data; @ packet_bounds.bpf.c:8
0: (61) r2 = *(u32 *)(r1 +0)          ; R1=ctx() R2_w=pkt(r=0)
from 3 to 5: R0=1 R10=fp0
mark_precise: frame0: last_idx 3 first_idx 0 subseq_idx -1
invalid access to packet, off=20 size=1, R1(id=0,off=20,r=14)
R1 offset is outside of the packet
verification time 670 usec
stack depth 0
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_figures_of_an_old_log() -> None:
    assert statistics(OLD) == (123, 3, 2, 1, (400, 16), 865)


def test_the_stack_of_each_subprogram_in_a_new_log() -> None:
    assert statistics(NEW) == (15, 1, 1, 0, (0, 8), 1043)


def test_a_log_without_figures_has_zeros() -> None:
    assert statistics("invalid func unknown#208\n") == (0, 0, 0, 0, (), 0)


def test_figures_in_the_programs_source_are_not_taken() -> None:
    assert statistics("; processed 9 insns\nprocessed 9 insnsx\n" + OLD).instructions == 123


def test_a_log_of_figures_has_no_findings() -> None:
    assert findings(OLD) == []
    assert findings(NEW) == []


def test_the_findings_of_a_whole_log() -> None:
    assert findings(WHOLE) == [
        "invalid access to packet, off=20 size=1, R1(id=0,off=20,r=14)",
        "R1 offset is outside of the packet",
    ]


MESSAGES = """\
libbpf: map 'odd': failed to create: Invalid argument(-22)
libbpf: failed to load object 'x.o'
"""


def test_the_last_line_is_the_verifiers_before_libbpfs() -> None:
    assert last_line(WHOLE, MESSAGES) == "R1 offset is outside of the packet"


def test_the_last_line_of_libbpf_is_the_one_that_says_something() -> None:
    assert last_line(OLD, MESSAGES) == "map 'odd': failed to create: Invalid argument(-22)"


def test_a_refusal_without_a_word_still_has_a_line() -> None:
    said = "libbpf: prog 'p': BPF program load failed: Invalid argument\n"
    assert last_line(OLD, said) == "prog 'p': BPF program load failed: Invalid argument"


def test_nothing_said_is_no_line() -> None:
    assert last_line("", "") == ""


def test_the_verifiers_log_is_found_among_libbpfs_messages() -> None:
    messages = (
        "libbpf: prog 'p': BPF program load failed: Permission denied\n"
        "libbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n0: (bf) r6 = r1\nR1 is odd\n"
        "-- END PROG LOAD LOG --\nlibbpf: prog 'p': failed to load: -13\n"
    )
    assert embedded(messages) == "0: (bf) r6 = r1\nR1 is odd\n"
    assert embedded("libbpf: failed to load object 'x'\n") == ""


def test_a_source_line_is_the_last_with_its_place_where_the_kernel_tells_it() -> None:
    old = "; int a = 1;\n0: (b7) r0 = 1\n; return *p;\n1: (61) r0 = *(u32 *)(r1 +0)\nR1 is odd\n"
    assert source_line(old) == "return *p;"
    new = "; return *p; @ x.bpf.c:12\nR1 is odd\n"
    assert source_line(new) == "x.bpf.c:12: return *p;"
    assert source_line("R1 is odd\n") == ""


# Level 1 of 7.3.
EXPLAINED = """\
R0 invalid mem access 'map_value_or_null'

Verification failed: Memory Safety: Invalid dereference
  null @ mistakes.bpf.c:38:12
  Source context:
  >>> 38 | return *count ? XDP_PASS : XDP_DROP;
         |        ^-- error: R0 may be NULL here (a nullable map value).
  Instruction context:
  >>> 6 | (79) r1 = *(u64 *)(r0 +0)

Suggestion:
  Add a NULL check before the access.

processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_what_a_kernel_explains_below_a_finding_is_not_another_finding() -> None:
    assert findings(EXPLAINED) == ["R0 invalid mem access 'map_value_or_null'"]

"""Why a program was refused: never more than the log or a probe shows."""

from __future__ import annotations

import fnmatch
import json
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vmtest.guest.loader.kernel import RunningKernel
from vmtest.guest.loader.reasons import LACKING, Failure, MapShape, explain

RECORDED = Path(__file__).parent / "data" / "verifier"


@dataclass(frozen=True)
class Answers:
    """What a kernel answered when it was asked: a vmtest.guest.loader.reasons.Kernel."""

    without_program_types: frozenset[str] = frozenset()
    without_map_types: frozenset[str] = frozenset()
    refused_maps: frozenset[tuple[str, int]] = frozenset()
    named: frozenset[str] = frozenset()
    structures: dict[str, tuple[str, ...]] | None = field(default_factory=dict)
    last_helper: int = 211
    taking: dict[int, tuple[str, ...]] = field(default_factory=dict)
    attach_types: tuple[str, ...] = ()
    sleepable_types: tuple[str, ...] = ()
    without_attach_types: frozenset[str] = frozenset()
    functions: frozenset[str] | None = frozenset()
    tracepoints: frozenset[str] | None = frozenset()
    btf: bool = True
    symbols: dict[str, str] | None = field(default_factory=dict)
    memlock: int | None = None
    old_accounting: bool = False
    known_symbols: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()  # in /proc/kallsyms, and not in BTF
    module_btf: bool = True

    def has_program_type(self, name: str) -> bool | None:
        return name not in self.without_program_types

    def has_map_type(self, name: str) -> bool | None:
        return name not in self.without_map_types

    def has_attach_type(self, name: str) -> bool | None:
        return name not in self.without_attach_types

    def has_function(self, name: str) -> bool | None:
        return None if self.functions is None else name in self.functions

    def has_symbol(self, name: str) -> bool | None:
        return name in self.listed or self.has_function(name)

    def matching(self, pattern: str) -> list[str] | None:
        known = None if self.functions is None else sorted(self.functions)
        return None if known is None else fnmatch.filter(known, pattern)

    def has_typedef(self, name: str) -> bool | None:
        return self.has_function(name)

    def mentions(self, name: str) -> bool | None:
        return name in self.named

    def members(self, structure: str) -> tuple[str, ...] | None:
        return None if self.structures is None else self.structures.get(structure, ())

    def has_helper(self, number: int) -> bool | None:
        return number <= self.last_helper

    def attach_types_with(
        self, number: int, program_type: str, sleepable: bool = False
    ) -> tuple[str, ...]:
        return self.sleepable_types if sleepable else self.attach_types

    def program_types_with(self, number: int) -> tuple[str, ...]:
        return self.taking.get(number, ())

    def refuses_map(self, shape: MapShape) -> str:
        return "EINVAL" if (shape.kind, shape.value_size) in self.refused_maps else ""

    def has_tracepoint(self, name: str) -> bool | None:
        return None if self.tracepoints is None else name in self.tracepoints

    def has_btf(self) -> bool:
        return self.btf

    def config(self, symbol: str) -> str | None:
        if symbol == "CONFIG_DEBUG_INFO_BTF_MODULES":
            return "y" if self.module_btf else "n"
        return None if self.symbols is None else self.symbols.get(symbol, "n")

    def switched_off(self, symbol: str) -> bool:
        return self.config(symbol) == "n" and symbol in self.known_symbols

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
        maps=tuple(MapShape(name, kind) for name, kind in record["maps"]),
    )


def program_refused(errno: str = "EINVAL", **more: Any) -> Failure:
    said = "libbpf: prog 'p': BPF program load failed: Invalid argument\n"
    return replace(Failure(errno, said, program_type="kprobe"), **more)


def map_refused(error: int, kind: str) -> Failure:
    said = f"libbpf: map 'm': failed to create: Refused({error})\n"
    return Failure("EINVAL", said, maps=(MapShape("m", kind),))


@pytest.mark.parametrize(
    ("kernel", "record"),
    RECORDS,
    ids=lambda given: given if isinstance(given, str) else f"{given['object']}-{given['program']}",
)
def test_a_recorded_log_has_the_reason_that_is_known(kernel: str, record: dict[str, Any]) -> None:
    reason = explain(failure(record), KERNELS[kernel])
    assert reason.code == record["code"]
    assert bool(reason.evidence) == (reason.code != "unknown")


@pytest.mark.parametrize(
    ("kernel", "record"),
    [pair for pair in RECORDS if pair[1]["code"] in LACKING - {"btf", "instruction"}],
    ids=lambda given: given if isinstance(given, str) else f"{given['object']}-{given['program']}",
)
def test_what_a_kernel_lacks_has_a_name_to_look_for(kernel: str, record: dict[str, Any]) -> None:
    reason = explain(failure(record), KERNELS[kernel])
    # The records have no second log, which alone names the field of a relocation.
    assert bool(reason.name) == (record["code"] != "core-relocation")


SPEC = (
    "libbpf: prog 'p': relo #0: <byte_off> [7] struct {type}.{field} (0:0 @ offset 0)\n"
    "prog 'p': relo #0: failed to resolve CO-RE relocation <byte_off> [7] struct {type}.{field} "
    "(0:0 @ offset 0)\n"
)


@pytest.mark.parametrize(
    ("refused", "name"),
    [
        (program_refused(log="invalid func unknown#208\n"), "bpf_ktime_get_tai_ns"),
        (
            program_refused(
                log="invalid func unknown#195896080\n",
                trace=SPEC.format(type="task_struct___old", field="se.never_was"),
            ),
            "never_was",
        ),
        (
            Failure(
                "ESRCH", "libbpf: prog 'p': failed to create kprobe 'do_x+0x0' perf event: -2\n"
            ),
            "do_x",
        ),
        (
            Failure(
                "EINVAL",
                "libbpf: extern (func ksym) 'bpf_y___2': not found in kernel or module BTFs\n",
            ),
            "bpf_y___2",
        ),
        (
            program_refused(
                log="attach to unsupported member q of struct r\n", section="struct_ops/q"
            ),
            "q",
        ),
    ],
)
def test_a_reason_names_what_it_is_about(refused: Failure, name: str) -> None:
    kernel = replace(MODERN, structures={"task_struct": ("se",)})
    assert explain(refused, kernel).name == name


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_failure_in_silence_is_explained_by_nothing(kernel: str) -> None:
    for errno in ("EINVAL", "EACCES", "EPERM", "E2BIG", "ENOSPC", "EOPNOTSUPP"):
        assert explain(program_refused(errno), KERNELS[kernel]).code == "unknown"


def test_every_record_is_of_a_kernel_that_was_asked() -> None:
    assert {kernel for kernel, _ in RECORDS} == set(KERNELS)
    assert len(RECORDS) > 50


def test_an_unknown_number_of_a_helper_gets_its_name() -> None:
    reason = explain(program_refused(log="invalid func unknown#208\n"), MODERN)
    assert reason.text == "this kernel has no helper bpf_ktime_get_tai_ns (it came with Linux 6.1)"


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


def test_a_kernel_older_than_a_program_type_does_not_lack_its_kconfig() -> None:
    refused = program_refused(program_type="netfilter")
    old = replace(MODERN, without_program_types=frozenset({"netfilter"}))
    assert explain(refused, old).code == "program-type"
    knowing = replace(old, named=MODERN.named | {"BPF_PROG_TYPE_NETFILTER"})
    assert explain(refused, knowing).code == "kconfig"


def test_the_name_of_a_helper_in_a_comment_of_the_log_shows_nothing() -> None:
    log = "; // invalid func unknown#208\nR1 says something new\n"
    assert explain(program_refused(log=log), MODERN).code == "unknown"


def test_an_eacces_of_the_verifier_is_no_missing_capability() -> None:
    log = "R1 type=ctx expected=fp, pkt, pkt_meta\nprocessed 3 insns (limit 1000000)\n"
    assert explain(program_refused("EACCES", log=log), MODERN).code == "argument"


def test_an_eacces_for_a_packet_is_what_the_log_says() -> None:
    log = "invalid access to packet, off=20 size=1, R1(id=0,off=20,r=14)\nR1 offset is outside\n"
    assert explain(program_refused("EACCES", log=log), MODERN).code == "packet-bounds"


def test_what_the_verifier_said_is_not_overruled_by_a_probe() -> None:
    kernel = replace(MODERN, without_program_types=frozenset({"kprobe"}))
    log = "R0 says something new\n"
    assert explain(program_refused(log=log), kernel).code == "unknown"


def test_a_failed_map_is_of_a_missing_type_only_if_the_probe_says_so() -> None:
    assert explain(map_refused(-22, "array"), MODERN).code == "unknown"
    without = replace(MODERN, without_map_types=frozenset({"bloom_filter"}))
    assert explain(map_refused(-22, "bloom_filter"), without).code == "map-type"
    assert explain(map_refused(-22, "array"), without).code == "unknown"


def test_a_map_without_memory_is_no_missing_map_type() -> None:
    assert explain(map_refused(-12, "hash"), MODERN).code == "unknown"


def test_a_failed_map_is_not_blamed_on_the_programs_type() -> None:
    kernel = replace(MODERN, without_program_types=frozenset({"syscall"}))
    refused = replace(map_refused(-22, "array"), program_type="syscall")
    assert explain(refused, kernel).code == "unknown"


def test_a_failed_attachment_is_of_a_missing_type_only_if_the_kernel_has_no_such() -> None:
    refused = Failure(
        "EINVAL",
        "libbpf: prog 'p': failed to attach: Invalid argument\n",
        program_type="kprobe",
        attach_type="trace_kprobe_multi",
        attaching=True,
    )
    built_in = {"CONFIG_FPROBE": "y"}
    assert explain(refused, replace(MODERN, symbols=built_in)).code == "unknown"
    without = frozenset({"trace_kprobe_multi"})
    kernel = replace(MODERN, symbols=built_in, without_attach_types=without)
    assert explain(refused, kernel).code == "attach-type"
    assert explain(refused, MODERN).code == "kconfig"


def test_lsm_in_a_log_is_no_denial_of_a_policy() -> None:
    for log in ("lsm hook is not allowed to sleep\n", "denied by lsm: bpf_lsm_socket_connect\n"):
        assert (
            explain(program_refused("EPERM", log=log, program_type="lsm"), MODERN).code == "unknown"
        )


MEMLOCK = Failure(
    "EPERM",
    "libbpf: map 'm': failed to create: Operation not permitted(-1)\n"
    "libbpf: permission error while running as root; try raising 'ulimit -l'? "
    "current value: 64.0 KiB\n",
    maps=(MapShape("m", "ringbuf"),),
)


def test_a_struct_ops_that_was_not_built_in_is_told_with_its_symbol() -> None:
    said = "libbpf: struct_ops init_kern: struct {} is not found in kernel BTF\n"
    lacking_hid = Failure("ENOENT", messages=said.format("hid_bpf_ops"), program_type="struct_ops")
    off = replace(MODERN, known_symbols=frozenset({"CONFIG_HID_BPF"}))
    assert explain(lacking_hid, off)[0::5] == ("kconfig", "CONFIG_HID_BPF")
    assert explain(lacking_hid, MODERN).code == "attach-target"
    other = replace(lacking_hid, messages=said.format("vmtest_ops"))
    assert explain(other, off).code == "attach-target"


def test_a_symbol_that_a_config_does_not_name_was_not_switched_off(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("CONFIG_BPF=y\n# CONFIG_HID_BPF is not set\n")
    kernel = RunningKernel(config)
    assert kernel.switched_off("CONFIG_HID_BPF")
    assert not kernel.switched_off("CONFIG_BPF")
    assert (kernel.config("CONFIG_LATER"), kernel.switched_off("CONFIG_LATER")) == ("n", False)


def test_memlock_is_named_where_the_kernel_counts_and_there_is_a_limit() -> None:
    old = replace(MODERN, memlock=65536, old_accounting=True)
    assert explain(MEMLOCK, old).code == "memlock"
    assert explain(MEMLOCK, replace(old, memlock=None)).code == "unknown"
    assert explain(MEMLOCK, replace(old, old_accounting=False)).code == "unknown"


def test_a_permission_that_is_denied_otherwise_is_not_memlock() -> None:
    old = replace(MODERN, memlock=65536, old_accounting=True)
    said = "libbpf: map 'm': failed to create: Operation not permitted(-1)\n"
    assert explain(replace(MEMLOCK, messages=said), old).code == "unknown"


def test_the_poisoned_call_of_a_relocation_is_no_helper() -> None:
    for log in ("invalid func unknown#195896080\n", "3: <invalid CO-RE relocation>\n"):
        assert explain(program_refused(log=log), MODERN).code == "core-relocation"


def test_a_stack_within_its_bounds_is_not_said_to_be_too_large() -> None:
    deep, odd = "invalid stack off=-520 size=8\n", "invalid stack off=8 size=8\n"
    assert explain(program_refused("EACCES", log=deep), MODERN).code == "stack"
    assert explain(program_refused("EACCES", log=odd), MODERN).code == "stack-access"


def test_a_function_that_the_kernel_has_is_not_said_to_be_missing() -> None:
    said = "libbpf: prog 'p': failed to find kernel BTF type ID of 'tcp_connect': -3\n"
    there = replace(MODERN, functions=frozenset({"tcp_connect"}))
    assert explain(Failure("ESRCH", said, program_type="tracing"), there).code == "unknown"
    unknown = replace(MODERN, functions=None)
    assert explain(Failure("ESRCH", said, program_type="tracing"), unknown).code == "unknown"
    assert explain(Failure("ESRCH", said, program_type="tracing"), MODERN).code == "attach-target"


def test_a_missing_tracepoint_is_named_only_where_tracefs_shows_it() -> None:
    said = (
        "libbpf: failed to determine tracepoint 'sched/x' perf event ID: "
        "No such file or directory\n"
    )
    refused = Failure("ENOENT", said, program_type="tracepoint", attaching=True)
    assert explain(refused, MODERN).code == "attach-target"
    assert explain(refused, replace(MODERN, tracepoints=None)).code == "unknown"


def test_a_kernel_that_shows_its_btf_does_not_lack_it() -> None:
    refused = Failure("ENOENT", "libbpf: Error loading vmlinux BTF: -2\n")
    assert explain(refused, MODERN).code == "unknown"
    assert explain(refused, replace(MODERN, btf=False)).code == "btf"


def test_a_symbol_that_is_set_does_not_explain_an_unresolved_extern() -> None:
    refused = Failure("ESRCH", "libbpf: extern 'CONFIG_X' (strong): not resolved\n")
    assert explain(refused, MODERN).code == "kconfig"
    assert explain(refused, replace(MODERN, symbols={"CONFIG_X": "y"})).code == "unknown"
    assert explain(refused, replace(MODERN, symbols=None)).code == "unknown"


def test_the_verifiers_findings_are_no_lack_of_the_kernel() -> None:
    found = {"stack", "packet-bounds", "loop", "instruction-limit", "complexity", "unknown"}
    assert not found & LACKING


# What the verifiers of 5.10 to 7.3 say, and the code that it stands for. In the place of a line
# stand all that were seen for one mistake.
SAID = {
    "return-value": [
        "At program exit the register R0 has value (0x2; 0x0) should have been in (0x0; 0x1)",
        "At program exit the register R0 has smin=0 smax=1 should have been in [0, 0]",
    ],
    "reference-leak": [
        "Unreleased reference id=2 alloc_insn=5",
        "BPF_EXIT instruction in main prog would lead to reference leak",
        "tail_call would lead to reference leak",
    ],
    "possible-null": [
        "R0 invalid mem access 'map_value_or_null'",
        "R1 type=map_value_or_null expected=fp, pkt, pkt_meta, map_value",
        "R0 pointer arithmetic on map_value_or_null prohibited, null-check it first",
        "Possibly NULL pointer passed to trusted arg0",
    ],
    "uninitialised": [
        "invalid indirect read from stack off -16+4 size 16",
        "invalid indirect read from stack R2 off -16+4 size 16",
        "invalid read from stack R10 off -8+0 size 8",
        "R0 !read_ok",
    ],
    "scalar-as-pointer": [
        "R1 invalid mem access 'inv'",
        "R1 invalid mem access 'scalar'",
        "R2 type=inv expected=fp, pkt, pkt_meta, map_value",
        "R2 type=scalar expected=fp, pkt, pkt_meta, map_value",
    ],
    "argument": ["R1 type=ctx expected=fp, pkt, pkt_meta"],
    "bounds": [
        "R0 unbounded memory access, make sure to bounds check any such access",
        "R2 min value is negative, either use unsigned or 'var &= const'",
        "invalid access to map value, value_size=8 off=8 size=8",
    ],
    "context-access": ["invalid bpf_context access off=76 size=8"],
    "sleepable": ["helper call might sleep in a non-sleepable prog"],
    "control-flow": ["unreachable insn 4"],
    "struct-access": ["access beyond struct task_struct at off 99999 size 8"],
    "arguments": ["func 'tcp_connect' doesn't have 3-th argument"],
    "read-only": [
        "write into map forbidden, value_size=4 off=0 size=4",
        "cannot write into packet",
    ],
    "struct-ops-unused": ["attach_btf_id 0 is not a supported struct"],
    "license": ["cannot call GPL-only function from non-GPL compatible program"],
    "global-function": ["Caller passes invalid args into func#1 ('f')"],
    "kfunc": [
        "calling kernel function bpf_task_acquire is not allowed",
        "cannot find address for kernel function bpf_task_acquire",
        "kernel btf_id 77 is not a function",
    ],
    "ksym": ["ldimm64 failed to find the address for kernel symbol 'runqueues'."],
    "malformed-instruction": [
        "unknown opcode 8d",
        "BPF_END uses reserved fields",
        "BPF_ATOMIC uses invalid atomic opcode 12",
        "invalid BPF_LD_IMM insn",
        "invalid may_goto imm 3",
        "invalid shift 64",
        "div by zero",
        "R12 is invalid",
        "frame pointer is read only",
        "jump into the middle of ldimm64 insn 3",
    ],
    "legacy-load": [
        "BPF_LD_[ABS|IND] instructions not allowed for this program type",
        "at the time of BPF_LD_ABS|IND R6 != pointer to skb",
        "LD_ABS is not allowed in subprogs without BTF",
    ],
    "limit": [
        "too many different kernel function calls",
        "The total number of maps per program has reached the limit of 64",
        "only one cgroup storage of each type is allowed",
        "insn 7 cannot be patched due to 16-bit range",
    ],
    "complexity": ["liveness analysis exceeded complexity limit (512 calls)"],
    "object-btf": [
        "number of funcs in func_info doesn't match number of subprogs",
        "missing btf func_info",
        "tail_call is not allowed in subprogs without BTF",
        "Invalid insn code at line_info[4].insn_off",
    ],
    "privilege": [
        "R1 leaks addr into map",
        "'struct task_struct' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN",
        "destructive kfunc calls require CAP_SYS_BOOT capabilities",
        "function calls to other bpf functions are allowed for CAP_BPF and CAP_SYS_ADMIN",
    ],
    "btf": ["in-kernel BTF is malformed"],
    "verifier-bug": [
        "verifier bug: backtracking misuse",
        "verifier internal error: unsupported arg type 3",
        "kernel subsystem misconfigured func bpf_loop#181",
        "BUG regs 1",
    ],
    "stack-access": [
        "invalid write to stack R10 off=8 size=8",
        "invalid indirect access to stack R2 off=8 size=8",
        "attempt to corrupt spilled pointer on stack",
        "invalid size of register fill",
        "cannot return stack pointer to the caller",
    ],
    "stack-object": [
        "Expected a dynptr of type ringbuf as arg #0",
        "Dynptr has to be an uninitialized dynptr",
        "arg 1 cannot overwrite referenced dynptr",
        "irq flag acquired by bpf_local_irq_save kfuncs cannot be restored with others",
        "expected an initialized iter_num as arg #0",
        "expected uninitialized iter_num as arg #0",
        "Expected an initialized dynptr as arg #2",
    ],
    "kptr": [
        "kptr access size must be BPF_DW",
        "store to referenced kptr disallowed",
        "map 'm' has no valid kptr",
        "bpf_timer cannot be accessed directly by load/store",
        "rbtree_remove node input must be non-owning ref",
    ],
    "lock": [
        "bpf_rcu_read_unlock is missing",
        "1 bpf_preempt_enable is missing",
        "unmatched rcu read unlock (kernel function bpf_rcu_read_unlock)",
        "BPF_EXIT instruction in main prog cannot be used inside bpf_local_irq_save-ed region",
        "global function calls are not allowed while holding a lock,",
        "tail_call cannot be used inside bpf_rcu_read_lock-ed region",
    ],
    "helper": [
        "func bpf_get_func_ip#173 supported only for fentry/fexit/fmod_ret programs",
        "func bpf_get_func_ip#173 not supported for program type 6",
    ],
    "jit": ["JIT is required for calling kernel function", "JIT doesn't support bpf-to-bpf calls"],
    "format-string": [
        "R1 does not point to a readonly map'",
        "string is not zero-terminated",
        "Invalid format string",
    ],
    "tail-calls": ["tail_call abusing map_ptr"],
    "freplace-target": [
        "Cannot replace static functions",
        "f() is not a global function",
        "arg1 in f() is INT while g() has PTR",
        "f() has 1 args while g() has 2 args",
    ],
    "attach-target": ["attach_btf_id 77 is invalid", "ret type void not allowed for fmod_ret"],
    "map-btf": [
        "map 'm' doesn't have 'struct bpf_spin_lock'",
        "R1 doesn't have constant offset. bpf_timer has to be at the constant offset",
    ],
    "map-for-program": [
        "perf_event programs can only use preallocated hash map",
        "bpf_struct_ops map cannot be used in prog",
        "no direct value access support for this map type",
    ],
}
SAID["struct-access"] += [
    "R1 is ptr_task_struct invalid negative access: off=-8",
    "R1 is ptr_task_struct access user memory: off=8",
    "struct sock doesn't have field at offset 7",
    "cannot access ptr member ops with moff 8 in struct sock with off 9 size 4",
]
SAID["context-access"] += [
    "dereference of modified ctx ptr R1 off=8 disallowed",
    "variable ctx access var_off=(0x0; 0xff) disallowed",
    "R1 invalid sock access off=77 size=4",
]
SAID["argument"] += [
    "R2 is not a known constant'",
    "R1 is of type task_struct but sock is expected",
    "helper access to the packet is not allowed",
]
SAID["bounds"] += ["R2 unbounded size, use 'var &= const' or 'if (var < const)'"]
SAID["program-flag"] = ["Only fentry/fexit/fmod_ret and lsm programs can be sleepable"]
SAID["arguments"] += ["func 'tcp_connect' offset 3 is not multiple of 8"]
SAID["read-only"] += ["read from map forbidden, value_size=4 off=0 size=4"]
SAID["license"] += ["cannot call kernel function from non-GPL compatible program"]
SAID["control-flow"] += ["recursive call from f() to g()"]
SAID["global-function"] += ["callback function not static", "R1 is not a pointer"]


@pytest.mark.parametrize(
    ("code", "line"), [(code, line) for code, lines in SAID.items() for line in lines]
)
def test_what_every_kernels_verifier_says_has_its_code(code: str, line: str) -> None:
    reason = explain(program_refused("EACCES", log=f"{line}\n"), MODERN)
    assert (reason.code, bool(reason.remedy)) == (code, True)
    assert reason.text
    assert reason.remedy
    assert line in reason.evidence


def test_the_better_line_decides_where_it_stands_above_the_last() -> None:
    log = "cannot update sockmap in this context\ncannot pass map_type 15 into func x#2\n"
    assert explain(program_refused(log=log), MODERN).code == "sockmap-update"
    last = "cannot pass map_type 15 into func bpf_map_update_elem#2\n"
    reason = explain(program_refused(log=last), MODERN)
    assert (reason.code, "bpf_map_update_elem" in reason.text) == ("map-for-helper", True)


# Instructions in bytes: code, registers (source << 4 | destination), offset, immediate.
def code(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<BBhi", *one) for one in instructions)


FETCH = code((0xDB, 0x10, 0, 0x01), (0x95, 0, 0, 0))
CALLBACK = code((0x18, 0x42, 0, 9), (0, 0, 0, 0), (0x85, 0, 0, 181), (0x95, 0, 0, 0))
MAY_GOTO = code((0xE5, 0, 1, 0), (0x95, 0, 0, 0))


@pytest.mark.parametrize(
    ("line", "with_it", "words"),
    [
        ("BPF_STX uses reserved fields", FETCH, "5.12"),
        ("BPF_XADD uses reserved fields", FETCH, "5.12"),
        ("unknown opcode e5", MAY_GOTO, "6.9"),
        ("BPF_LDX uses reserved fields", code((0x81, 0, 0, 0)), "6.6"),
        ("BPF_MOV uses reserved fields", code((0xBF, 0x12, 8, 0)), "6.6"),
        ("unrecognized bpf_ld_imm64 insn", CALLBACK, "5.13"),
    ],
)
def test_an_instruction_is_too_new_only_where_the_program_has_it(
    line: str, with_it: bytes, words: str
) -> None:
    reason = explain(program_refused(log=f"{line}\n", code=with_it), MODERN)
    assert reason.code == "instruction"
    assert words in reason.text
    without = program_refused(log=f"{line}\n", code=code((0x95, 0, 0, 0)))
    assert explain(without, MODERN).code == "malformed-instruction"


@pytest.mark.parametrize(
    ("offset", "immediate", "code"), [(0, 0, "instruction"), (2, 1, "malformed-instruction")]
)
def test_a_jump_over_nothing_is_newer_and_not_malformed(
    offset: int, immediate: int, code: str
) -> None:
    line = f"invalid may_goto off {offset} imm {immediate}\n"
    assert explain(program_refused(log=line, code=MAY_GOTO), MODERN).code == code


def test_a_callback_is_told_by_the_helper_that_the_kernel_lacks() -> None:
    log = "number of funcs in func_info doesn't match number of subprogs\n"
    old = replace(MODERN, last_helper=155)
    reason = explain(program_refused(log=log, code=CALLBACK), old)
    assert reason.code == "helper"
    assert reason.text.startswith("this kernel has no helper bpf_loop (Linux 5.17)")


def test_a_program_with_more_instructions_than_a_kernel_takes_is_told_by_their_number() -> None:
    big = bytes(8 * 1_000_102)
    reason = explain(program_refused("E2BIG", code=big), MODERN)
    assert reason.code == "instruction-limit"
    assert "1,000,102" in reason.text
    assert explain(program_refused("E2BIG", code=big[: 8 * 10**6]), MODERN).code == "unknown"


def test_a_program_with_more_maps_than_a_kernel_takes_is_told_by_their_number() -> None:
    used = [(0x18, 0x11, 0, number) for number in range(65)]
    many = code(*(one for load in used for one in (load, (0, 0, 0, 0))))
    reason = explain(program_refused("E2BIG", code=many), MODERN)
    assert (reason.code, "65 maps" in reason.text) == ("limit", True)
    assert explain(program_refused("E2BIG", code=many[16:]), MODERN).code == "unknown"


def test_a_helper_of_another_attach_type_is_not_said_to_be_of_no_program() -> None:
    log = "unknown func bpf_bind#64\n"
    kernel = replace(MODERN, attach_types=("cgroup_inet4_connect", "cgroup_inet6_connect"))
    refused = program_refused(
        log=log, program_type="cgroup_sock_addr", attach_type="cgroup_udp4_sendmsg"
    )
    reason = explain(refused, kernel)
    assert "only for the attach types cgroup_inet4_connect and cgroup_inet6_connect" in reason.text
    assert "probe: " in reason.evidence


def test_a_helper_for_programs_that_may_sleep_is_not_said_to_be_of_no_program() -> None:
    log = "unknown func bpf_copy_from_user#148\n"
    kernel = replace(MODERN, sleepable_types=("lsm_mac",))
    reason = explain(program_refused(log=log, program_type="lsm"), kernel)
    assert (reason.code, ".s" in reason.remedy) == ("sleepable", True)


def test_the_remedy_for_a_helper_of_other_programs_is_not_to_ask_for_the_helper() -> None:
    log = "program of this type cannot use helper bpf_loop#181\n"
    kernel = replace(MODERN, taking={181: ("kprobe", "tracing")})
    remedy = explain(program_refused(log=log, program_type="xdp"), kernel).remedy
    assert remedy.startswith("call it in a program of type kprobe and tracing")
    assert "bpf_core_enum_value_exists() cannot tell" in remedy
    absent = explain(program_refused(log="invalid func unknown#208\n"), MODERN).remedy
    assert "bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_ktime_get_tai_ns)" in absent


def test_a_kconfig_is_blamed_only_for_a_type_that_it_would_give_the_helper_to() -> None:
    log = "unknown func bpf_override_return#58\n"
    assert explain(program_refused(log=log, program_type="kprobe"), MODERN).code == "kconfig"
    assert explain(program_refused(log=log, program_type="xdp"), MODERN).code == "helper"


TTY: dict[str, tuple[str, ...]] = {"tty_driver": ("flags", "type")}


@pytest.mark.parametrize(
    ("said", "text", "asks"),
    [
        (
            "<enumval_value> [11] enum tty_driver_type___n::TTY_DRIVER_TYPE_PTY___n = 4",
            "no enumerator TTY_DRIVER_TYPE_PTY in enum tty_driver_type",
            "bpf_core_enum_value_exists(enum tty_driver_type___n, TTY_DRIVER_TYPE_PTY___n)",
        ),
        (
            "<byte_off> [7] struct tty_driver___x.owner (0:1 @ offset 8)",
            "no field owner in struct tty_driver",
            "bpf_core_field_exists()",
        ),
        (
            "<byte_off> [7] struct tty_driver___x.type (0:1 @ offset 8)",
            "the field type of struct tty_driver has another type",
            "tty_driver___other",
        ),
        (
            "<type_size> [7] struct never_was___x",
            "no struct never_was as the program declares it",
            "bpf_core_type_exists(struct never_was___x)",
        ),
        (
            "<byte_off> [7] struct never_was.field (0:1 @ offset 8)",
            "no struct never_was as the program declares it",
            "bpf_core_type_exists(struct never_was)",
        ),
    ],
)
def test_a_relocation_that_failed_is_named(said: str, text: str, asks: str) -> None:
    trace = f"1: <invalid CO-RE relocation>\nfailed to resolve CO-RE relocation {said}\n"
    refused = program_refused(log="invalid func unknown#195896080\n", trace=trace)
    reason = explain(refused, replace(MODERN, structures=TTY))
    assert reason.code == "core-relocation"
    assert text in reason.text
    assert asks in reason.remedy
    assert said in reason.evidence


WORDINGS = {"ESRCH": ("-3", "-ESRCH"), "EINVAL": ("Invalid argument(-22)", "-EINVAL")}


@pytest.mark.parametrize("error", [*WORDINGS["ESRCH"], "-2", "-ENOENT"])
@pytest.mark.parametrize(
    ("attach_type", "there", "what"),
    [
        ("trace_iter", "bpf_iter_x", "BPF iterator"),
        ("trace_raw_tp", "btf_trace_x", "tracepoint"),
        ("lsm_mac", "bpf_lsm_x", "LSM hook"),
        ("trace_fentry", "x", "function"),
    ],
)
def test_a_missing_target_is_called_what_it_is(
    attach_type: str, there: str, what: str, error: str
) -> None:
    said = f"libbpf: prog 'p': failed to find kernel BTF type ID of 'x': {error}\n"
    kind = "lsm" if attach_type == "lsm_mac" else "tracing"
    refused = Failure("ESRCH", said, program_type=kind, attach_type=attach_type)
    plain = replace(MODERN, functions=frozenset({"x"} if what != "function" else set()))
    reason = explain(refused, plain)
    assert (reason.code, f"has no {what} x" in reason.text) == ("attach-target", True)
    assert there in reason.evidence
    assert ("bpf_program__set_attach_target()" in reason.remedy) == (what == "function")
    present = replace(MODERN, functions=frozenset({there}))
    assert explain(refused, present).code == "unknown"


def target_failure(name: str, attach_type: str = "trace_fentry") -> Failure:
    said = f"libbpf: prog 'p': failed to find kernel BTF type ID of '{name}': -3\n"
    return Failure("ESRCH", said, program_type="tracing", attach_type=attach_type)


def test_a_function_that_only_btf_lacks_is_not_said_to_be_missing() -> None:
    """__x64_sys_getpid, say: kprobes take it."""
    reason = explain(target_failure("f"), replace(MODERN, listed=frozenset({"f"})))
    assert reason.text.startswith("this kernel has the function f, but its BTF does not describe")
    assert ('SEC("kprobe/f")' in reason.remedy, reason.missing) == (True, "")


@pytest.mark.parametrize(
    ("attach_type", "cure"), [("trace_fentry", "kprobe"), ("trace_raw_tp", "raw_tp")]
)
def test_no_module_is_offered_where_modules_have_no_btf(attach_type: str, cure: str) -> None:
    """Linux before 5.11: a loaded module has the function, and fentry does not find it."""
    refused = target_failure("f", attach_type)
    assert explain(refused, MODERN).missing
    reason = explain(refused, replace(MODERN, module_btf=False))
    assert (reason.missing, "modules have no BTF" in reason.text) == ("", True)
    assert reason.remedy.startswith("name another ")
    assert f"for what a module has, take a {cure}" in reason.remedy


@pytest.mark.parametrize("error", WORDINGS["EINVAL"])
def test_a_map_type_is_missing_in_the_wording_of_every_libbpf(error: str) -> None:
    said = f"libbpf: map 'm': failed to create: {error}\n"
    refused = Failure("EINVAL", said, maps=(MapShape("m", "user_ringbuf", 0, 0),))
    without = replace(MODERN, without_map_types=frozenset({"user_ringbuf"}))
    assert explain(refused, without).code == "map-type"


def map_failure(shape: MapShape) -> Failure:
    return Failure("EINVAL", "libbpf: map 'm': failed to create: -EINVAL\n", maps=(shape,))


def test_a_probe_that_says_no_is_not_believed_of_a_type_that_the_kernel_knows() -> None:
    refused = map_failure(MapShape("m", "struct_ops", 4, 8, 1, 1 << 13))
    doubtful = frozenset({"struct_ops"})
    knows = frozenset({"BPF_MAP_TYPE_STRUCT_OPS"})
    old = replace(MODERN, without_map_types=doubtful, named=knows)
    reason = explain(refused, old)
    assert (reason.code, "BPF_F_LINK" in reason.text) == ("map-flag", True)
    with_flag = replace(old, named=knows | {"BPF_F_LINK"})
    assert explain(refused, with_flag).code == "unknown"


def test_what_is_wrong_with_a_map_is_told_by_its_definition() -> None:
    outer = map_failure(MapShape("m", "hash_of_maps", 4, 4, 8, inner=False))
    assert explain(outer, MODERN).code == "inner-map"
    assert "inner_maps = { m = {" in explain(outer, MODERN).remedy
    assert explain(map_failure(MapShape("m", "ringbuf", 0, 8)), MODERN).code == "map-definition"


def test_what_is_wrong_with_a_map_is_told_by_what_the_kernel_makes_instead() -> None:
    kernel = replace(MODERN, refused_maps=frozenset({("array", 1 << 23)}))
    reason = explain(map_failure(MapShape("m", "array", 4, 1 << 23)), kernel)
    assert "value_size 8388608 (m): that is too large" in reason.text
    assert "makes it with value_size 4" in reason.evidence


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (MapShape("m", "sk_storage", 4, 8, 1), "BPF_F_NO_PREALLOC"),
        (MapShape("m", "cgrp_storage", 4, 8, 16, 1), "no max_entries"),
        (MapShape("m", "lpm_trie", 8, 8, 1), "BPF_F_NO_PREALLOC"),
        (MapShape("m", "arena", 0, 0, 1), "BPF_F_MMAPABLE"),
    ],
)
def test_what_every_kernel_wants_of_a_map_type_is_told(shape: MapShape, wanted: str) -> None:
    knows = replace(MODERN, named=frozenset({"BPF_F_NO_PREALLOC"}))
    reason = explain(map_failure(shape), knows)
    assert (reason.code, wanted in reason.text) == ("map-definition", True)


def test_a_map_with_two_wrong_values_is_told_by_both() -> None:
    @dataclass(frozen=True)
    class TakesSmallQueues(Answers):
        def refuses_map(self, shape: MapShape) -> str:
            return "" if (shape.key_size, shape.max_entries) == (0, 1) else "EINVAL"

    reason = explain(map_failure(MapShape("m", "queue", 4, 8, 99)), TakesSmallQueues())
    assert reason.text == "this kernel makes no map of type queue with key_size 4 and " + (
        "max_entries 99 (m)"
    )
    assert "makes it with key_size 0 and max_entries 1" in reason.evidence


@pytest.mark.parametrize(
    ("kind", "cure"), [("hash", "only a bloom_filter and an arena"), ("bloom_filter", "at most 15")]
)
def test_a_map_extra_is_blamed_where_the_kernel_makes_the_map_without(kind: str, cure: str) -> None:
    @dataclass(frozen=True)
    class TakesNoExtra(Answers):
        def refuses_map(self, shape: MapShape) -> str:
            return "EINVAL" if shape.map_extra else ""

    reason = explain(map_failure(MapShape("m", kind, 0, 4, 8, map_extra=16)), TakesNoExtra())
    assert reason.text == f"this kernel makes no map of type {kind} with map_extra 0x10 (m)"
    assert cure in reason.remedy and "makes it with map_extra 0" in reason.evidence


def test_a_map_without_memory_is_told_by_its_entries() -> None:
    @dataclass(frozen=True)
    class Little(Answers):
        def refuses_map(self, shape: MapShape) -> str:
            return "ENOMEM" if shape.max_entries > 4096 else ""

    said = "libbpf: map 'm': failed to create: Cannot allocate memory(-12)\n"
    refused = Failure("ENOMEM", said, maps=(MapShape("m", "hash", 4, 8, 1 << 28),))
    reason = explain(refused, Little())
    assert "lacks the memory for the 268435456 entries" in reason.text
    assert "`memory`" in reason.remedy


def test_xdp_in_several_buffers_is_missing_only_where_the_kernel_has_no_such_member() -> None:
    refused = program_refused(program_type="xdp", attach_type="xdp", section="xdp.frags")
    old = replace(MODERN, structures={"bpf_prog_aux": ("refcnt",)})
    assert explain(refused, old).code == "program-flag"
    assert explain(replace(refused, section="xdp"), old).code == "unknown"
    new = replace(MODERN, structures={"bpf_prog_aux": ("refcnt", "xdp_has_frags")})
    assert explain(refused, new).code == "unknown"


def test_a_map_whose_sizes_nobody_told_is_made_with_all_of_them() -> None:
    kernel = replace(MODERN, refused_maps=frozenset({("stack_trace", 0)}))
    reason = explain(map_failure(MapShape("m", "stack_trace", 4, 0, 0)), kernel)
    assert reason.code == "map-definition"
    assert reason.text.startswith("the map m has value_size and max_entries 0")
    assert "makes it with value_size 8 and max_entries 1" in reason.evidence


# What libbpf 1.1 to 1.7 says, and the code that it stands for.
LIBBPF_SAID = {
    "target-not-told": [
        "prog 'p': no BTF-based attach target is specified, use bpf_program__set_attach_target()",
    ],
    "object-btf": [
        "Error loading .BTF into kernel: -22. BTF is mandatory, can't proceed.",
        "prog 'p': missing .BTF.ext function info.",
        "externs without BTF info are not supported",
        "BTF type [7] is malformed",
    ],
    "object": [
        "elf: couldn't find symbol table in x.o, stripped object file?",
        "invalid license section in x.o",
        "sec 'xdp': corrupted program 'p', offset 8, size 8",
    ],
    "relocation": [
        "prog 'p': bad call relo against 'f' in section 'xdp'",
        "prog 'p': bad data relo against section '.text'",
        "prog 'p': no .text section found yet sub-program call exists",
    ],
    "map-definition": [
        "map 'm': can't determine value size for type [7]: -22.",
        "map 'm': prog-array value def is of unexpected kind func.",
        "map 'm': 'values' member should be last.",
        ".maps relo #1: 'f' isn't a BTF-defined map",
    ],
    "inner-map": ["map 'm': failed to initialize slot [0] to map 'i' fd=7: -22"],
    "shared-prog-array": ["map 'm': failed to initialize slot [0] to prog 'p' fd=7: -EINVAL"],
    "struct-ops-unused": [
        "prog 'p': SEC(\"struct_ops\") program isn't referenced anywhere, did you forget to use "
        "it?",
    ],
    "struct-ops-type": [
        "struct_ops reloc cc: cannot find member at moff 8",
        "struct_ops init_kern cc: member f is not a struct_ops program",
    ],
    "freplace-target": ["f is not found in prog's BTF", "The target program doesn't have BTF"],
    "kconfig-not-found": ["failed to open system Kconfig"],
    "kconfig-type": ["failed to resolve size of extern (kcfg) 'CONFIG_X': -22"],
    "ksym-type": ["extern (ksym) 'x': resolution is ambiguous: 0x1 or 0x2"],
    "pin": [
        "specified path /tmp/m is not on BPF FS",
        "map 'm': failed to auto-pin at '/sys/fs/bpf/m': -2",
    ],
    "global-function": [
        "prog 'p': subprog 'f' arg#0 is expected to be of `struct xdp_md *` type",
    ],
    "arena": ["map 'b': only single ARENA map is supported (map 'a' is also ARENA)"],
    "core-type": [
        "prog 'p': relo #1: error matching candidate #0 x: -22",
        "prog 'p': relo 1 at insn #7 can't be applied to array access",
    ],
    "privilege": [
        "Error in bpf_object__probe_loading():Operation not permitted(1). Couldn't load trivial "
        "BPF program. Make sure your kernel supports BPF (CONFIG_BPF_SYSCALL=y)",
    ],
}


@pytest.mark.parametrize(
    ("code", "line"), [(code, line) for code, lines in LIBBPF_SAID.items() for line in lines]
)
def test_what_every_libbpf_says_has_its_code(code: str, line: str) -> None:
    reason = explain(Failure("EINVAL", f"libbpf: {line}\n"), MODERN)
    assert reason.code == code
    assert line in reason.evidence
    assert reason.remedy


@pytest.mark.parametrize(
    "line",
    [
        "Error loading .BTF into kernel: -22. BTF is optional, ignoring.",
        ".maps relo #0: for 1 value 2 rel->r_offset 3 name 4 ('m')",
        "struct_ops init: struct tcp_congestion_ops(type_id=7) cc found at offset 0",
    ],
)
def test_what_libbpf_goes_on_from_is_no_reason(line: str) -> None:
    assert explain(Failure("EINVAL", f"libbpf: {line}\n"), MODERN).code == "unknown"


@pytest.mark.parametrize("who", ["kernel", "vmlinux", "nf_conntrack"])
def test_a_kfunc_of_another_prototype_is_not_said_to_be_missing(who: str) -> None:
    said = f"libbpf: extern (func ksym) 'f': func_proto [6] incompatible with {who} [595]\n"
    assert explain(Failure("EINVAL", said), MODERN).code == "kfunc-prototype"


def test_a_strong_symbol_that_the_kernel_lacks_is_named() -> None:
    said = "libbpf: extern 'never_was_here' (strong): not resolved\n"
    reason = explain(Failure("ESRCH", said), MODERN)
    assert (reason.code, "no symbol never_was_here" in reason.text) == ("ksym", True)
    assert "__weak" in reason.remedy


def test_a_symbol_that_the_btf_does_not_describe_is_not_said_to_be_missing() -> None:
    said = "libbpf: extern (var ksym) 'softnet_data': not found in kernel BTF\n"
    there = explain(Failure("EINVAL", said), replace(MODERN, functions=frozenset({"softnet_data"})))
    assert there.text.startswith("this kernel has the symbol softnet_data, and its BTF does not")
    assert there.code == "ksym"
    gone = explain(Failure("EINVAL", said), MODERN)
    assert "has no symbol softnet_data" in gone.text


def test_a_member_that_a_struct_ops_lacks_is_named() -> None:
    said = "libbpf: struct_ops init_kern own_cc: Cannot find member f in kernel BTF\n"
    reason = explain(Failure("ENOTSUP", said), MODERN)
    assert (reason.code, reason.text) == (
        "attach-target",
        "the struct of own_cc has no member f on this kernel",
    )


def test_what_no_rule_explains_is_shown_with_its_source_line() -> None:
    trace = "0: (b7) r0 = 0\n; return odd(ctx); @ x.bpf.c:12\n1: (85) call pc+1\nR1 is odd\n"
    reason = explain(program_refused(log="R1 is odd\n", trace=trace), MODERN)
    assert reason.code == "unknown"
    assert "R1 is odd" in reason.text
    assert reason.text.endswith("at the source line `x.bpf.c:12: return odd(ctx);`")


def test_an_argument_that_a_function_lacks_is_no_matter_of_the_context() -> None:
    log = "func 'f' doesn't have 3-th argument\ninvalid bpf_context access off=16 size=8\n"
    assert explain(program_refused("EACCES", log=log), MODERN).code == "arguments"


def test_a_line_on_a_functions_argument_explains_only_what_nothing_else_does() -> None:
    aside = "arg#0 reference type('UNKNOWN ') size cannot be determined: -22\n"
    assert explain(program_refused(log=aside), MODERN).code == "global-function"
    loop = f"{aside}infinite loop detected at insn 3\n"
    assert explain(program_refused(log=loop), MODERN).code == "loop"
    assert explain(program_refused(log=f"{aside}R1 is odd\n"), MODERN).code == "unknown"


def test_what_libbpf_said_last_is_shown_where_no_verifier_was_asked() -> None:
    said = (
        "libbpf: something new of x.o\nlibbpf: prog 'p': failed to relocate calls: -22\n"
        "libbpf: failed to load object 'x.o'\n"
    )
    reason = explain(Failure("EINVAL", said), MODERN)
    assert (reason.code, reason.text) == (
        "unknown",
        "no rule of vmtest explains what libbpf said last: something new of x.o",
    )


def test_what_nobody_explains_is_told_by_its_errno() -> None:
    assert "EPERM" in explain(program_refused("EPERM"), MODERN).text


def test_a_kernel_that_lets_no_such_program_sleep_lacks_something() -> None:
    log = "Only fentry/fexit/fmod_ret and lsm programs can be sleepable\n"
    reason = explain(program_refused(log=log), MODERN)
    assert reason.code in LACKING
    assert reason.text == "this kernel does not let programs of type kprobe sleep"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]",
            "the program returns 1, and this kernel takes -4095 to 0 from programs of type lsm",
        ),
        (
            "At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)",
            "the program returns 5, and this kernel takes 0 or 1 from programs of type lsm",
        ),
        (
            "At program exit the register R0 has value (0x0; 0x3) should have been in (0x0; 0x0)",
            "the program may return 0 to 3, and this kernel takes 0 from programs of type lsm",
        ),
        (
            "At program exit the register R0 has unknown scalar value should have been in [0, 1]",
            "the program may return any number, and this kernel takes 0 or 1 from programs of type "
            "lsm",
        ),
        (
            "At callback return the register R0 has smin=7 smax=7 should have been in [0, 1]",
            "a callback returns 7, and must return 0 or 1",
        ),
        (
            "At async callback the register R0 has value (0x1; 0x0) should have been in (0x0; 0x0)",
            "a callback returns 1, and must return 0",
        ),
        (
            "At program exit the register R0 has value (0xffffffffffffffff; 0x0) should have been "
            "in (0x0; 0x1)",
            "the program returns -1, and this kernel takes 0 or 1 from programs of type lsm",
        ),
        (
            "At program exit the register R0 has smin=4294967295 smax=4294967295 should have been "
            "in [0, 1]",
            "the program returns -1, and this kernel takes 0 or 1 from programs of type lsm",
        ),
    ],
)
def test_a_return_value_is_told_with_what_is_allowed(line: str, text: str) -> None:
    reason = explain(Failure("EINVAL", log=f"{line}\n", program_type="lsm"), MODERN)
    assert (reason.code, reason.text) == ("return-value", text)


def test_a_return_value_in_words_of_another_kernel_has_its_code_all_the_same() -> None:
    line = "At program exit the register R0 is odd; it should have been in [odd]"
    assert explain(Failure("EINVAL", log=line), MODERN).code == "return-value"


@pytest.mark.parametrize(
    ("line", "kind", "text", "remedy"),
    [
        ("bpf_lsm_task_free is not sleepable", "lsm", "the hook task_free", "without `.s`"),
        ("vfs_read is not sleepable", "tracing", "the function vfs_read", "without `.s`"),
        ("vfs_read() is not modifiable", "tracing", "what vfs_read returns", 'SEC("fexit/vfs_read'),
    ],
)
def test_a_target_of_another_attachment_is_told_with_the_one_that_it_takes(
    line: str, kind: str, text: str, remedy: str
) -> None:
    reason = explain(Failure("EINVAL", log=line, program_type=kind), MODERN)
    assert (reason.code, text in reason.text) == ("attach-target", True)
    assert remedy in reason.remedy


@pytest.mark.parametrize(
    ("line", "text", "remedy"),
    [
        (
            "R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_",
            "a pointer is expected, to a kernel structure",
            "bpf_get_current_task_btf()",
        ),
        ("R3 type=inv expected=fp", "to memory of the stack", "pass the pointer itself"),
        ("R1 type=fp expected=ctx", "memory of the stack, where it takes the context", "ctx"),
        ("R1 type=new_kind expected=fp", "than it takes: new_kind, where", "stack"),
    ],
)
def test_an_argument_is_told_in_plain_words(line: str, text: str, remedy: str) -> None:
    reason = explain(Failure("EACCES", log=line), MODERN)
    assert text in reason.text
    assert remedy in reason.remedy


BTF_REFUSED = """libbpf: BTF loading error: -22
libbpf: -- BEGIN BTF LOAD LOG ---
magic: 0xeb9f
[34] FUNC f type_id=31 Invalid arg#1

-- END BTF LOAD LOG --
libbpf: Error loading .BTF into kernel: -22. BTF is optional, ignoring.
libbpf: prog 'p': BPF program load failed: Invalid argument
"""


@pytest.mark.parametrize(
    "line",
    [
        "map 'm' has to have BTF in order to use bpf_spin_lock",
        "tail_call is not allowed in subprogs without BTF",
    ],
)
def test_what_lacks_btf_that_the_kernel_refused_says_why_it_did(line: str) -> None:
    refused = Failure("EINVAL", BTF_REFUSED, log=line)
    reason = explain(refused, MODERN)
    assert (reason.code, "FUNC f type_id=31 Invalid arg#1" in reason.text) == ("object-btf", True)
    assert line in reason.evidence
    assert "Invalid arg" not in explain(replace(refused, messages=""), MODERN).text


def test_btf_that_was_refused_without_a_log_is_told_by_libbpfs_line() -> None:
    said = "libbpf: Error loading .BTF into kernel: -22. BTF is optional, ignoring.\n"
    reason = explain(Failure("EINVAL", said, log="missing btf func_info"), MODERN)
    assert "Error loading .BTF into kernel: -22" in reason.text


@pytest.mark.parametrize(
    ("step", "how", "remedy"),
    [
        ("7: (63) *(u32 *)(r1 +24) = r2", "writes 4 bytes at offset 24", "write only fields"),
        ("7: (61) r0 = *(u32 *)(r1 +24)", "reads 4 bytes at offset 24", "look at the fields"),
        ("", "reads or writes 4 bytes at offset 24", "look at the fields"),
    ],
)
def test_an_access_to_the_context_is_told_with_what_it_does(
    step: str, how: str, remedy: str
) -> None:
    line = "invalid bpf_context access off=24 size=4"
    trace = f"; c->level = 3;\n{step}\n{line}\n"
    refused = Failure("EACCES", log=line, trace=trace, program_type="cgroup_sockopt")
    reason = explain(refused, MODERN)
    assert f"the program {how} of its context" in reason.text
    assert reason.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("attach_type", "what"), [("trace_fexit", "function"), ("trace_raw_tp", "tracepoint")]
)
def test_what_has_fewer_arguments_is_called_what_it_is(attach_type: str, what: str) -> None:
    line = "func 'sched_switch' doesn't have 7-th argument"
    refused = Failure("EACCES", log=line, program_type="tracing", attach_type=attach_type)
    text = explain(refused, MODERN).text
    assert text.startswith(f"the {what} sched_switch of this kernel has fewer arguments")


@pytest.mark.parametrize(
    ("line", "code", "text", "remedy"),
    [
        ("metadata kfuncs require device-bound program", "kfunc", "not bound", "set_ifindex()"),
        ("invalid shift 70", "malformed-instruction", "shifted by 70", "0 to 63"),
        (
            "kernel subsystem misconfigured verifier",  # 5.10, of a tail call into an array
            "map-for-helper",
            "takes a PROG_ARRAY only",
            "by its name",
        ),
        (
            "Attaching fexit/fsession/fmod_ret to __noreturn function 'do_exit' is rejected.",
            "attach-target",
            "the function do_exit never returns",
            "fentry",
        ),
        (
            "Attaching fexit/fmod_ret to __noreturn functions is rejected.",
            "attach-target",
            "never returns",
            "fentry",
        ),
        ("R0 leaks addr as return value", "return-value", "returns an address", "a number"),
        (
            "held lock and object are not in the same allocation",
            "lock",
            "a lock that lies in another",
            "in one structure",
        ),
    ],
)
def test_a_mistake_with_words_of_its_own_has_a_remedy_of_its_own(
    line: str, code: str, text: str, remedy: str
) -> None:
    reason = explain(Failure("EINVAL", log=line, program_type="xdp"), MODERN)
    assert (reason.code, text in reason.text, remedy in reason.remedy) == (code, True, True)


@pytest.mark.parametrize(
    ("shape", "error", "code", "text"),
    [
        (
            MapShape("m", "cgroup_storage", 12, 8, 4),
            "-EINVAL",
            "map-definition",
            "must have max_entries 0",
        ),
        (MapShape("m", "77"), "-EINVAL", "map-type", "the type with the number 77"),
        (MapShape("m", "array_of_maps"), "-ENOTSUPP", "map-definition", "the maps inside m"),
        (
            MapShape("m", "array_of_maps"),
            "unknown error (-524)(-524)",
            "map-definition",
            "the maps inside m",
        ),
        (
            MapShape("m", "sk_storage", 4, 8, 0, 1),
            "Invalid argument(-22)",
            "map-btf",
            "must say the types of its key and its value",
        ),
    ],
)
def test_what_the_shape_of_a_map_does_not_show_is_told(
    shape: MapShape, error: str, code: str, text: str
) -> None:
    said = f"libbpf: map 'm': failed to create: {error}\n"
    knows = replace(MODERN, named=frozenset({"BPF_F_NO_PREALLOC"}))
    reason = explain(Failure("EINVAL", said, maps=(shape,)), knows)
    assert (reason.code, text in reason.text) == (code, True)

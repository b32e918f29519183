"""Names of BPF: program and attach types by section, map types and flags.

As libbpf has them (section_defs of libbpf.c); a test compares with the installed libbpf.
"""

from __future__ import annotations

# Section, program type, attach type ("-" for none). A section that ends in "+" may have "/..."
# behind it.
_SECTIONS = """
socket socket_filter -
sk_reuseport/migrate sk_reuseport sk_reuseport_select_or_migrate
sk_reuseport sk_reuseport sk_reuseport_select
kprobe+ kprobe -
uprobe+ kprobe -
uprobe.s+ kprobe -
kretprobe+ kprobe -
uretprobe+ kprobe -
uretprobe.s+ kprobe -
kprobe.multi+ kprobe trace_kprobe_multi
kretprobe.multi+ kprobe trace_kprobe_multi
kprobe.session+ kprobe trace_kprobe_session
uprobe.session+ kprobe trace_uprobe_session
uprobe.session.s+ kprobe trace_uprobe_session
uprobe.multi+ kprobe trace_uprobe_multi
uretprobe.multi+ kprobe trace_uprobe_multi
uprobe.multi.s+ kprobe trace_uprobe_multi
uretprobe.multi.s+ kprobe trace_uprobe_multi
ksyscall+ kprobe -
kretsyscall+ kprobe -
usdt+ kprobe -
usdt.s+ kprobe -
tcx/ingress sched_cls tcx_ingress
tcx/egress sched_cls tcx_egress
tc/ingress sched_cls tcx_ingress
tc/egress sched_cls tcx_egress
tc sched_cls -
classifier sched_cls -
action sched_act -
netkit/primary sched_cls netkit_primary
netkit/peer sched_cls netkit_peer
tracepoint+ tracepoint -
tp+ tracepoint -
raw_tracepoint+ raw_tracepoint -
raw_tp+ raw_tracepoint -
raw_tracepoint.w+ raw_tracepoint_writable -
raw_tp.w+ raw_tracepoint_writable -
tp_btf+ tracing trace_raw_tp
fentry+ tracing trace_fentry
fmod_ret+ tracing modify_return
fexit+ tracing trace_fexit
fentry.s+ tracing trace_fentry
fmod_ret.s+ tracing modify_return
fexit.s+ tracing trace_fexit
fsession+ tracing trace_fsession
fsession.s+ tracing trace_fsession
freplace+ ext -
lsm+ lsm lsm_mac
lsm.s+ lsm lsm_mac
lsm_cgroup+ lsm lsm_cgroup
iter+ tracing trace_iter
iter.s+ tracing trace_iter
syscall syscall -
xdp.frags/devmap xdp xdp_devmap
xdp/devmap xdp xdp_devmap
xdp.frags/cpumap xdp xdp_cpumap
xdp/cpumap xdp xdp_cpumap
xdp.frags xdp xdp
xdp xdp xdp
perf_event perf_event -
lwt_in lwt_in -
lwt_out lwt_out -
lwt_xmit lwt_xmit -
lwt_seg6local lwt_seg6local -
sockops sock_ops cgroup_sock_ops
sk_skb/stream_parser sk_skb sk_skb_stream_parser
sk_skb/stream_verdict sk_skb sk_skb_stream_verdict
sk_skb/verdict sk_skb sk_skb_verdict
sk_skb sk_skb -
sk_msg sk_msg sk_msg_verdict
lirc_mode2 lirc_mode2 lirc_mode2
flow_dissector flow_dissector flow_dissector
cgroup_skb/ingress cgroup_skb cgroup_inet_ingress
cgroup_skb/egress cgroup_skb cgroup_inet_egress
cgroup/skb cgroup_skb -
cgroup/sock_create cgroup_sock cgroup_inet_sock_create
cgroup/sock_release cgroup_sock cgroup_inet_sock_release
cgroup/sock cgroup_sock cgroup_inet_sock_create
cgroup/post_bind4 cgroup_sock cgroup_inet4_post_bind
cgroup/post_bind6 cgroup_sock cgroup_inet6_post_bind
cgroup/bind4 cgroup_sock_addr cgroup_inet4_bind
cgroup/bind6 cgroup_sock_addr cgroup_inet6_bind
cgroup/connect4 cgroup_sock_addr cgroup_inet4_connect
cgroup/connect6 cgroup_sock_addr cgroup_inet6_connect
cgroup/connect_unix cgroup_sock_addr cgroup_unix_connect
cgroup/sendmsg4 cgroup_sock_addr cgroup_udp4_sendmsg
cgroup/sendmsg6 cgroup_sock_addr cgroup_udp6_sendmsg
cgroup/sendmsg_unix cgroup_sock_addr cgroup_unix_sendmsg
cgroup/recvmsg4 cgroup_sock_addr cgroup_udp4_recvmsg
cgroup/recvmsg6 cgroup_sock_addr cgroup_udp6_recvmsg
cgroup/recvmsg_unix cgroup_sock_addr cgroup_unix_recvmsg
cgroup/getpeername4 cgroup_sock_addr cgroup_inet4_getpeername
cgroup/getpeername6 cgroup_sock_addr cgroup_inet6_getpeername
cgroup/getpeername_unix cgroup_sock_addr cgroup_unix_getpeername
cgroup/getsockname4 cgroup_sock_addr cgroup_inet4_getsockname
cgroup/getsockname6 cgroup_sock_addr cgroup_inet6_getsockname
cgroup/getsockname_unix cgroup_sock_addr cgroup_unix_getsockname
cgroup/sysctl cgroup_sysctl cgroup_sysctl
cgroup/getsockopt cgroup_sockopt cgroup_getsockopt
cgroup/setsockopt cgroup_sockopt cgroup_setsockopt
cgroup/dev cgroup_device cgroup_device
struct_ops+ struct_ops -
struct_ops.s+ struct_ops -
sk_lookup sk_lookup sk_lookup
netfilter netfilter netfilter
"""

SECTIONS = tuple(
    (name, kind, "" if attach == "-" else attach)
    for name, kind, attach in (line.split() for line in _SECTIONS.split("\n") if line)
)
"""Section, program type, attach type ("" where the section does not say)."""

PROGRAM_TYPES = tuple(dict.fromkeys(kind for _, kind, _ in SECTIONS))
"""libbpf's names of the types that a program can have; each has a section."""

# Those that no section tells, with the program types that have them.
_MORE_ATTACH_TYPES = (
    ("sk_skb", "sk_skb_verdict"),
    ("perf_event", "perf_event"),
    ("struct_ops", "struct_ops"),
    ("kprobe", "trace_uprobe_session"),
    ("tracing", "trace_fsession"),
)
ATTACH_TYPES = tuple(
    dict.fromkeys(
        attach
        for _, attach in (*((kind, attach) for _, kind, attach in SECTIONS), *_MORE_ATTACH_TYPES)
        if attach
    )
)
"""libbpf's names of attach types."""

_MAP_TYPES = """
unspec hash array prog_array perf_event_array percpu_hash percpu_array stack_trace cgroup_array
lru_hash lru_percpu_hash lpm_trie array_of_maps hash_of_maps devmap sockmap cpumap xskmap sockhash
cgroup_storage reuseport_sockarray percpu_cgroup_storage queue stack sk_storage devmap_hash
struct_ops ringbuf inode_storage task_storage bloom_filter user_ringbuf cgrp_storage arena
insn_array
"""
MAP_TYPES = tuple(_MAP_TYPES.split())
"""The names of map types by number, ``enum bpf_map_type``."""

_MAP_FLAGS = """
no_prealloc no_common_lru numa_node rdonly wronly stack_build_id zero_seed rdonly_prog wronly_prog
clone mmapable preserve_elems inner_map link path_fd vtype_btf_obj_fd token_fd segv_on_fault
no_user_conv
"""
MAP_FLAGS = tuple(_MAP_FLAGS.split())
"""The names of map flags by bit, ``BPF_F_*``."""


def types_of(section: str) -> tuple[str, str]:
    """Program and attach type of a program in ``section``; "" where its name does not say."""
    name = section.removeprefix("?")  # not loaded by itself
    for pattern, kind, attach in SECTIONS:
        base = pattern.removesuffix("+")
        if name == base or (base != pattern and name.startswith(f"{base}/")):
            return kind, attach
    return "", ""


def attach_types_of(kind: str) -> tuple[str, ...]:
    """The attach types that programs of the type ``kind`` may have."""
    pairs = (*((of, attach) for _, of, attach in SECTIONS), *_MORE_ATTACH_TYPES)
    return tuple(dict.fromkeys(attach for of, attach in pairs if of == kind and attach))


def map_type(number: int) -> str:
    """The name of a map type, its number where it has none here."""
    return MAP_TYPES[number] if number < len(MAP_TYPES) else str(number)


def map_flags(flags: int) -> str:
    """The names of a map's flags, ``no_prealloc, mmapable``."""
    names = [name for bit, name in enumerate(MAP_FLAGS) if flags >> bit & 1]
    rest = flags >> len(MAP_FLAGS) << len(MAP_FLAGS)
    return ", ".join([*names, *([f"{rest:#x}"] if rest else [])])

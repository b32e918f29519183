"""A refusal of a program whose type nobody told, with the option that tells it: pure but a file."""

from __future__ import annotations

import shlex
from pathlib import Path

from vmtest.objects.inspect import context_structures
from vmtest.verify.events import Load

_CODE = "type-not-told"
_CILIUM = "cilium/ebpf"
# What programs of a type get as their context: include/linux/bpf_types.h.
_OF_CONTEXT = {
    "xdp_md": ("xdp",),
    "__sk_buff": ("sched_cls", "cgroup_skb", "socket_filter", "sk_skb", "lwt_xmit"),
    "bpf_sock": ("cgroup_sock",),
    "bpf_sock_addr": ("cgroup_sock_addr:cgroup_inet4_connect",),
    "bpf_sock_ops": ("sock_ops",),
    "bpf_sockopt": ("cgroup_sockopt:cgroup_setsockopt",),
    "bpf_sysctl": ("cgroup_sysctl",),
    "bpf_cgroup_dev_ctx": ("cgroup_device",),
    "sk_msg_md": ("sk_msg",),
    "sk_reuseport_md": ("sk_reuseport",),
    "bpf_sk_lookup": ("sk_lookup",),
    "bpf_perf_event_data": ("perf_event",),
    "bpf_nf_ctx": ("netfilter",),
}


def with_type(event: Load, name: str, path: Path) -> Load:
    """``event`` with a remedy that can be pasted, where the type of a program was not told.

    ``name`` is the object's row and ``path`` its file, whose BTF has the program's context.
    """
    if event.reason is None or event.reason.code != _CODE:
        return event
    program = event.reason.name
    structure = context_structures(path).get(program, "")
    types = _OF_CONTEXT.get(structure, ())

    def option(kind: str) -> str:
        return f"--type {shlex.quote(f'{name}:{program}={kind}')}"

    if not types:
        remedy = f"{option('xdp')}, with its own type in place of xdp (TYPE[:ATTACH])"
    else:
        remedy = f"{option(types[0])} (it takes a struct {structure})"
        if len(types) > 1:
            remedy += f"; or, for the same context, with {', '.join(types[1:])}"
        elif ":" in types[0]:
            remedy += ", with another attach type where it is for that"
    if _CILIUM in event.reason.text:
        remedy += f"; or another release of {_CILIUM}, which may know the section"
    reason = event.reason.model_copy(update={"remedy": remedy})
    return event.model_copy(update={"reason": reason})

/* SPDX-License-Identifier: GPL-2.0-only */
/* One program for each way of attaching that needs to know nothing of an application. */
#include "program.h"

SEC("cgroup/connect4")
int on_connect(struct bpf_sock_addr *ctx)
{
    return 1;
}

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
    return 1;
}

SEC("sockops")
int on_socket_events(struct bpf_sock_ops *ctx)
{
    return 0;
}

SEC("sk_msg")
int on_message(struct sk_msg_md *ctx)
{
    return SK_PASS;
}

SEC("xdp")
int on_device(struct xdp_md *ctx)
{
    return XDP_PASS;
}

SEC("tc")
int on_queue(struct __sk_buff *skb)
{
    return 0;
}

SEC("kprobe/do_nanosleep")
int on_call(void *ctx)
{
    return 0;
}

SEC("tracepoint/sched/sched_switch")
int on_tracepoint(void *ctx)
{
    return 0;
}

SEC("raw_tp/sched_switch")
int on_raw_tracepoint(void *ctx)
{
    return 0;
}

SEC("fentry/do_nanosleep")
int on_entry(void *ctx)
{
    return 0;
}

SEC("sk_lookup")
int on_lookup(struct bpf_sk_lookup *ctx)
{
    return SK_PASS;
}

/* 5.18: loads before, and cannot be attached. */
SEC("kprobe.multi/do_nanosleep")
int on_calls(void *ctx)
{
    return 0;
}

/* No such tracepoint, anywhere. */
SEC("tracepoint/vmtest/never")
int on_nothing(void *ctx)
{
    return 0;
}

/* Nothing matches. */
SEC("kprobe.multi/vmtest_never_*")
int on_no_calls(void *ctx)
{
    return 0;
}

/* That file has no such function. */
SEC("uprobe//bin/true:vmtest_never")
int on_no_function(void *ctx)
{
    return 0;
}

/* Over one map, which a section cannot name. */
SEC("iter/bpf_map_elem")
int on_each_element(void *ctx)
{
    return 0;
}

SEC("socket")
int on_packets(struct __sk_buff *skb)
{
    return 0;
}

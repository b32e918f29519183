/* SPDX-License-Identifier: GPL-2.0-only */
/* One PROG_ARRAY of two types of program: each loads alone, never both. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} tails SEC(".maps");

SEC("xdp")
int on_a_device(struct xdp_md *ctx)
{
    bpf_tail_call(ctx, &tails, 0);
    return XDP_PASS;
}

SEC("tc")
int on_a_queue(struct __sk_buff *skb)
{
    bpf_tail_call(skb, &tails, 0);
    return 0;
}

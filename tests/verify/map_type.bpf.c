/* SPDX-License-Identifier: GPL-2.0-only */
/* A bloom filter (5.16). */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
    __uint(max_entries, 8);
    __type(value, __u32);
} seen SEC(".maps");

SEC("xdp")
int uses_no_map(struct xdp_md *ctx)
{
    return XDP_PASS;
}

SEC("tc")
int asks(struct __sk_buff *skb)
{
    __u32 mark = skb->mark;

    return bpf_map_peek_elem(&seen, &mark) == 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* A PROG_ARRAY for each type of program: the remedy of `shared_types` and `shared_attach_types`. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} device_tails SEC(".maps"), queue_tails SEC(".maps");

SEC("xdp")
int of_a_device(struct xdp_md *ctx)
{
    bpf_tail_call(ctx, &device_tails, 0);
    return XDP_PASS;
}

SEC("tc")
int of_a_queue(struct __sk_buff *skb)
{
    bpf_tail_call(skb, &queue_tails, 0);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* What every kernel takes: a plain program, and one with a subprogram. */
#include "program.h"

static __attribute__((noinline)) __u32 half(__u32 number)
{
    volatile __u32 copy = number;

    return copy / 2;
}

SEC("xdp")
int plain(struct xdp_md *ctx)
{
    return XDP_PASS;
}

SEC("tc")
int with_subprogram(struct __sk_buff *skb)
{
    return half(skb->len) > 20 ? 0 : 1;
}

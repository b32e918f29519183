/* SPDX-License-Identifier: GPL-2.0-only */
/* A PROG_ARRAY that libbpf fills with a program: the other one alone is no failure. */
#include "program.h"

SEC("xdp")
int target(struct xdp_md *ctx)
{
    return XDP_PASS;
}

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __array(values, int(void *));
} tails SEC(".maps") = {
    .values = {[0] = (void *)&target},
};

SEC("xdp")
int jumps(struct xdp_md *ctx)
{
    bpf_tail_call(ctx, &tails, 0);
    return XDP_DROP;
}

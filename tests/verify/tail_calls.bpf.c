/* SPDX-License-Identifier: GPL-2.0-only */
/* A tail call in the callback of a loop, and in the program itself. */
#include "program.h"

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

struct tries {
    struct xdp_md *ctx;
};

static long tries_one(__u32 index, struct tries *tries)
{
    bpf_tail_call(tries->ctx, &next, 1);
    return 0;
}

SEC("xdp")
int calls_in_a_callback(struct xdp_md *ctx)
{
    struct tries tries = {ctx};

    bpf_loop(4, tries_one, &tries, 0);
    return XDP_PASS;
}

SEC("xdp")
int calls_in_the_program(struct xdp_md *ctx)
{
    int index;

#pragma clang loop unroll(full)
    for (index = 0; index < 4; index++)
        bpf_tail_call(ctx, &next, index);
    return XDP_PASS;
}

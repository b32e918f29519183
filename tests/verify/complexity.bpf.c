/* SPDX-License-Identifier: GPL-2.0-only */
/* A branch in a loop, of which the verifier keeps one more to look at in each turn. */
#include "program.h"

#define TURNS 8300 /* more than the 8192 branches that may be open at one time */

static volatile __u64 count;

SEC("xdp")
int branches_in_each_turn(struct xdp_md *ctx)
{
    int turn;

#pragma clang loop unroll(disable)
    for (turn = 0; turn < TURNS; turn++)
        if (bpf_get_prandom_u32() > 5)
            count++;
    return XDP_PASS;
}

__attribute__((noinline)) int a_turn(int turn)
{
    if (bpf_get_prandom_u32() > 5)
        count++;
    return turn;
}

SEC("xdp")
int branches_in_a_global_function(struct xdp_md *ctx)
{
    int turn;

#pragma clang loop unroll(disable)
    for (turn = 0; turn < TURNS; turn++)
        a_turn(turn);
    return XDP_PASS;
}

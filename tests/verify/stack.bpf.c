/* SPDX-License-Identifier: GPL-2.0-only */
/* Two frames that fit one by one, and not together. */
#include "program.h"

static __attribute__((noinline)) int inner(int number)
{
    volatile char room[400] = {};

    return room[number & 255];
}

SEC("xdp")
int too_deep(struct xdp_md *ctx)
{
    volatile char room[400] = {};

    return inner(ctx->rx_queue_index) + room[ctx->rx_queue_index & 255];
}

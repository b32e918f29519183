/* SPDX-License-Identifier: GPL-2.0-only */
/* A program type of 5.14, beside one that every kernel has. */
#include "program.h"

SEC("syscall")
int calls(void *ctx)
{
    return 0;
}

SEC("xdp")
int passes(struct xdp_md *ctx)
{
    return XDP_PASS;
}

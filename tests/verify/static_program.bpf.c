/* SPDX-License-Identifier: GPL-2.0-only */
/* A program that its own file keeps for itself. */
#include "program.h"

SEC("xdp")
static int hidden(struct xdp_md *ctx)
{
    return XDP_PASS;
}

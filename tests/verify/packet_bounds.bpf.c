/* SPDX-License-Identifier: GPL-2.0-only */
/* A packet read beyond what was checked. */
#include "program.h"

SEC("xdp")
int reads_beyond(struct xdp_md *ctx)
{
    char *data = (void *)(long)ctx->data;
    char *end = (void *)(long)ctx->data_end;

    if (data + 14 > end)
        return XDP_DROP;
    return data[20] ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int reads_beyond_cured(struct xdp_md *ctx)
{
    char *data = (void *)(long)ctx->data;
    char *end = (void *)(long)ctx->data_end;

    if (data + 21 > end)
        return XDP_DROP;
    return data[20] ? XDP_PASS : XDP_DROP;
}

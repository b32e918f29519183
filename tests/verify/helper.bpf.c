/* SPDX-License-Identifier: GPL-2.0-only */
/* Helpers that came after the older kernels, and one that this type of program never gets. */
#include "program.h"

/* 6.1 */
SEC("tc")
int knows_the_time(struct __sk_buff *skb)
{
    return bpf_ktime_get_tai_ns() == 0;
}

/* A tracing helper. */
SEC("xdp")
int overrides(struct xdp_md *ctx)
{
    return bpf_get_attach_cookie(ctx) == 0;
}

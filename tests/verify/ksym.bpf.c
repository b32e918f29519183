/* SPDX-License-Identifier: GPL-2.0-only */
/* A symbol that no kernel has; `newer` declares it weak. */
#include "program.h"

extern const int vmtest_never_was __ksym;

SEC("xdp")
int uses_symbol(struct xdp_md *ctx)
{
    return *(volatile int *)&vmtest_never_was ? XDP_PASS : XDP_DROP;
}
